"""Laws that every system keeps: all ways to run it decide alike, and traces cost what ran."""

import functools
import math

import jax
import numpy as np
from gated_network import SIZE
from jax.extend.core import jaxprs_in_params
from scipy.special import softmax

from sofnet_jax.inference import online
from sofnet_jax.inference.lockstep import Lockstep
from sofnet_jax.inference.lookahead import LookAhead
from sofnet_jax.inference.online import Recognizer
from sofnet_jax.inference.pool import Pool
from sofnet_jax.inference.program import run_videos
from sofnet_jax.systems.base import decide
from sofnet_jax.systems.early_exit import NEVER, Rule, watch

VIDEOS = 12
compiled_videos = jax.jit(run_videos, static_argnames="rule")
TOLERANCE = 1e-5


def run_online(network, videos, rule):
    recognizer = Recognizer(network, rule)
    for video in videos:
        recognizer.reset(len(video) if network.architecture.num_frames else None)
        for time in network.architecture.order(len(video)):
            assert recognizer.wanted == time
            if recognizer.step(video[time]):
                break
        yield recognizer.result()


def run_lockstep(network, videos, rule, batch_size=3, in_flight=None):
    lockstep = Lockstep(network, rule, batch_size=batch_size, in_flight=in_flight)
    ordered = [[video[time] for time in network.architecture.order(len(video))] for video in videos]
    results = dict(lockstep.recognize(ordered))
    assert sorted(results) == list(range(len(videos)))
    return [results[i] for i in range(len(videos))]


def run_pool(network, videos, rule, batch_size=3, group_size=5):
    pool = Pool(network, rule, batch_size=batch_size, group_size=group_size)
    ordered = [[video[time] for time in network.architecture.order(len(video))] for video in videos]
    results = dict(pool.recognize(ordered))
    assert sorted(results) == list(range(len(videos)))
    return [results[i] for i in range(len(videos))]


def run_ahead(network, videos, rule, length=3):
    ahead, a = LookAhead(network, rule, length), network.architecture
    for video in videos:
        frames = [video[time] for time in a.order(len(video))]
        result, computed = ahead.recognize(frames, len(video) if a.num_frames else None)
        assert computed[0] >= len(result.trace) and max(computed) <= len(video)
        yield result


def read(results):
    """Logits and the steps of every video."""
    steps = [
        list(zip(r.trace.time.tolist(), r.trace.action.tolist(), strict=True)) for r in results
    ]
    return np.stack([result.logits for result in results]), steps


def run_program(network, videos, rule):
    outputs = compiled_videos(network, videos, rule)
    steps = []
    for stop in np.asarray(outputs.stop).tolist():
        order = network.architecture.order(videos.shape[1]).tolist()
        steps.append([(time, stop[time]) for time in order if stop[time] >= 0])
    return np.asarray(outputs.logits), steps


def check_all(specimen, videos, rule, *, compiled=True):
    """Returns the steps, after seeing that every way takes them.

    Without `compiled` not those that are compiled anew for a network or a number of frames.
    """
    network = specimen.network
    logits, steps = specimen.evaluate(videos, rule)
    online_results = list(run_online(network, videos, rule))
    ways = {"online": read(online_results)}
    if compiled:
        ways["lockstep"] = read(run_lockstep(network, videos, rule))
        ways["pool"] = read(run_pool(network, videos, rule))
        if network.shares:
            ways["look-ahead"] = read(list(run_ahead(network, videos, rule)))
        ways["program"] = run_program(network, videos, rule)
    for way, (its_logits, its_steps) in ways.items():
        assert its_steps == steps, way
        np.testing.assert_allclose(its_logits, logits, atol=TOLERANCE, err_msg=way)
    for result, own in zip(online_results, steps, strict=True):
        assert result.ended == (len(own) < videos.shape[1]) or len(own) == videos.shape[1]
        np.testing.assert_allclose(result.scores.sum(), 1, rtol=1e-6)
    return steps


def find_rule(specimen, videos, min_frames=2):
    """With it about half of the videos end early."""
    p = specimen.predict(videos)
    answers = np.array([action.answers for action in p.actions])[p.action] & (p.action >= 0)
    logits = p.logits
    if p.pooling == "mean":
        count = np.maximum(np.cumsum(answers, 1), 1)[..., None]
        logits = np.cumsum(answers[..., None] * p.logits, 1) / count
    part = slice(min_frames, -1)
    surest = softmax(logits[:, part], axis=-1).max((1, 2), initial=0, where=answers[:, part, None])
    return Rule(float(np.median(surest)), min_frames)


def _count_macs(jaxpr):
    """Multiply-adds of the products and convolutions of a program."""
    total = 0
    for equation in jaxpr.eqns:
        shapes = [getattr(v.aval, "shape", ()) for v in (*equation.invars, *equation.outvars)]
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            total += math.prod(shapes[-1]) * math.prod(shapes[0][i] for i in contracted)
        elif equation.primitive.name == "conv_general_dilated":
            total += math.prod(shapes[-1]) * math.prod(shapes[1][:-1])  # a kernel is HWIO
        for inner in jaxprs_in_params(equation.params):
            total += _count_macs(inner)
    return total


def _count_span_macs(network):
    """Multiply-adds of each span on a frame."""
    state = watch(
        network, NEVER, jax.numpy.full(1, network.architecture.num_frames or -1), (SIZE, SIZE, 3)
    )
    pixels = jax.numpy.zeros((1, SIZE, SIZE, 3), jax.numpy.uint8)
    counts, sources = {}, {None: pixels}

    def run(span, state, x):
        carry, evidence = span.extract(state, x)
        return carry, decide(span, state, evidence)

    for i, span in enumerate(network.spans):
        before = None if span.looks else next(j for j in sources if i in _followers(network, j))
        function = functools.partial(run, span, state.inner)
        counts[i] = _count_macs(jax.make_jaxpr(function)(sources[before]).jaxpr)
        sources[i], _ = function(sources[before])
    return counts


def _followers(network, i):
    return () if i is None else network.spans[i].followers


def check_decisions(specimen, *, compiled):
    """Every way decides alike; with early exit as well, which with `compiled` all ways take."""
    videos = specimen.draw(VIDEOS)
    steps = check_all(specimen, videos, NEVER)
    counts = np.bincount(
        [a for own in steps for _, a in own], minlength=len(specimen.system.architecture.actions)
    )
    assert counts.all(), "some action never occurs"
    rule = find_rule(specimen, videos)
    ends = list(map(len, check_all(specimen, videos, rule, compiled=compiled)))
    assert min(ends) < specimen.num_frames and max(ends) == specimen.num_frames


def check_causality(specimen):
    """No later frame changes an earlier step, in the order in which the system looks."""
    videos = specimen.draw(VIDEOS)
    order = specimen.system.architecture.order(specimen.num_frames)
    known = len(order) // 2
    changed = videos.copy()
    changed[:, order[known:]] = specimen.draw(VIDEOS, seed=1)[:, order[known:]]
    before, after = specimen.predict(videos), specimen.predict(changed)
    np.testing.assert_array_equal(after.action[:, :known], before.action[:, :known])
    seen = before.action[:, :known] >= 0
    np.testing.assert_array_equal(
        after.logits[:, :known][seen], before.logits[:, :known][seen], "logits"
    )
    assert (after.action[:, known:] != before.action[:, known:]).any() or len(
        specimen.system.architecture.actions
    ) == 1


def check_company(specimen):
    """What is done with a video depends neither on the batch's size nor on the other videos."""
    videos = specimen.draw(VIDEOS)
    logits, steps = read(run_lockstep(specimen.network, videos, NEVER))
    for batch_size, in_flight in ((1, 3), (5, 2)):
        others = list(videos[::-1]) + list(videos[:3])
        results = run_lockstep(specimen.network, others, NEVER, batch_size, in_flight)
        other_logits, other_steps = read(results[:VIDEOS][::-1])
        assert other_steps == steps
        np.testing.assert_allclose(other_logits, logits, atol=TOLERANCE)


def check_prices(specimen, monkeypatch):
    """The price of a trace is that of the spans that ran."""
    network, see, ran = specimen.network, online.see, []

    def record(network, i, *rest):
        ran.append(i)
        return see(network, i, *rest)

    monkeypatch.setattr(online, "see", record)
    recognizer, spans = Recognizer(network), {}
    for video in specimen.draw(VIDEOS):
        recognizer.reset(len(video))
        for at in network.architecture.order(len(video)):
            ran.clear()
            if recognizer.step(video[at]):
                break  # the last step may be what it is only because no frame follows
            spans.setdefault(recognizer.action, set()).add(tuple(ran))
    counts, prices = _count_span_macs(network), network.architecture.prices(SIZE).full
    for action, ways in spans.items():
        (way,) = ways  # an action always means the same spans
        macs = sum(counts[i] for i in way) / 1e9
        # The rest is elementwise: BatchNorm, ReLU, pools. The product W_ih W_x is made once.
        assert macs <= prices[action] <= 1.5 * macs, network.architecture.actions[action]
    assert len(spans) >= len(prices) - 2
