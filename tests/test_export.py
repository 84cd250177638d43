"""The command that writes a trained network as one program."""

import json

import numpy as np
import onnxruntime
import pytest
from command import call
from gated_network import SIZE, create_network, draw_videos
from run_folder import GATED, write_run

import sofnet_jax

CLASSES = ["a", "b", "c", "d", "e"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    architecture, _, variables = create_network()
    folder = tmp_path_factory.mktemp("runs") / "mine"
    fields = GATED | {"model.backbone": "tiny", "model.width": 8, "model.hidden": 16}
    return write_run(folder, variables, CLASSES, fields)


def test_a_run_becomes_a_file_that_decides_as_it_does(run, tmp_path):
    target = tmp_path / "mine.onnx"
    code, out, err = call("export", run, target)
    assert (code, err) == (0, "")
    assert out.startswith("wrote 0.4 MB to ")
    assert out.endswith(f": 5 classes, 6 frames of {SIZE}×{SIZE}\n")
    session, model = onnxruntime.InferenceSession(target), sofnet_jax.load(run)
    for video in draw_videos(5, 6):
        scores, actions = session.run(["scores", "actions"], {"frames": video})
        prediction = model.predict(video)
        assert actions[actions >= 0].tolist() == prediction.trace.action.tolist()
        np.testing.assert_allclose(scores, prediction.scores, atol=1e-5)


def test_parts_and_programs_for_jax(run, tmp_path):
    code, out, _ = call("export", run, tmp_path / "parts", "--parts", "--size=64")
    assert code == 0 and out.endswith("6 frames of 64×64\n")
    spans = json.loads((tmp_path / "parts/parts.json").read_text())["spans"]
    assert [span["looks"] for span in spans] == [True] + [False] * 5
    files = {path.name for path in (tmp_path / "parts").iterdir()}
    assert files == {"begin.onnx", "finish.onnx", "parts.json", *(span["file"] for span in spans)}
    code, _, _ = call("export", run, tmp_path / "program", "--platforms=cpu,cuda")
    assert code == 0 and (tmp_path / "program").stat().st_size > 1e5


def test_mistakes_are_one_line(run, tmp_path):
    (tmp_path / "there.onnx").write_text("mine")
    for arguments, text in [
        ([run], "give two names: python -m sofnet_jax.export RUN TARGET"),
        ([run, tmp_path / "there.onnx"], "there.onnx exists; give another name, or --overwrite"),
        ([run, tmp_path, "--overwrite"], "is a folder"),
        ([run, tmp_path / "there.onnx", "--parts", "--overwrite"], "there.onnx is a file"),
        ([run, tmp_path / "there.onnx/a.onnx"], "cannot write to"),
        (
            [run, tmp_path / "a", "--parts", "--platforms=cpu"],
            "platforms are for programs that JAX runs",
        ),
        ([run, tmp_path / "a", "--platforms=tpux"], "no platform tpux"),
        ([tmp_path / "nothing", tmp_path / "a.onnx"], "nothing"),
    ]:
        code, out, err = call("export", *arguments)
        assert (code, out) == (1, "") and err.count("\n") == 1, err
        assert err.startswith("error: ") and text in err
    assert (tmp_path / "there.onnx").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["there.onnx"]
    code, _, _ = call("export", run, tmp_path / "there.onnx", "--overwrite")
    assert code == 0 and (tmp_path / "there.onnx").stat().st_size > 1e5
