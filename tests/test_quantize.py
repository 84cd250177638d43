"""The command that finds what engines need for int8."""

import json

import numpy as np
import pytest
from command import call
from gated_network import SIZE, create_network
from run_folder import GATED, write_run
from scene_video import write_scene

import sofnet_jax
from sofnet_jax.host.processor import sums_bytes

CLASSES = ["a", "b", "c", "d", "e"]
pytestmark = pytest.mark.skipif(
    not sums_bytes(), reason="this machine has no instructions for int8"
)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A run, the two videos that it was trained on, and a validation video."""
    root = tmp_path_factory.mktemp("place")
    for seed, name in enumerate(("train/a/1.mp4", "train/b/2.mp4", "val/a/3.mp4")):
        write_scene(root / name, seed)
    for name in CLASSES:
        (root / "train" / name).mkdir(exist_ok=True)
    fields = GATED | {"model.backbone": "tiny", "model.width": 8, "model.hidden": 16}
    fields |= {"data.source": "videos"}
    fields |= {"data.train": str(root / "train"), "data.val": str(root / "val")}
    write_run(root / "run", create_network()[2], CLASSES, fields)
    return root


def read(place):
    return json.loads((place / "run/int8.json").read_text())


def test_a_run_is_recognised_in_int8_after_the_command(place):
    run, video = place / "run", place / "val/a/3.mp4"
    predict = [video, f"--checkpoint={run}", "--dtype=int8", "--json"]
    (run / "int8.json").unlink(missing_ok=True)
    code, _, err = call("predict", *predict, "--engine=openvino")
    assert code == 1 and err.count("\n") == 1
    assert err.endswith(f"which int8 needs: python -m sofnet_jax.quantize {run}\n")
    code, out, err = call("quantize", run)
    assert (code, err) == (0, "")
    assert out == f"wrote {run}/int8.json: ranges of activations in 2 training videos\n"
    assert (read(place)["videos"], read(place)["size"]) == (2, SIZE)
    exact = sofnet_jax.load(run).predict(video)
    for engine in ("onnxruntime", "openvino"):
        code, out, err = call("predict", *predict, f"--engine={engine}")
        assert (code, err) == (0, "")
        classes = {guess["name"]: guess["probability"] for guess in json.loads(out)["classes"]}
        found = [classes[name] for name in CLASSES]
        assert 0 < np.abs(found - exact.scores).max() < 0.2
    code, _, err = call("predict", *predict)
    text = "JAX does not compute in int8; give --engine=onnxruntime or --engine=openvino"
    assert (code, err) == (1, f"error: {text}\n")


def test_validation_videos_are_not_looked_at(place):
    call("quantize", place / "run")
    before = read(place)
    write_scene(place / "val/a/3.mp4", seed=9)
    call("quantize", place / "run")
    assert read(place) == before
    write_scene(place / "train/a/1.mp4", seed=9)
    call("quantize", place / "run")
    assert read(place) != before
    assert call("quantize", place / "run", "--videos=1")[0] == 0
    assert read(place)["videos"] == 1


def test_mistakes_are_one_line(place, tmp_path):
    for arguments, text in [
        ([], "give one name: python -m sofnet_jax.quantize RUN"),
        ([tmp_path], "is not the folder of a run (it has no config.json)"),
    ]:
        code, out, err = call("quantize", *arguments)
        assert (code, out) == (1, "") and err.count("\n") == 1 and text in err
    old = read(place) if (place / "run/int8.json").exists() else None
    (place / "train/a/1.mp4").write_text("no video")
    code, out, err = call("quantize", place / "run")
    assert code == 0 and err.count("\n") == 1
    assert err.startswith("note: left out: ") and "1.mp4" in err
    assert read(place) != old
    (place / "train/b/2.mp4").write_text("no video")
    (place / "run/int8.json").unlink()
    code, out, err = call("quantize", place / "run")
    assert code == 1 and "no frame came to the layers of res1" in err
    assert not (place / "run/int8.json").exists()
