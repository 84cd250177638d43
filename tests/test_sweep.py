"""The sweep: the order of its runs, what it skips and resumes, and runs that fail."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from sofnet_jax.host.errors import UserError
from sofnet_jax.host.files import write_json
from sofnet_jax.host.lock import lock_folder
from sofnet_jax.host.signals import Interruption
from sofnet_jax.report.ablations import METHODS
from sofnet_jax.report.grid import Cell, create_grid
from sofnet_jax.run.checkpoint import Checkpoints
from sofnet_jax.run.config import create_default, flatten_fields
from sofnet_jax.run.fields import INDIFFERENT
from sofnet_jax.run.result import METRICS, write_config
from sofnet_jax.sweep import Sweep, choose_methods, conclude, create_command, split_cores

ROOT = Path(__file__).parents[1]
TINY = {
    "data.source": "synthetic",
    "data.num_frames": 2,
    "data.size": 32,
    "data.num_workers": 0,
    "data.synthetic.num_classes": 2,
    "data.synthetic.train_videos": 2,
    "data.synthetic.val_videos": 1,
    "model.backbone": "tiny",
    "model.width": 4,
    "model.hidden": 8,
    "train.batch_size": 4,
    "train.warmup_epochs": 0,
    "train.joint_epochs": 0,  # to compile a training step takes longer than all else here
    "eval.batch_size": 4,
}
RESULT = {"step": 1, "eval": dict.fromkeys(METRICS, 0.0) | {"map": 0.5, "gflops_per_video": 0.25}}


def create_cells(workdir: Path, methods=("tsn", "sofnet"), seeds=(0,)) -> list[Cell]:
    return create_grid(create_default(), workdir, [METHODS[m] for m in methods], seeds)


def finish(cell: Cell) -> None:
    """Leaves what a run leaves whose checkpoints were deleted."""
    write_config(cell.config, cell.folder)
    write_json(cell.folder / "result.json", RESULT)


def train(cells: list[Cell], scripts: dict[str, str], jobs: int = 1) -> Sweep:
    """Sweeps with a Python script in place of each method's training; others must not start."""

    def create_command(cell: Cell) -> list[str]:
        setting = f"folder = {str(cell.folder)!r}\nresult = {json.dumps(RESULT)!r}\n"
        return [sys.executable, "-c", setting + scripts[cell.method.name]]

    sweep = Sweep(cells, len(cells), create_command=create_command, jobs=jobs)
    with Interruption() as interruption:
        sweep.train(interruption)
    return sweep


FINISH = "open(folder + '/result.json', 'w').write(result)"


def test_the_grid_goes_seed_by_seed(tmp_path):
    cells = create_cells(tmp_path, ("sofnet", "tsn", "fc"), (3, 1))
    assert [(c.index, c.seed, c.method.name) for c in cells] == [
        *((0, 3, "sofnet"), (1, 3, "tsn"), (2, 3, "fc")),
        *((3, 1, "sofnet"), (4, 1, "tsn"), (5, 1, "fc")),
    ]
    assert cells[4].folder == tmp_path / "tsn" / "seed_1"
    assert (cells[4].config.seed, cells[4].config.model.system) == (1, "tsn")


@pytest.mark.parametrize("name", ["all", "claims", "curves", "gates"])
def test_parts_that_take_what_there_is_are_of_all_methods(name):
    assert choose_methods([name]) == list(METHODS.values())


def test_tables_and_methods_are_chosen_once_each():
    names = [method.name for method in choose_methods(["tsm", "table5", "sofnet"])]
    assert names == ["sofnet", "sofnet_192", "sofnet_224", "tsm"]
    assert choose_methods([]) == list(METHODS.values())
    with pytest.raises(UserError, match="'table9' is neither a method .* nor a table"):
        choose_methods(["table9"])


def test_a_method_s_changes_come_after_what_was_given_and_in_its_own_command_only(tmp_path):
    given = {
        "model.system": "sofnet",
        "model.gates": (2, 3),
        "model.dropout": 0.25,
        "loss.alpha": 0.5,
    }
    cells = create_cells(tmp_path, ("tsn", "beta05"), (6,))
    commands = [create_command(cell, "configs/x.py:fc", given)[3:] for cell in cells]
    assert commands[0] == [
        *("--config=configs/x.py:fc", f"--workdir={tmp_path}/tsn/seed_6"),
        # Without fields of gates, which TSN's command would refuse.
        *("--config.model.system=tsn", "--config.model.dropout=0.25"),
        *("--config.data.size=168", "--config.seed=6"),
    ]
    assert commands[1][2:7] == [
        *("--config.model.system=sofnet", "--config.model.gates=(2, 3)"),
        *("--config.model.dropout=0.25", "--config.loss.alpha=0.5", "--config.loss.beta=0.5"),
    ]


def test_a_run_that_fails_is_reported_and_the_others_go_on(tmp_path, capsys):
    cells = create_cells(tmp_path, ("tsn", "sofnet", "fc"))
    (tmp_path / "tsn" / "seed_0").mkdir(parents=True)
    (tmp_path / "tsn" / "seed_0" / "log.txt").write_text("of an earlier try\n")
    scripts = {
        "tsn": "print('much'); raise SystemExit('error: the loss is nan\\n\\n')",
        "sofnet": FINISH,
        "fc": "import os; os.kill(os.getpid(), 9)",
    }
    sweep = train(cells, scripts)
    assert (sweep.finished, sweep.failed, sweep.skipped) == (1, 2, 0)
    with pytest.raises(
        UserError, match="^1 of 3 runs finished, 2 failed; the same command retries"
    ):
        conclude(sweep, 0)
    lines = capsys.readouterr().out.splitlines()
    log = tmp_path / "tsn" / "seed_0" / "log.txt"
    assert lines[0] == f"1/3  tsn  seed 0  failed (code 1; {log}): error: the loss is nan"
    assert re.fullmatch(r"2/3  sofnet  seed 0  mAP 50\.0 %  0\.25 GFLOPs/V  \d+ s", lines[1])
    assert "failed (SIGKILL;" in lines[2] and lines[2].endswith("it wrote nothing")
    assert log.read_text().splitlines()[:2] == ["of an earlier try", "much"]


def test_what_is_finished_is_left(tmp_path, capsys):
    cells = create_cells(tmp_path)
    finish(cells[0])
    assert [cell.find_progress() for cell in cells] == ["done", "to do"]
    sweep = train(cells, {"sofnet": FINISH})
    assert (sweep.finished, sweep.failed) == (2, 0)
    line = "1/2  tsn  seed 0  mAP 50.0 %  0.25 GFLOPs/V  done before"
    assert capsys.readouterr().out.splitlines()[0] == line


def test_a_folder_of_another_configuration_is_refused(tmp_path):
    (cell,) = create_cells(tmp_path, ("sofnet",))
    finish(cell)
    path = cell.folder / "config.json"
    saved = json.loads(path.read_text())
    saved["parallel"]["num_processes"] = 2
    path.write_text(json.dumps(saved))
    assert cell.find_progress() == "done"
    cell.config.loss.beta = 0.25
    message = rf"{cell.folder} holds .* loss\.beta is 0\.9 there and 0\.25 in the configuration"
    with pytest.raises(UserError, match=message):
        cell.find_progress()
    del saved["model"]["shift"]
    path.write_text(json.dumps(saved))
    message = rf"{path} was written by an older version, without model\.shift; train again"
    with pytest.raises(UserError, match=message):
        cell.find_progress()


def test_fields_that_change_nothing_are_fields():
    assert flatten_fields(create_default().to_dict()).keys() >= INDIFFERENT


def test_a_damaged_folder_fails_alone(tmp_path, capsys):
    broken, blocked, whole = create_cells(tmp_path, ("tsn", "sofnet", "fc"))
    finish(broken)
    (broken.folder / "config.json").write_text("{")
    (blocked.folder / "log.txt").mkdir(parents=True)
    finish(whole)
    sweep = train([broken, blocked, whole], {"sofnet": FINISH})
    assert (sweep.finished, sweep.failed) == (1, 2)
    out = capsys.readouterr().out
    assert f"{broken.folder / 'config.json'} is damaged" in out
    assert "log.txt: Is a directory" in out


def test_a_run_that_another_process_trains_is_skipped(tmp_path, capsys):
    cells = create_cells(tmp_path)
    with lock_folder(cells[0].folder, "training"):
        sweep = train(cells, {"sofnet": FINISH})
    assert (sweep.finished, sweep.failed, sweep.skipped) == (1, 0, 1)
    assert "1/2  tsn  seed 0  skipped: another process trains" in capsys.readouterr().out


def test_a_run_that_another_process_claims_meanwhile_is_skipped(tmp_path):
    """Its own process finds the folder taken and fails."""
    cells = create_cells(tmp_path, ("tsn",))
    sweep = None
    with lock_folder(tmp_path / "other", "training"):
        command = f"import os; os.replace({str(tmp_path / 'other' / '.lock')!r}, folder + '/.lock')"
        sweep = train(cells, {"tsn": command + "\nraise SystemExit('error: in use')"})
    assert (sweep.failed, sweep.skipped) == (0, 1)


def test_a_signal_is_passed_on_and_waited_for(tmp_path, capsys):
    cells = create_cells(tmp_path, ("tsn", "sofnet"))
    started = cells[0].folder / "started"
    script = (
        "import pathlib, signal, time\n"
        "def stop(signum, _): print('stopped at step 3'); raise SystemExit(128 + signum)\n"
        "signal.signal(signal.SIGTERM, stop)\n"
        "pathlib.Path(folder, 'started').touch()\n"
        "time.sleep(60)"
    )

    def send() -> None:
        deadline = time.monotonic() + 30
        while not started.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=send)
    thread.start()
    sweep = train(cells, {"tsn": script})
    thread.join()
    with pytest.raises(SystemExit) as exit:
        conclude(sweep, signal.SIGTERM)
    assert exit.value.code == 143
    out, err = capsys.readouterr()
    assert out == "1/2  tsn  seed 0  stopped at step 3\n"
    assert err.endswith("stopped; 0 of 2 runs finished; the same command resumes\n")


def test_jobs_share_the_cores_evenly(tmp_path):
    assert split_cores([0, 1, 4, 5, 6], 2) == [[0, 1], [4, 5, 6]]
    assert split_cores([3], 1) == [[3]]
    with pytest.raises(UserError, match="--jobs is 3, but this machine has 2"):
        split_cores([0, 1], 3)
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        pytest.skip("one core")
    note = (
        "import os, pathlib, time; time.sleep(0.3)\n"  # its affinity is set once it has started
        "pathlib.Path(folder, 'cores').write_text(' '.join(map(str, os.sched_getaffinity(0))))\n"
    )
    cells = create_cells(tmp_path)
    sweep = train(cells, dict.fromkeys(("tsn", "sofnet"), note + FINISH), jobs=2)
    assert sweep.finished == 2
    shares = [set(map(int, (c.folder / "cores").read_text().split())) for c in cells]
    assert not shares[0] & shares[1] and shares[0] | shares[1] == set(cores)


def test_a_result_of_part_of_the_training_does_not_finish_it(tmp_path):
    """`--mode evaluate` writes one, too. 75 epochs of 2 steps: 50 videos, 24 a step."""
    (cell,) = create_cells(tmp_path, ("sofnet",))
    finish(cell)
    checkpoints = Checkpoints(cell.folder / "checkpoints", metric="map")
    record = {"total_steps": 150}
    for step, done in ((148, False), (150, True)):
        checkpoints.save(step, {"step": np.array(step)}, record)
        checkpoints.rate(step, {"top1": 0.0, "top5": 0.0, "map": step / 1000})
        write_json(cell.folder / "result.json", RESULT | {"step": step})
        assert cell.find_progress() == ("done" if done else "begun")
    checkpoints.close()
    write_json(cell.folder / "result.json", RESULT | {"step": 148})
    assert cell.find_progress() == "begun"


@pytest.fixture(scope="module")
def run():
    """The command in a process of its own: exit code, standard output, standard error."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "XLA_"))}
    environment = kept | {
        "JAX_COMPILATION_CACHE_DIR": os.environ["JAX_COMPILATION_CACHE_DIR"],
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true",
    }

    def run(workdir: Path, *flags: str) -> tuple[int, str, str]:
        values = TINY | {"data.synthetic.root": workdir / "videos"}
        command = [sys.executable, "-m", "sofnet_jax.sweep", "--config=configs/default.py:sync_bn"]
        command += [f"--workdir={workdir}", *(f"--config.{k}={v}" for k, v in values.items())]
        process = subprocess.run(
            [*command, *flags],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=240,
        )
        return process.returncode, process.stdout, process.stderr

    return run


@pytest.mark.slow
def test_the_command_runs_main(tmp_path, run):
    """The configuration arrives there whole: variant, overrides, the method's changes, seed."""
    chosen = ("--methods=tsn,tsm", "--seeds=4")
    code, out, err = run(tmp_path, *chosen, "--task=0")
    assert (code, err) == (0, "")
    line, summary = out.splitlines()
    assert re.fullmatch(r"1/2  tsn  seed 4  mAP [\d.]+ %  [\d.e-]+ GFLOPs/V  \d+ s", line)
    assert summary == "1 of 1 runs finished"
    folder = tmp_path / "tsn" / "seed_4"
    config = json.loads((folder / "config.json").read_text())
    assert (config["seed"], config["model"]["system"], config["model"]["width"]) == (4, "tsn", 4)
    assert config["train"]["sync_batchnorm"]
    assert "evaluated 2 / 2 videos" in (folder / "log.txt").read_text()
    code, out, err = run(tmp_path, *chosen, "--list")  # it knows its own run again
    assert (code, err) == (0, "")
    assert [line.split() for line in out.splitlines()] == [
        ["0", "tsn", "4", "done"],
        ["1", "tsm", "4", "to", "do"],
    ]
