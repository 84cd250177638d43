"""int8 in the engines: layers are rounded, gates and classifiers are not."""

import functools
import json
import sys

import jax
import numpy as np
import pytest
from gated_network import SIZE, create_network, draw_videos
from laws import VIDEOS, read, run_lockstep, run_online
from run_folder import GATED, write_run
from specimens import NAMES, create_specimen

import sofnet_jax
from sofnet_jax.backbones.folded import Block, create_past
from sofnet_jax.backbones.layers import PIXEL_MEAN, PIXEL_STD
from sofnet_jax.engines import onnxruntime
from sofnet_jax.engines.registry import ENGINES, find_engine, use_engine
from sofnet_jax.host import processor
from sofnet_jax.host.errors import UserError
from sofnet_jax.inference.choice import choose_engine
from sofnet_jax.inference.int8 import FILE, compute_ranges, read_ranges, write_ranges
from sofnet_jax.inference.online import begin
from sofnet_jax.systems.early_exit import NEVER
from sofnet_jax.weights.load import load_weights

CLASSES = ["a", "b", "c", "d", "e"]
pytestmark = pytest.mark.skipif(
    not processor.sums_bytes(), reason="this machine has no instructions for int8"
)


@functools.cache
def find_ranges(name):
    specimen = create_specimen(name)
    return compute_ranges(specimen.network, specimen.draw(VIDEOS, seed=1))


def move(name, engine, dtype="int8"):
    ranges = find_ranges(name) if dtype == "int8" else None
    return use_engine(create_specimen(name).network, engine, dtype, ranges)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", NAMES)
def test_layers_are_rounded_and_scores_are_not(name, engine):
    specimen = create_specimen(name)
    exact, rounded = move(name, engine, "float32"), move(name, engine)
    assert rounded.dtype == np.int8
    pairs = list(zip(exact.spans, rounded.spans, strict=True))
    pairs = [(a, b) for a, b in pairs if getattr(getattr(a, "layers", None), "layers", ())]
    x = specimen.draw(1)[0, :1]
    past = create_past([a.layers for a, _ in pairs], x.shape)
    state = begin(exact, NEVER, np.array([specimen.num_frames]), (SIZE, SIZE, 3)).inner
    before = None
    for (a, b), own in zip(pairs, past, strict=True):
        (features, pooled, left), (found, its_pooled, its_left) = a.layers(x, own), b.layers(x, own)
        assert len(left) == len(its_left)
        for wanted, got in ((features.array, found.array), (pooled, its_pooled)):
            error = np.linalg.norm(wanted - got) / np.linalg.norm(wanted)
            rounds = any(isinstance(layer, Block) for layer in b.layers.layers)
            assert (1e-5 < error < 0.1 if rounds else error == 0) and got.dtype == np.float32
        _, evidence = a.extract(state, x if a.looks else before)
        scores = [jax.tree.leaves(span.score(state, evidence)) for span in (a, b)]
        for wanted, got in zip(*scores, strict=True):
            np.testing.assert_array_equal(wanted, got)
        x, before = features, (features, pooled)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", NAMES)
def test_all_systems_run(name, engine):
    specimen = create_specimen(name)
    videos = specimen.draw(VIDEOS)
    steps = specimen.evaluate(videos, NEVER)[1]
    network = move(name, engine)
    logits, found = read(list(run_online(network, videos, NEVER)))
    assert np.isfinite(logits).all()
    same = [len({*a} & {*b}) / len({*a} | {*b}) for a, b in zip(steps, found, strict=True)]
    assert np.mean(same) > 0.6  # frames of noise hardly differ
    together = read(run_lockstep(network, videos, NEVER))
    assert together[1] == found
    np.testing.assert_allclose(together[0], logits, atol=1e-4)


def test_ranges_are_those_of_the_frames():
    network = create_specimen("tsn").network
    frames = np.zeros((2, SIZE, SIZE, 3), np.uint8)
    frames[1] = 255
    [ranges] = compute_ranges(network, [frames])
    low, high = -np.array(PIXEL_MEAN) / PIXEL_STD, (1 - np.array(PIXEL_MEAN)) / PIXEL_STD
    assert any(np.allclose(each, (low.min(), high.max())) for each in ranges.values())
    [dark] = compute_ranges(network, [frames[:1]])
    assert any(np.allclose(each, (low.min(), low.max())) for each in dark.values())


def test_a_span_without_frames_is_named():
    with pytest.raises(UserError, match="no frame came to the layers of res1; give more videos"):
        compute_ranges(create_specimen("sofnet").network, [])


def test_what_cannot_be_done_is_said(monkeypatch):
    network, ranges = create_specimen("sofnet").network, find_ranges("sofnet")
    text = "JAX does not compute in int8; give --engine=onnxruntime or --engine=openvino"
    with pytest.raises(UserError, match=text):
        choose_engine(network, "jax", "int8", SIZE)
    chosen, words = choose_engine(network, "auto", "int8", SIZE, ranges)
    assert chosen.dtype == np.int8 and ", int8; " in words and "jax was left out" in words
    monkeypatch.setattr(onnxruntime, "sums_bytes", lambda: False)
    with pytest.raises(UserError, match="computes in float32 on this machine, not in int8"):
        choose_engine(network, "onnxruntime", "int8", SIZE, ranges)
    monkeypatch.setitem(sys.modules, "sofnet_jax.engines.int8", None)
    with pytest.raises(UserError, match=r"int8 needs ONNX Runtime's tools .*'\.\[onnxruntime\]'$"):
        choose_engine(network, "openvino", "int8", SIZE, ranges)


def test_instructions_are_read_from_what_linux_tells(monkeypatch, tmp_path):
    for text, can in (
        ("flags : fpu avx2 avx512_vnni sse\n", True),
        ("Features : fp asimd asimddp\n", True),
        ("flags : fpu avx2 avx512_vnnix\n", False),
        (None, False),
    ):
        path = tmp_path / "cpuinfo"
        path.unlink(missing_ok=True)
        if text:
            path.write_text(text)
        monkeypatch.setattr(processor, "Path", lambda _, path=path: path)
        assert processor.sums_bytes.__wrapped__() == can


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    _, _, variables = create_network()
    fields = GATED | {"model.backbone": "tiny", "model.width": 8, "model.hidden": 16}
    return write_run(tmp_path_factory.mktemp("runs") / "mine", variables, CLASSES, fields)


def write(run):
    digest = load_weights(str(run)).digest
    return write_ranges(run, digest, find_ranges("sofnet"), videos=12)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_run_with_ranges_is_loaded(run, engine):
    write(run)
    exact, rounded = (
        sofnet_jax.load(run, engine=engine, dtype=dtype) for dtype in ("float32", "int8")
    )
    video = draw_videos(1, 6)[0]
    scores = [model.predict(video, early=False).scores for model in (exact, rounded)]
    assert 0 < np.abs(scores[0] - scores[1]).max() < 0.2


@pytest.mark.parametrize(
    "change, text",
    [
        (None, f"holds no {FILE}, which int8 needs: python -m sofnet_jax.quantize "),
        ({"weights": "another"}, "belongs to other weights than the last checkpoint"),
        ({"version": 0}, "or to another version of this program: python -m sofnet_jax.quantize "),
        ({"spans": []}, "is damaged: python -m sofnet_jax.quantize "),
        ({"spans": [None]}, "is damaged"),
        ({"spans": [{"x": [1, 0]}] * 6}, "is damaged"),
        ({"spans": [{"x": [0, 1e300]}] * 6}, "is damaged"),
        ({"spans": [{"x": 1}] * 6}, "is damaged"),
        ({"spans": [[]] * 6}, "is damaged"),
        ({"spans": [{}] * 6}, "the engine openvino failed: .*not"),
    ],
)
def test_ranges_that_do_not_fit_are_refused_in_one_line(run, change, text):
    path = write(run)
    if change is None:
        path.unlink()
    else:
        path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=text) as caught:
        sofnet_jax.load(run, engine="openvino", dtype="int8")
    assert "\n" not in str(caught.value)
    sofnet_jax.load(run, engine="openvino")  # float32 needs none


def test_ranges_belong_to_a_run_and_a_checkpoint(run, tmp_path):
    (tmp_path / "weights.npz").write_bytes(b"")
    with pytest.raises(UserError, match="int8 needs the videos that it was trained on"):
        read_ranges(str(tmp_path / "weights.npz"), "last", "", 6)
    with pytest.raises(UserError, match="--which=best$"):
        read_ranges(str(write(run).parent), "best", "", 6)


def test_int8_is_among_the_types_of_both_engines():
    assert [find_engine(name).dtypes[-1] for name in ENGINES] == ["int8", "int8"]
