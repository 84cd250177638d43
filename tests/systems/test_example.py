"""The system of docs/similar.py, as a user adds it."""

import dataclasses
import importlib.util
import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import laws
import numpy as np
import pytest
from command import call
from gated_network import SIZE
from scene_video import write_scene
from specimens import FLOAT32, Specimen, create_specimen

import sofnet_jax
from sofnet_jax import convert
from sofnet_jax.engines.registry import ENGINES, find_engine, use_engine
from sofnet_jax.host.errors import UserError
from sofnet_jax.inference.portable import write_video_model
from sofnet_jax.run.config import flatten_fields
from sofnet_jax.systems.base import Network, Span, State, System
from sofnet_jax.systems.early_exit import NEVER
from sofnet_jax.systems.registry import SYSTEMS, create_system
from sofnet_jax.weights.load import Weights, create_shapes, initialise, load_weights
from sofnet_jax.weights.names import to_state_dict

FILE = Path(__file__).parents[2] / "docs/similar.py"
FIELDS = {"model.backbone": "tiny", "model.width": 8, "data.size": SIZE}


@pytest.fixture(scope="module")
def similar():
    """The module, imported and registered."""
    spec = importlib.util.spec_from_file_location("similar", FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules["similar"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["similar"], SYSTEMS["similar"]


@pytest.fixture(scope="module")
def specimen(similar):
    """TSN's weights with a threshold that stops about half of the frames."""
    fields = flatten_fields(similar.get_config().to_dict()) | FIELDS
    system = create_system(fields, num_classes=5)
    own = create_specimen("tsn").variables
    videos = create_specimen("tsn").draw(12)
    evaluate = jax.jit(system.evaluate)

    def decide(threshold):
        variables = own | {"params": own["params"] | {"threshold": jnp.float32(threshold)}}
        return variables, evaluate(variables, videos)

    shares = {t: (decide(t)[1].action == similar.KEPT).mean() for t in np.linspace(0.9, 1, 41)}
    best = min(shares, key=lambda t: abs(shares[t] - 0.5))
    variables, _ = decide(best)
    network = system.deploy(variables, dtype=FLOAT32, winograd=False)
    return Specimen("similar", system, variables, network)


def test_it_speaks_the_protocol(specimen):
    state = specimen.network.begin(jnp.full(1, 3), (SIZE, SIZE, 3))
    assert isinstance(specimen.system, System) and isinstance(specimen.network, Network)
    assert isinstance(state, State) and all(isinstance(s, Span) for s in specimen.network.spans)


def test_a_first_span_needs_no_layers(specimen):
    network = dataclasses.replace(specimen.network, spans=(object(), specimen.network.spans[-1]))
    assert network.dtype == FLOAT32


def test_all_ways_decide_alike(specimen):
    laws.check_decisions(specimen, compiled=True)


@pytest.mark.parametrize("engine", ENGINES)
def test_engines_and_onnx_decide_alike(specimen, engine, tmp_path):
    moved = dataclasses.replace(specimen, network=use_engine(specimen.network, engine, "float32"))
    videos = specimen.draw(laws.VIDEOS)
    steps = laws.check_all(moved, videos, NEVER, compiled=False)
    assert laws.read(laws.run_lockstep(moved.network, videos, NEVER))[1] == steps
    write_video_model(tmp_path / "a.onnx", specimen.network, NEVER, SIZE, {})
    run = find_engine(engine).compile((tmp_path / "a.onnx").read_bytes(), "float32")
    for video, own in zip(videos, steps, strict=True):
        _, _, actions = run([video])
        assert list(enumerate(actions.tolist())) == own


def test_no_later_frame_changes_an_earlier_step(specimen):
    laws.check_causality(specimen)


@pytest.mark.slow
def test_the_price_of_a_trace_is_that_of_the_spans_that_ran(specimen, monkeypatch):
    laws.check_prices(specimen, monkeypatch)


def test_decisions_by_hand(similar):
    x = np.array([[3, 0], [2, 1], [0, 1], [0, 5], [4, 0.1]], np.float32)
    unit = similar.normalise(jnp.array(x))
    np.testing.assert_allclose(unit[1], np.array([2, 1]) / np.sqrt(5), rtol=1e-6)
    last, kept = jnp.zeros((1, 2)), []
    for frame in unit:
        kept.append(float(similar.keep(frame[None], last, jnp.float32(0.8))[0]))
        last = frame[None] if kept[-1] else last
    # cos: 0; 2/√5 = 0.89; 0; 1; 0.02
    assert kept == [1, 0, 1, 0, 1]

    def margin(threshold):
        return similar.keep(unit[1:2], unit[:1], threshold, temperature=0.5)[0]

    soft = 1 / (1 + np.exp(-(0.8 - 2 / np.sqrt(5)) / 0.5))
    gradient = jax.grad(margin)(jnp.float32(0.8))
    np.testing.assert_allclose(gradient, soft * (1 - soft) / 0.5, rtol=1e-5)


@pytest.fixture(scope="module")
def run(similar, tmp_path_factory):
    """A short training on videos with repeated frames, from the command line."""
    folder = tmp_path_factory.mktemp("similar")
    for seed in range(12):
        split = "train" if seed < 8 else "val"
        write_scene(folder / split / "ab"[seed % 2] / f"{seed}.mp4", seed)
    fields = FIELDS | {
        "data.size": 64,
        "data.train": folder / "train",
        "data.val": folder / "val",
        "data.num_frames": 24,  # of 60, of which each five are nearly alike
        "data.num_workers": 0,
        "train.batch_size": 4,
        "train.warmup_epochs": 1,
        "train.joint_epochs": 2,
        "train.log_every": 1,
        "optimizer.learning_rate": 0.01,
        "eval.batch_size": 4,
        "eval.every_epochs": 3,
    }
    given = [f"--config.{name}={value}" for name, value in fields.items()]
    code, out, err = call("main", f"--config={FILE}", f"--workdir={folder / 'run'}", *given)
    assert code == 0, err
    assert out.startswith("Similar frames\n") and "(warm-up) + 2 epochs" in out
    SYSTEMS["similar"] = similar.Similar  # the command imported the file once more
    return folder / "run"


@pytest.mark.slow
def test_a_training_stops_frames(run):
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    usage = [row["train/usage"] for row in metrics if "train/usage" in row]
    assert usage[:2] == [1, 1]  # the warm-up
    assert max(usage[2:]) < 1
    result = json.loads((run / "result.json").read_text())
    assert 1 / 24 <= result["eval"]["usage"] < 1


@pytest.mark.slow
def test_the_gate_learns_after_the_warm_up(run, similar):
    weights = load_weights(str(run))
    assert weights.system.name == "similar"
    start = similar.Architecture(2).threshold
    assert weights.tensors["threshold"] < start  # fewer frames are kept


@pytest.mark.slow
def test_load_and_predict(run, similar):
    model = sofnet_jax.load(run, dtype=FLOAT32)
    video = next((run.parent / "val/a").iterdir())
    prediction = model.predict(video)
    assert len(prediction.trace) == 24 - prediction.unseen
    assert prediction.trace.action[0] == similar.KEPT and prediction.stops["res1"] > 0
    assert prediction.spent.paper < prediction.plain.paper


@pytest.mark.slow
def test_weights_as_files(run, similar, tmp_path):
    expected = load_weights(str(run)).tensors
    for name in ("x.safetensors", "x.pth"):
        convert.main(["convert", str(run), str(tmp_path / name)])
        weights = load_weights(str(tmp_path / name))
        assert isinstance(weights.architecture, similar.Architecture)
        assert weights.tensors.keys() == expected.keys()
        assert weights.tensors["threshold"] == expected["threshold"]


def test_from_weights_of_tsn(similar):
    tensors = to_state_dict(create_specimen("tsn").variables)
    plain = create_specimen("tsn").system.architecture
    shapes = create_shapes(similar.Architecture(**vars(plain)))
    weights = Weights("file", "", tensors, [], None)
    _, report = initialise(shapes, weights, system=similar.Similar)
    assert report.reinitialised == {"threshold": "no threshold there"}


@pytest.mark.slow
def test_without_registration(run, similar, monkeypatch):
    monkeypatch.delitem(SYSTEMS, "similar")
    for function in (sofnet_jax.load, lambda path: convert.main(["", path, f"{path}.npz"])):
        with pytest.raises(UserError, match="a system 'similar', which is not registered") as error:
            function(str(run))
        assert str(error.value).isprintable()


@pytest.mark.parametrize("member", ["deploy", "module_type"])
def test_a_system_that_lacks_a_member_is_refused(similar, monkeypatch, member):
    part = type("Part", (similar.Similar,), {member: None})
    monkeypatch.setitem(SYSTEMS, "similar", part)
    fields = flatten_fields(similar.get_config().to_dict())
    with pytest.raises(UserError, match=f"^the system 'similar' lacks {member}; add to its class"):
        create_system(fields, num_classes=2)


def test_shift_is_refused(similar):
    fields = flatten_fields(similar.get_config("tsm_online").to_dict())
    with pytest.raises(UserError, match="has no temporal shift; leave it out"):
        create_system(fields, num_classes=2)
