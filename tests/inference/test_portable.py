"""ONNX models of networks: other programs that run them decide as evaluation does."""

import dataclasses
import json
import subprocess
import sys

import jax
import numpy as np
import onnx
import onnxruntime
import pytest
from gated_network import SIZE, draw_videos
from laws import TOLERANCE, VIDEOS, find_rule, run_online
from specimens import FLOAT32, NAMES, create_specimen

from sofnet_jax.data.views import Sampler
from sofnet_jax.engines import jaxpr
from sofnet_jax.engines.openvino import openvino
from sofnet_jax.engines.registry import use_engine
from sofnet_jax.host.errors import UserError
from sofnet_jax.inference.model import TrainedModel
from sofnet_jax.inference.portable import create_metadata, write_parts, write_video_model
from sofnet_jax.systems.early_exit import NEVER, Rule
from sofnet_jax.systems.sofnet.architecture import Architecture
from sofnet_jax.systems.sofnet.folded import deploy
from sofnet_jax.systems.sofnet.network import SoFNet

CLASSES = ["a", "b", "c", "d", "é"]


def start(path):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options)


def compile_openvino(path):
    network = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda video: [*network(video).values()]


def compile_onnxruntime(path):
    session = start(path)
    return lambda video: session.run(["scores", "logits", "actions"], {"frames": video})


ENGINES = {"openvino": compile_openvino, "onnxruntime": compile_onnxruntime}


def check(specimen, path, videos, rule, engine):
    run = ENGINES[engine](path)
    logits, steps = specimen.evaluate(videos, rule)
    order = specimen.network.architecture.order(videos.shape[1]).tolist()
    for video, its_logits, own in zip(videos, logits, steps, strict=True):
        scores, found, actions = run(video)
        assert [(t, int(actions[t])) for t in order if actions[t] >= 0] == own
        np.testing.assert_allclose(found, its_logits, atol=TOLERANCE)
        np.testing.assert_allclose(scores, jax.nn.softmax(its_logits), atol=TOLERANCE)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", NAMES)
def test_a_model_of_whole_videos_decides_as_evaluation_does(name, engine, tmp_path):
    specimen = create_specimen(name)
    videos = specimen.draw(VIDEOS)
    for rule in (NEVER, find_rule(specimen, videos)):
        write_video_model(tmp_path / "a.onnx", specimen.network, rule, SIZE, {})
        check(specimen, tmp_path / "a.onnx", videos, rule, engine)
        if not specimen.network.architecture.num_frames:
            for length in (1, 3):
                check(specimen, tmp_path / "a.onnx", draw_videos(4, length), rule, engine)


def test_bottlenecks_and_transformed_kernels(tmp_path):
    fields = {"block": "bottleneck", "depths": (1, 2, 1, 1), "width": 4, "stem_kernel": 7}
    architecture = Architecture(num_classes=5, hidden=16, **fields)
    model, videos = SoFNet(architecture), draw_videos(3)
    variables = jax.jit(model.init)(jax.random.key(3), videos)
    base = create_specimen("sofnet")
    system = dataclasses.replace(base.system, architecture=architecture, module=model)
    network = deploy(architecture, variables, dtype=FLOAT32, winograd=True)
    specimen = dataclasses.replace(base, system=system, variables=variables, network=network)
    write_video_model(tmp_path / "a.onnx", network, NEVER, SIZE, {})
    check(specimen, tmp_path / "a.onnx", videos, NEVER, "onnxruntime")


@pytest.mark.parametrize("name", NAMES)
def test_a_loop_over_the_parts_decides_alike(name, tmp_path):
    specimen = create_specimen(name)
    videos = specimen.draw(VIDEOS)
    rule = find_rule(specimen, videos)
    metadata = create_metadata(specimen.network, CLASSES, Sampler(10, SIZE), rule)
    write_parts(tmp_path, specimen.network, rule, SIZE, metadata)
    listed = json.loads((tmp_path / "parts.json").read_text())
    assert listed["classes"] == CLASSES
    sessions = [start(tmp_path / part["file"]) for part in listed["spans"]]
    begin, finish = start(tmp_path / "begin.onnx"), start(tmp_path / "finish.onnx")

    def run(session, arrays):
        names = [each.name for each in session.get_outputs()]
        given = {each.name: arrays[each.name] for each in session.get_inputs()}
        return dict(zip(names, session.run(None, given), strict=True))

    for video, expected in zip(videos, run_online(specimen.network, videos, rule), strict=True):
        # Without `num_frames`, as a stream: the end is told afterwards.
        known = len(video) if specimen.network.architecture.num_frames else -1
        arrays, logits, steps = {}, None, {}
        found = run(begin, {"num_frames": np.array([known], np.int32)})
        while True:
            looked = found["needed"][0, 1]
            arrays |= {name.removeprefix("next."): value for name, value in found.items()}
            span, time, _ = found["needed"][0]
            if span >= 0 and time == len(video):
                found = run(finish, arrays)
                arrays |= {name.removeprefix("next."): value for name, value in found.items()}
                span, time, _ = found["needed"][0]
            if span < 0:
                break
            looked = int(time)
            found = run(sessions[span], arrays | {"pixels": video[time][None]})
            logits = found["logits"]
            if (action := int(found["needed"][0, 2])) >= 0:
                steps[looked] = action
        trace = expected.trace
        assert list(steps.items()) == list(
            zip(trace.time.tolist(), trace.action.tolist(), strict=True)
        )
        np.testing.assert_allclose(logits[0], expected.logits, atol=TOLERANCE)


ALONE = """
import json, sys
import numpy as np, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1])
metadata = session.get_modelmeta().custom_metadata_map
classes = json.loads(metadata["classes"])
scores, actions = session.run(["scores", "actions"], {"frames": np.load(sys.argv[2])})
names = [action["name"] for action in json.loads(metadata["actions"])]
print(json.dumps([classes[scores.argmax()], [names[a] for a in actions if a >= 0]]))
assert not {"sofnet_jax", "jax", "flax"} & set(sys.modules)
"""


def test_another_program_needs_neither_this_project_nor_jax(tmp_path):
    specimen = create_specimen("sofnet")
    model = TrainedModel(specimen.network, tuple(CLASSES), Sampler(10, SIZE), Rule(0.9, 3))
    model.export(tmp_path / "a.onnx")
    video = specimen.draw(1)[0]
    np.save(tmp_path / "frames.npy", video)
    command = [sys.executable, "-W", "ignore", "-c", ALONE, tmp_path / "a.onnx", "frames.npy"]
    done = subprocess.run(command, check=True, cwd=tmp_path, capture_output=True, text=True)
    prediction = model.predict(video)
    names = [prediction.actions[a].name for a in prediction.trace.action]
    assert done.stderr == ""  # no warning either
    assert json.loads(done.stdout) == [prediction.guesses[0].name, names]


def test_the_file_says_what_it_is(tmp_path):
    specimen = create_specimen("frameexit")
    model = TrainedModel(specimen.network, tuple(CLASSES), Sampler(6, SIZE), Rule(0.9, 3))
    model.export(tmp_path / "a.onnx")
    file = onnx.load(tmp_path / "a.onnx")
    assert [(each.domain, each.version) for each in file.opset_import] == [("", 18)]
    told = {each.key: json.loads(each.value) for each in file.metadata_props}
    assert told["classes"] == CLASSES
    assert told["early exit"] == {"threshold": 0.9, "min_frames": 3}
    assert told["preprocessing"]["size"] == SIZE and told["preprocessing"]["frames"] == 6
    assert sorted(told["order"]) == list(range(6)) != told["order"]
    shapes = {
        each.name: [size.dim_param or size.dim_value for size in each.type.tensor_type.shape.dim]
        for each in (*file.graph.input, *file.graph.output)
    }
    assert shapes == {"frames": [6, SIZE, SIZE, 3], "scores": [5], "logits": [5], "actions": [6]}


def test_a_network_in_an_engine_is_written_as_well(tmp_path):
    specimen = create_specimen("sofnet")
    moved = use_engine(specimen.network, "onnxruntime", "float32")
    for name, network in (("a", specimen.network), ("b", moved)):
        model = TrainedModel(network, tuple(CLASSES), Sampler(10, SIZE), NEVER)
        model.export(tmp_path / f"{name}.onnx")
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_parts_replace_those_of_another_network(tmp_path, monkeypatch):
    for name in ("sofnet", "tsn"):
        model = TrainedModel(
            create_specimen(name).network, tuple(CLASSES), Sampler(10, SIZE), NEVER
        )
        model.export(tmp_path, parts=True)
    files = ["0_frame.onnx", "begin.onnx", "finish.onnx", "parts.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == files
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.delitem(jaxpr.RULES, "dot_general")  # fails after the first models
    with pytest.raises(UserError, match="dot_general"):
        model.export(tmp_path, parts=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_what_is_cropped_twice_is_told():
    network = create_specimen("tsn").network
    sampler = Sampler(16, 168, short_side=256, via=224)
    crop = json.loads(create_metadata(network, CLASSES, sampler, NEVER)["preprocessing"])["crop"]
    assert "above 256" in crop and "central 224×224" in crop and crop.endswith("168×168")


def test_what_cannot_be_written_is_said(tmp_path, monkeypatch):
    specimen = create_specimen("tsn")
    model = TrainedModel(specimen.network, tuple(CLASSES), Sampler(10, SIZE), NEVER)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write to .*file/a.onnx"):
        model.export(tmp_path / "file/a.onnx")
    with pytest.raises(UserError, match="an ONNX model names none"):
        model.export(tmp_path / "a.ONNX", platforms=["cpu"])
    monkeypatch.delitem(jaxpr.RULES, "dot_general")
    with pytest.raises(UserError, match="as ONNX: no ONNX for the JAX operation dot_general"):
        model.export(tmp_path / "a.onnx")
    monkeypatch.setitem(sys.modules, "onnx", None)
    for name in [
        name for name in sys.modules if "sofnet_jax.engines" in name or "portable" in name
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr("sofnet_jax.inference.portable", raising=False)
    with pytest.raises(UserError, match=r"pip install '\.\[onnx\]'"):
        model.export(tmp_path / "a.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
