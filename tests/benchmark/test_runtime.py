"""The runtime of trained networks: of those that are there, with what is missing told."""

import json

import pytest
from gated_network import SIZE, create_network
from run_folder import write_run
from scene_video import write_scene
from sweep_folder import CLASSES, create_base, draw_predictions, write_method

from sofnet_jax.benchmark.runtime import benchmark_runtime
from sofnet_jax.host.errors import UserError
from sofnet_jax.report.ablations import METHODS, create_config
from sofnet_jax.report.collection import choose_collection, load_collections
from sofnet_jax.report.runtime import create_table3
from sofnet_jax.run.config import flatten_fields

NAMES = [f"class{i}" for i in range(CLASSES)]


@pytest.fixture
def workdir(tmp_path):
    write_scene(tmp_path / "a.mp4", seed=1)
    lines = [f"a{i}.mp4,{name}" for i, name in enumerate(NAMES)]
    for i in range(CLASSES):
        (tmp_path / f"a{i}.mp4").symlink_to(tmp_path / "a.mp4")
    (tmp_path / "list.csv").write_text("\n".join(lines))
    path = str(tmp_path / "list.csv")
    fields = {"data.train": path, "data.val": path, "data.num_workers": 0}
    fields |= {"data.size": SIZE, "model.width": 8, "model.hidden": 16, "train.batch_size": 4}
    base = create_base("videos", **fields)
    for method in ("sofnet", "sofnet_192"):
        gates = create_config(base, METHODS[method], 0).model.gates
        folder = write_method(
            tmp_path / "runs", method, base=base, predictions=draw_predictions(len(gates))
        )
        if method == "sofnet_192":
            continue  # whose checkpoint is missing
        _, _, variables = create_network(gates=tuple(gates))
        config = create_config(base, METHODS[method], 0).to_dict()
        write_run(folder, variables, NAMES, flatten_fields(config))
    return tmp_path / "runs"


@pytest.mark.slow
def test_measures_what_is_there(workdir):
    collection = choose_collection(load_collections(workdir))
    lines = list(benchmark_runtime(collection, num_videos=2, repeats=2))
    assert lines[0].startswith("sofnet_192 was not measured: ") and "no checkpoint" in lines[0]
    assert "2 videos, one at a time; median of 2" in lines[1] and len(lines) == 4
    content = json.loads((workdir / "runtime.json").read_text())
    assert set(content["methods"]) == {"sofnet"}
    section = create_table3(collection)
    [row] = [row for row in section.tables[0].rows if row.label == "SoF-Net (168)"]
    assert float(row.cells[1]) > 0
    [row] = [row for row in section.tables[0].rows if row.label == "SoF-Net (192)"]
    assert row.cells[1] == ""


def test_nothing_to_measure(tmp_path):
    write_method(tmp_path, "sofnet")
    collection = choose_collection(load_collections(tmp_path))
    with pytest.raises(UserError, match="holds no run that can be measured"):
        list(benchmark_runtime(collection, num_videos=1, repeats=1))
    assert not (tmp_path / "runtime.json").exists()
