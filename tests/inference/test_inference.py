"""Every way to run a network decides as masked evaluation does, and does no more than it must."""

import functools
import itertools
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from gated_network import FRAMES, SIZE, create_network, draw_videos
from scipy.special import softmax

from sofnet_jax.evaluation.metrics import compute_consensus, compute_observed
from sofnet_jax.inference import lockstep as lockstep_module
from sofnet_jax.inference import online
from sofnet_jax.inference.lockstep import Lockstep
from sofnet_jax.inference.online import Recognizer
from sofnet_jax.inference.program import export_program, run_videos
from sofnet_jax.systems.early_exit import NEVER, Rule
from sofnet_jax.systems.sofnet.architecture import Architecture
from sofnet_jax.systems.sofnet.folded import Network, deploy
from sofnet_jax.systems.sofnet.network import SoFNet
from sofnet_jax.systems.sofnet.released import Released

VIDEOS = 12
_run_videos = jax.jit(run_videos, static_argnames="rule")


@functools.cache
def _apply(model):
    return jax.jit(model.apply)


FLOAT32 = "float32"  # also where bfloat16 is faster
TOLERANCE = 1e-5


def _evaluate(model, variables, videos, rule):
    """Logits, and the stop of every frame with -1 for those not looked at, by masked evaluation."""
    outputs = _apply(model)(variables, videos)
    logits, stop = np.asarray(outputs.frame_logits), np.array(outputs.decision.stop)
    kept = stop == len(model.architecture.gates)
    observed = np.full(len(videos), videos.shape[1])
    if rule.threshold is not None:
        observed = compute_observed(logits, kept, rule.threshold, rule.min_frames)
    seen = np.arange(videos.shape[1]) < observed[:, None]
    return compute_consensus(logits, kept & seen), np.where(seen, stop, -1)


def _run_online(network, videos, rule):
    recognizer = Recognizer(network, rule)
    for video in videos:
        recognizer.reset()
        for frame in video:
            if recognizer.step(frame).ended:
                break
        yield recognizer.result()


def _run_lockstep(network, videos, rule, batch_size=3, in_flight=None):
    lockstep = Lockstep(network, rule, batch_size=batch_size, in_flight=in_flight)
    results = dict(lockstep.recognize(videos))
    assert sorted(results) == list(range(len(videos)))
    return [results[i] for i in range(len(videos))]


def _pad(results, num_frames):
    logits = np.stack([result.logits for result in results])
    stops = [np.pad(r.stop, (0, num_frames - len(r.stop)), constant_values=-1) for r in results]
    return logits, np.stack(stops)


def _run_program(network, videos, rule):
    outputs = _run_videos(network, videos, rule)
    return np.asarray(outputs.logits), np.asarray(outputs.stop)


def _check_all(network, model, variables, videos, rule, *, compiled=True):
    """Returns the decisions, after seeing that every way takes them.

    Without `compiled` not those that are compiled anew for a network or a number of frames.
    """
    logits, stop = _evaluate(model, variables, videos, rule)
    online_results = list(_run_online(network, videos, rule))
    ways = {"online": _pad(online_results, videos.shape[1])}
    if compiled:
        ways["lockstep"] = _pad(_run_lockstep(network, videos, rule), videos.shape[1])
        ways["program"] = _run_program(network, videos, rule)
    for way, (its_logits, its_stop) in ways.items():
        np.testing.assert_array_equal(its_stop, stop, way)
        np.testing.assert_allclose(its_logits, logits, atol=TOLERANCE, err_msg=way)
    for result, row in zip(online_results, stop, strict=True):
        assert result.ended == (row[-1] == -1) or len(result.stop) == len(row)
        np.testing.assert_allclose(result.scores.sum(), 1, rtol=1e-6)
    return stop


def _force(architecture, variables, forward):
    """The same network with gates that forward all frames, 1, or none, 0."""
    variables = jax.tree.map(np.array, variables)
    for name, share in forward.items():
        variables["params"][f"policy_{name}"]["b_q"][:] = 0, 1e6 * (2 * share - 1)
    return variables


@pytest.fixture(scope="module")
def gated():
    architecture, model, variables = create_network()
    return deploy(architecture, variables, dtype=FLOAT32, winograd=False), model, variables


def _find_rule(model, variables, videos, min_frames=2):
    """With it about half of the videos end early."""
    outputs = _apply(model)(variables, videos)
    kept = (outputs.decision.stop == len(model.architecture.gates))[..., None]
    mean = np.cumsum(kept * outputs.frame_logits, 1) / np.maximum(np.cumsum(kept, 1), 1)
    surest = softmax(mean[:, min_frames:-1], axis=-1).max(
        (1, 2), initial=0, where=kept[:, min_frames:-1]
    )
    return Rule(float(np.median(surest)), min_frames)


@pytest.mark.parametrize(
    "fields",
    [
        {"gates": (1, 2, 3, 4, 5)},
        pytest.param(
            {"gates": (2,), "temporal": False, "released": Released(empty=True, state=True)},
            marks=pytest.mark.slow,
        ),
        {"gates": (2, 4), "shift": "online", "seed": 4},
    ],
    ids=lambda fields: f"{fields['gates']} {fields.get('shift', '')}",
)
def test_all_ways_decide_alike(fields):
    architecture, model, variables = create_network(**fields)
    network = deploy(
        architecture, variables, released=model.released, dtype=FLOAT32, winograd=False
    )
    videos = draw_videos(VIDEOS)
    stop = _check_all(network, model, variables, videos, NEVER)
    counts = np.bincount(stop.ravel(), minlength=len(architecture.gates) + 1)
    assert counts.all(), "some gate stops nothing, or nothing is kept"
    rule = _find_rule(model, variables, videos)
    compiled = len(architecture.gates) == 5 and not architecture.shift
    ends = (_check_all(network, model, variables, videos, rule, compiled=compiled) >= 0).sum(1)
    assert ends.min() < FRAMES and ends.max() == FRAMES


@pytest.mark.slow
def test_bottlenecks():
    fields = {"block": "bottleneck", "depths": (1, 2, 1, 1), "width": 4, "stem_kernel": 7}
    architecture = Architecture(num_classes=5, hidden=16, **fields)
    model = SoFNet(architecture)
    videos = draw_videos(3)
    variables = jax.jit(model.init)(jax.random.key(3), videos)
    network = deploy(architecture, variables, dtype=FLOAT32, winograd=True)
    _check_all(network, model, variables, videos, NEVER, compiled=False)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_nothing_and_everything_is_kept(share):
    architecture, model, variables = create_network()
    variables = _force(architecture, variables, dict.fromkeys(architecture.gate_names, share))
    network = deploy(architecture, variables, dtype=FLOAT32, winograd=False)
    stop = _check_all(network, model, variables, draw_videos(VIDEOS), NEVER)
    assert (stop[:, :-1] == (5 if share else 0)).all()
    assert (stop[:, -1] == 5).all()  # the last frame, if no other


def test_end_at_the_first_allowed_frame(gated):
    network, model, variables = gated
    stop = _check_all(network, model, variables, draw_videos(VIDEOS), Rule(0.0, 3), compiled=False)
    for row in stop:
        kept = np.flatnonzero(row == 5)
        assert (row >= 0).sum() == next((t + 1 for t in kept if t >= 3), FRAMES)


def test_videos_of_one_frame(gated):
    network, model, variables = gated
    videos = draw_videos(VIDEOS, 1)
    stop = _check_all(network, model, variables, videos, NEVER, compiled=False)
    assert (stop == 5).all()
    for result in _run_lockstep(network, videos, NEVER):
        assert result.stop.tolist() == [5]


@pytest.mark.parametrize(("batch_size", "in_flight"), [(5, 1), (3, 2), (1, 3)])
def test_lockstep_does_not_depend_on_batch_size_or_company(gated, batch_size, in_flight):
    network, *_ = gated
    lengths = [1, 7, 2, 10, 3, 1, 9, 4] * 3
    videos = [video[:n] for video, n in zip(draw_videos(len(lengths)), lengths, strict=True)]
    rule = _find_rule(gated[1], gated[2], draw_videos(VIDEOS), 1)
    expected = list(_run_online(network, videos, rule))
    for result, other in zip(
        _run_lockstep(network, videos, rule, batch_size, in_flight), expected, strict=True
    ):
        np.testing.assert_array_equal(result.stop, other.stop)
        np.testing.assert_allclose(result.logits, other.logits, atol=TOLERANCE)
        assert result.ended == other.ended


def test_lockstep_takes_the_batches_that_suit_a_cpu():
    # 4 at 192×192, 2 at 224×224: `python -m sofnet_jax.benchmark inference` prefers these.
    sizes = [
        lockstep_module._choose_batch_size("cpu", np.zeros((side, side, 3), np.uint8))
        for side in (32, 168, 192, 224, 271, 272, 2000)
    ]
    assert sizes == [4, 4, 4, 2, 2, 1, 1]


def test_lockstep_asks_for_no_more_than_it_needs(gated):
    network, *_ = gated
    asked, begun = [], []

    def read(number, video):
        for t, frame in enumerate(video):
            asked.append((number, t))
            yield frame

    def read_all():
        for number, video in enumerate(draw_videos(40)):
            begun.append(number)
            yield read(number, video)

    lockstep = Lockstep(network, Rule(0.0, 0), batch_size=2)
    results = lockstep.recognize(read_all())
    first = next(results)
    assert len(begun) <= 2 * 5 + 1  # no more than have a place
    for number, result in [first, *results]:
        assert max(t for n, t in asked if n == number) == len(result.stop) - 1


def test_what_a_gate_stops_is_not_computed(gated, monkeypatch):
    network, *_ = gated
    calls = []

    def count(run):
        return lambda *parts: calls.extend(parts) or run(*parts)

    for name in ("run", "run_gated", "ask", "classify"):
        monkeypatch.setattr(online, name, count(getattr(online, name)))
    [result] = _run_online(network, draw_videos(1), NEVER)
    for k, span in enumerate(network.spans[:-1]):
        reached = (result.stop >= k).sum()
        assert sum(call is span for call in calls) == reached
        assert sum(call is network.gates[k] for call in calls) == reached
    assert sum(call is network.head for call in calls) == (result.stop == 5).sum()


def test_nothing_is_compiled_after_the_first_video(gated):
    network, *_ = gated
    compiled = []

    def listen(event, duration, **_):
        if "backend_compile" in event:
            compiled.append(event)

    videos = draw_videos(VIDEOS)
    lockstep = Lockstep(network, batch_size=5)
    lockstep.warm_up(SIZE, SIZE)
    recognizer = Recognizer(network)
    recognizer.warm_up(SIZE, SIZE)
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        list(_run_online(network, videos, NEVER))
        dict(lockstep.recognize(videos))
        assert not compiled
        jax.jit(lambda x: x + len(compiled))(1.0)
        assert compiled  # it does listen
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def test_the_programs_time_falls_when_frames_stop():
    architecture, model, variables = create_network()
    videos = np.zeros((1, 30, 128, 128, 3), np.uint8)
    seconds = []
    for share in (0, 1):
        forward = dict.fromkeys(architecture.gate_names, 1) | {"res1": share}
        network = deploy(architecture, _force(architecture, variables, forward))
        jax.block_until_ready(_run_videos(network, videos, NEVER))
        took = []
        for _ in range(5):
            start = time.perf_counter()
            jax.block_until_ready(_run_videos(network, videos, NEVER))
            took.append(time.perf_counter() - start)
        seconds.append(min(took))
    assert seconds[0] < 0.7 * seconds[1]


def test_later_frames_do_not_change_earlier_decisions(gated):
    network, *_ = gated
    video = draw_videos(1)[0]
    recognizer = Recognizer(network)
    before = [recognizer.step(frame).stop for frame in video]
    recognizer.reset()
    other = np.concatenate([video[:6], draw_videos(1, seed=1)[0][6:]])
    after = [recognizer.step(frame).stop for frame in other]
    assert before[:6] == after[:6]


def test_a_result_on_the_way_changes_nothing(gated):
    network, *_ = gated
    video = draw_videos(1)[0]
    plain, asked = Recognizer(network), Recognizer(network)
    for frame in video:
        plain.step(frame)
        asked.step(frame)
        asked.result()
    np.testing.assert_array_equal(plain.result().logits, asked.result().logits)
    np.testing.assert_array_equal(plain.result().stop, asked.result().stop)


def test_misuse(gated):
    network, *_ = gated
    recognizer = Recognizer(network, Rule(0.0, 0))
    with pytest.raises(ValueError, match="no frame was looked at"):
        recognizer.result()
    for wrong in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(ValueError, match="a frame is uint8 of shape"):
            recognizer.step(wrong)
    for frame in draw_videos(1)[0]:
        if recognizer.step(frame).ended:
            break
    with pytest.raises(ValueError, match="has ended"):
        recognizer.step(frame)
    lockstep = Lockstep(network)
    with pytest.raises(ValueError, match="video 1 has no frames"):
        list(lockstep.recognize([draw_videos(1)[0], []]))
    odd = np.zeros((SIZE, SIZE + 2, 3), np.uint8)
    with pytest.raises(ValueError, match="frames of"):
        list(lockstep.recognize([[odd], draw_videos(1)[0]]))
    assert len(dict(lockstep.recognize(draw_videos(2)))) == 2  # it can be used again


def test_lockstep_keeps_its_word_when_it_is_broken_off(gated):
    network, *_ = gated
    lockstep = Lockstep(network, batch_size=2)
    closed = []

    def read(video):
        try:
            yield from video
        finally:
            closed.append(1)

    results = lockstep.recognize(map(read, draw_videos(30)))
    next(results)
    with pytest.raises(RuntimeError, match="is in progress"):
        next(lockstep.recognize(draw_videos(1)))
    results.close()
    assert len(closed) >= 6  # also those that were on their way
    small = np.zeros((SIZE // 2, SIZE // 2, 3), np.uint8)
    with pytest.raises(ValueError, match="make them one"):
        list(lockstep.recognize([*draw_videos(12), [small]]))
    assert (
        len(dict(lockstep.recognize([[small], [small]]))) == 2
    )  # but another call may be of others


LOADER = """
import sys
import jax, numpy as np
path, frames, out = sys.argv[1:]
program = jax.export.deserialize(bytearray(open(path, "rb").read()))
scores, logits, stop = program.call(np.load(frames))
np.savez(out, logits=logits, stop=stop)
assert not any(name.startswith(("sofnet_jax", "flax")) for name in sys.modules)
"""


@pytest.mark.slow
def test_exported_program_runs_in_another_process(gated, tmp_path):
    network, model, variables = gated
    rule = _find_rule(model, variables, draw_videos(VIDEOS))
    export_program(tmp_path / "program", network, SIZE, rule)
    for count, num_frames in ((1, 4), (3, FRAMES)):
        videos = draw_videos(count, num_frames)
        np.save(tmp_path / "frames.npy", videos)
        paths = [tmp_path / name for name in ("program", "frames.npy", "out.npz")]
        subprocess.run([sys.executable, "-c", LOADER, *paths], check=True, cwd=tmp_path)
        logits, stop = _evaluate(model, variables, videos, rule)
        found = np.load(tmp_path / "out.npz")
        np.testing.assert_array_equal(found["stop"], stop)
        np.testing.assert_allclose(found["logits"], logits, atol=TOLERANCE)


def test_memory_and_decisions_over_many_frames(gated):
    network, *_ = gated
    recognizer = Recognizer(network)
    frames = itertools.cycle(draw_videos(1)[0])
    for frame in itertools.islice(frames, 50):
        recognizer.step(frame)
    live = len(jax.live_arrays())
    for frame in itertools.islice(frames, 500):
        recognizer.step(frame)
    assert len(jax.live_arrays()) <= live + 12  # features of the last frame, as far as it came


@pytest.mark.slow
def test_bfloat16_stages(gated):
    _, model, variables = gated
    network = deploy(model.architecture, variables, dtype=jax.numpy.bfloat16)
    assert isinstance(network, Network) and network.dtype == jax.numpy.bfloat16
    assert {x.dtype for x in jax.tree.leaves((network.gates, network.head))} == {
        np.dtype("float32")
    }
    [result] = _run_online(network, draw_videos(1, 2), NEVER)
    assert np.isfinite(result.logits).all()
