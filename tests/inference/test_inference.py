"""Every way to run a network decides as masked evaluation does, and does no more than it must."""

import dataclasses
import itertools
import subprocess
import sys

import jax
import laws
import numpy as np
import pytest
from gated_network import FRAMES, SIZE, create_network, draw_videos
from laws import TOLERANCE, VIDEOS, check_all, find_rule, run_lockstep, run_online
from specimens import FLOAT32, PARAMETERS, Specimen, create_specimen

from sofnet_jax.inference import lockstep as lockstep_module
from sofnet_jax.inference import online
from sofnet_jax.inference.lockstep import Lockstep
from sofnet_jax.inference.online import Recognizer
from sofnet_jax.inference.program import export_program, run_video
from sofnet_jax.systems.early_exit import NEVER, Rule
from sofnet_jax.systems.sofnet.architecture import Architecture
from sofnet_jax.systems.sofnet.folded import deploy
from sofnet_jax.systems.sofnet.network import SoFNet


def _stops(steps):
    """The actions of every video, padded with -1."""
    rows = [[action for _, action in own] for own in steps]
    longest = max(map(len, rows))
    return np.array([row + [-1] * (longest - len(row)) for row in rows])


def _force(architecture, variables, forward):
    """The same network with gates that forward all frames, 1, or none, 0."""
    variables = jax.tree.map(np.array, variables)
    for name, share in forward.items():
        variables["params"][f"policy_{name}"]["b_q"][:] = 0, 1e6 * (2 * share - 1)
    return variables


def _create(architecture, model, variables, *, winograd=False):
    """A specimen of SoF-Net."""
    system = dataclasses.replace(
        create_specimen("sofnet").system, architecture=architecture, module=model
    )
    network = deploy(architecture, variables, dtype=FLOAT32, winograd=winograd)
    return Specimen("sofnet", system, variables, network)


@pytest.fixture(scope="module")
def gated():
    return create_specimen("sofnet")


@pytest.mark.parametrize("name", PARAMETERS)
def test_all_ways_decide_alike(name):
    laws.check_decisions(create_specimen(name), compiled=name in ("sofnet", "tsn"))


@pytest.mark.parametrize("name", PARAMETERS)
def test_the_price_of_a_trace_is_that_of_the_spans_that_ran(name, monkeypatch):
    laws.check_prices(create_specimen(name), monkeypatch)


@pytest.mark.parametrize("name", PARAMETERS)
def test_no_later_frame_changes_an_earlier_step(name):
    laws.check_causality(create_specimen(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", PARAMETERS)
def test_company_changes_nothing(name):
    laws.check_company(create_specimen(name))


@pytest.mark.slow
def test_bottlenecks():
    fields = {"block": "bottleneck", "depths": (1, 2, 1, 1), "width": 4, "stem_kernel": 7}
    architecture = Architecture(num_classes=5, hidden=16, **fields)
    model = SoFNet(architecture)
    videos = draw_videos(3)
    variables = jax.jit(model.init)(jax.random.key(3), videos)
    check_all(_create(architecture, model, variables, winograd=True), videos, NEVER, compiled=False)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_nothing_and_everything_is_kept(share):
    architecture, model, variables = create_network()
    variables = _force(architecture, variables, dict.fromkeys(architecture.gate_names, share))
    specimen = _create(architecture, model, variables)
    stop = _stops(check_all(specimen, draw_videos(VIDEOS), NEVER))
    assert (stop[:, :-1] == (5 if share else 0)).all()
    assert (stop[:, -1] == 5).all()  # the last frame, if no other


def test_end_at_the_first_allowed_frame(gated):
    steps = check_all(gated, draw_videos(VIDEOS), Rule(0.0, 3), compiled=False)
    stop = _stops(steps)
    for row in stop:
        kept = np.flatnonzero(row == 5)
        assert (row >= 0).sum() == next((t + 1 for t in kept if t >= 3), FRAMES)


def test_videos_of_one_frame(gated):
    videos = draw_videos(VIDEOS, 1)
    stop = _stops(check_all(gated, videos, NEVER, compiled=False))
    assert (stop == 5).all()
    for result in run_lockstep(gated.network, videos, NEVER):
        assert result.trace.action.tolist() == [5]


@pytest.mark.parametrize(
    ("batch_size", "in_flight"), [pytest.param(5, 1, marks=pytest.mark.slow), (3, 2), (1, 3)]
)
def test_lockstep_does_not_depend_on_batch_size_or_company(gated, batch_size, in_flight):
    network = gated.network
    lengths = [1, 7, 2, 10, 3, 1, 9, 4] * 3
    videos = [video[:n] for video, n in zip(draw_videos(len(lengths)), lengths, strict=True)]
    rule = find_rule(gated, draw_videos(VIDEOS), 1)
    expected = list(run_online(network, videos, rule))
    for result, other in zip(
        run_lockstep(network, videos, rule, batch_size, in_flight), expected, strict=True
    ):
        np.testing.assert_array_equal(result.trace.action, other.trace.action)
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
    network = gated.network
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
        assert max(t for n, t in asked if n == number) == len(result.trace) - 1


def test_what_a_gate_stops_is_not_computed(gated, monkeypatch):
    network = gated.network
    calls = []
    see = online.see

    def record(network, i, *rest):
        calls.append(i)
        return see(network, i, *rest)

    monkeypatch.setattr(online, "see", record)
    [result] = run_online(network, draw_videos(1), NEVER)
    for k in range(len(network.spans)):
        assert calls.count(k) == (result.trace.action >= k).sum()


@pytest.mark.slow
def test_nothing_is_compiled_after_the_first_video(gated):
    network = gated.network
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
        list(run_online(network, videos, NEVER))
        dict(lockstep.recognize(videos))
        assert not compiled
        jax.jit(lambda x: x + len(compiled))(1.0)
        assert compiled  # it does listen
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def test_the_program_branches_where_frames_stop():
    # A branch that both ways compute and one selects would save nothing.
    network = deploy(*create_network()[::2])
    frames = np.zeros((4, SIZE, SIZE, 3), np.uint8)
    leaves, tree = jax.tree.flatten(network)

    def run(leaves, frames):
        return run_video(jax.tree.unflatten(tree, leaves), frames)

    program = jax.jit(run).lower(leaves, frames).compile().as_text()
    assert program.count(" conditional(") == len(network.spans) - 1


def _step_all(recognizer, video):
    for frame in video:
        recognizer.step(frame)
    return recognizer.result().trace.action.tolist()


def test_later_frames_do_not_change_earlier_decisions(gated):
    network = gated.network
    video = draw_videos(1)[0]
    recognizer = Recognizer(network)
    before = _step_all(recognizer, video)
    recognizer.reset()
    other = np.concatenate([video[:6], draw_videos(1, seed=1)[0][6:]])
    after = _step_all(recognizer, other)
    assert before[:6] == after[:6]


def test_a_result_on_the_way_changes_nothing(gated):
    network = gated.network
    video = draw_videos(1)[0]
    plain, asked = Recognizer(network), Recognizer(network)
    for frame in video:
        plain.step(frame)
        asked.step(frame)
        asked.result()
    np.testing.assert_array_equal(plain.result().logits, asked.result().logits)
    np.testing.assert_array_equal(plain.result().trace.action, asked.result().trace.action)


def test_misuse(gated):
    network = gated.network
    recognizer = Recognizer(network, Rule(0.0, 0))
    with pytest.raises(ValueError, match="no frame was looked at"):
        recognizer.result()
    for wrong in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(ValueError, match="a frame is uint8 of shape"):
            recognizer.step(wrong)
    for frame in draw_videos(1)[0]:
        if recognizer.step(frame):
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
    network = gated.network
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
    rule = find_rule(gated, draw_videos(VIDEOS))
    export_program(tmp_path / "program", gated.network, SIZE, rule)
    for count, num_frames in ((1, 4), (3, FRAMES)):
        videos = draw_videos(count, num_frames)
        np.save(tmp_path / "frames.npy", videos)
        paths = [tmp_path / name for name in ("program", "frames.npy", "out.npz")]
        subprocess.run([sys.executable, "-c", LOADER, *paths], check=True, cwd=tmp_path)
        logits, steps = gated.evaluate(videos, rule)
        found = np.load(tmp_path / "out.npz")
        stops = [[stop for stop in row if stop >= 0] for row in found["stop"].tolist()]
        assert stops == [[action for _, action in own] for own in steps]
        np.testing.assert_allclose(found["logits"], logits, atol=TOLERANCE)


def test_memory_and_decisions_over_many_frames(gated):
    network = gated.network
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
    network = gated.system.deploy(gated.variables, dtype=jax.numpy.bfloat16)
    assert network.dtype == jax.numpy.bfloat16
    assert {x.dtype for x in jax.tree.leaves((network.gates, network.head))} == {
        np.dtype("float32")
    }
    [result] = run_online(network, draw_videos(1, 2), NEVER)
    assert np.isfinite(result.logits).all()
