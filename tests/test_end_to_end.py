"""The program as its user meets it: real processes, real videos, real signals."""

import errno
import gzip
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import zlib
from pathlib import Path
from unittest.mock import Mock

import chex
import numpy as np
import program
import pytest
from command import call
from event_file import read_events
from PIL import Image
from program import find_steps, read_metrics, read_state, wait_for_step

from sofnet_jax.evaluation.metrics import compute_top_k
from sofnet_jax.evaluation.strip import CELL
from sofnet_jax.host.errors import LOST
from sofnet_jax.run.predictions import read_predictions


@pytest.fixture(scope="module")
def videos(tmp_path_factory, write_video) -> dict[str, Path]:
    def write(path: Path, first: int) -> None:
        write_video(path, range(first, first + 6), size=(48, 40))

    return program.write_videos(tmp_path_factory.mktemp("videos"), write)


@pytest.fixture(scope="module")
def start(videos):
    """`start(workdir, fields, *flags, devices)` starts the program in a process of its own."""

    def start(workdir: Path, fields: dict | None = None, *flags: str, devices: int = 1):
        data = {f"data.{name}": path for name, path in videos.items()}
        command = program.create_command(workdir, data | (fields or {}), *flags)
        return program.start(command, program.create_environment(), devices)

    return start


@pytest.fixture(scope="module")
def run(start):
    """As `start`, but waits: exit code, standard output, standard error."""

    def run(*args, **kwargs) -> tuple[int, str, str]:
        process = start(*args, **kwargs)
        out, err = process.communicate(timeout=300)
        return process.returncode, out, err

    return run


@pytest.fixture(scope="module")
def refuse(videos):
    """What the program says to a mistake, in this process; it must be one line."""

    def refuse(workdir: Path, fields: dict | None = None, *flags: str) -> str:
        data = {f"data.{name}": path for name, path in videos.items()}
        code, _, err = call("main", *program.create_flags(workdir, data | (fields or {})), *flags)
        assert code == 1 and err.startswith("error: ") and err.count("\n") == 1, err
        return err.strip()

    return refuse


@pytest.fixture(scope="module")
def undisturbed(run, tmp_path_factory) -> Path:
    """A workdir in which training ran through, and was profiled: that changes nothing of it."""
    workdir = tmp_path_factory.mktemp("undisturbed")
    code, out, err = run(workdir, None, "--profile")
    assert code == 0, err
    assert "evaluated 5 / 5 videos" in out
    (workdir / "printed.txt").write_text(out)
    return workdir


def test_result_is_written_and_evaluate_repeats_it(undisturbed, run):
    result = json.loads((undisturbed / "result.json").read_text())
    assert result["step"] == 9
    m = result["eval"]
    shares = m["usage"] + m["exit"] + sum(v for k, v in m.items() if k.startswith("stop/"))
    assert shares == pytest.approx(1)
    assert (undisturbed / "config.json").exists() and any((undisturbed / "tensorboard").iterdir())
    code, _, err = run(undisturbed, {"eval.batch_size": 1}, "--mode=evaluate")
    assert code == 0, err
    again = json.loads((undisturbed / "result.json").read_text())
    assert again["eval"] == pytest.approx(m, abs=1e-6)


@pytest.mark.slow
def test_run_that_cannot_be_written_to_is_evaluated(undisturbed, videos, tmp_path, monkeypatch):
    workdir = shutil.copytree(undisturbed, tmp_path / "run")
    for name in ("result.json", "predictions.npz"):
        (workdir / name).unlink()
    before = sorted(workdir.rglob("*"))
    refused = PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    monkeypatch.setattr(tempfile, "TemporaryFile", Mock(side_effect=refused))
    data = {f"data.{name}": path for name, path in videos.items()}
    code, out, err = call("main", *program.create_flags(workdir, data), "--mode=evaluate")
    assert code == 0 and "evaluated 5 / 5 videos" in out, err
    said = f"note: cannot write to {workdir} (Permission denied); the result is only printed\n"
    assert err == said and sorted(workdir.rglob("*")) == before


@pytest.mark.slow
def test_training_goes_on_when_nobody_reads_it(undisturbed, start, tmp_path):
    process = start(tmp_path)
    process.stdout.close()
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0
    assert err == "note: cannot write to standard output: Broken pipe; continuing\n"
    chex.assert_trees_all_equal(read_state(tmp_path), read_state(undisturbed))


def test_every_step_is_logged_once_in_order(undisturbed):
    steps = [row["step"] for row in read_metrics(undisturbed) if "train/loss/total" in row]
    assert steps == list(range(1, 10))


def test_time_of_each_step_is_divided_and_memory_is_told(undisturbed):
    rows = read_metrics(undisturbed)
    steps = [row for row in rows if "train/loss/total" in row]
    for row in steps:
        shares = [row[f"time/{x}"] for x in ("input_wait", "device_wait", "host")]
        assert min(shares) >= 0 and sum(shares) == pytest.approx(1)
        assert row["time/step_seconds"] > 0
    # A Python with JAX takes more than 100 MB, and this network next to nothing.
    assert all(0.1 < row["memory/host_peak_gib"] < 10 for row in steps)
    for name in ("time/save_seconds", "time/eval_seconds"):
        assert [row["step"] for row in rows if row.get(name, 0) > 0] == [3, 6, 9]


def test_words_tell_where_the_time_went_and_what_was_held(undisturbed):
    out = (undisturbed / "printed.txt").read_text()
    for epoch in (1, 2, 3):
        line = rf"epoch {epoch}: .*; \S+ s a step: input \d+ %, device \d+ %, host \d+ %\n"
        assert re.search(line, out), out
    assert len(re.findall(r"peak memory: \d\.\d\d GiB on the host\n", out)) == 1


def test_profile_shows_steps_by_number_and_what_is_done_in_them(undisturbed):
    (path,) = undisturbed.glob("profile/plugins/profile/*/perfetto_trace.json.gz")
    assert f"profile of steps 7 to 9: open {path} at " in (undisturbed / "printed.txt").read_text()
    events = [e for e in json.loads(gzip.decompress(path.read_bytes()))["traceEvents"] if e]
    steps = [e for e in events if e["name"] == "train"]
    assert [int(e["args"]["step_num"]) for e in steps] == [7, 8, 9]
    regions = [
        [
            e["name"]
            for e in events
            if e["name"] in ("input", "put", "step", "metrics")
            and e["tid"] == step["tid"]
            and step["ts"] <= e["ts"] < step["ts"] + step["dur"]
        ]
        for step in steps
    ]
    inside = ["input", "put", "step", "metrics"]
    assert regions == [inside[:3], inside, inside]  # nothing is queued before the first of an epoch


def test_tensorboard_shows_the_gates_the_losses_and_decisions(undisturbed):
    events = read_events(undisturbed)
    steps: dict[str, list[int]] = {}
    for step, name, _ in events:
        steps.setdefault(name, []).append(step)
    joint = list(range(4, 10))  # after the warm-up
    gates = [f"train/stop/res{n}" for n in range(1, 6)]
    assert all(steps[name] == joint for name in [*gates, "train/usage", "train/temperature"])
    for name in ("total", "classification", "efficiency", "inner", "self"):
        assert steps[f"train/loss/{name}"] == list(range(1, 10))
    assert steps["eval/decisions"] == steps["eval/top1"] == [3, 6, 9]
    for step in joint:
        row = {name: value for at, name, value in events if at == step}
        assert sum(row[name] for name in [*gates, "train/usage"]) == pytest.approx(1)
    *_, last = (png for _, name, png in events if name == "eval/decisions")
    image = Image.open(io.BytesIO(last))
    assert min(image.size) > 3 * CELL  # strips of three frames
    np.testing.assert_array_equal(image, Image.open(undisturbed / "decisions.png"))


def test_predictions_are_stored_and_the_result_tells_where_it_is_from(undisturbed):
    result = json.loads((undisturbed / "result.json").read_text())
    p = read_predictions(undisturbed / "predictions.npz")
    names = [action.name for action in p.actions]
    assert names == ["res1", "res2", "res3", "res4", "res5", "kept"]
    assert len(p.ids) == p.total == 5 and p.logits.shape == (5, 3, 2)
    kept = (p.action == 5)[..., None]
    consensus = (p.logits * kept).sum(1) / kept.sum(1)
    assert compute_top_k(consensus, p.labels, 1) == pytest.approx(result["eval"]["top1"])
    assert result["seed"] == 0 and result["seconds"] > 0
    assert re.fullmatch(r"[0-9a-f]{7,}(-dirty)?|unknown", result["commit"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", result["finished"])


@pytest.mark.slow
def test_killed_in_the_middle_of_an_epoch_equals_never_killed(undisturbed, start, run, tmp_path):
    process = start(tmp_path)
    wait_for_step(process, tmp_path, 4)  # the first of the second epoch
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "result.json").exists()
    code, out, err = run(tmp_path)
    assert code == 0, err
    assert re.search(r"workdir .*, at step \d+", out)
    chex.assert_trees_all_equal(read_state(tmp_path), read_state(undisturbed))
    steps = [row["step"] for row in read_metrics(tmp_path) if "train/loss/total" in row]
    assert steps == list(range(1, 10))


@pytest.mark.slow
def test_damaged_checkpoint_is_set_aside_and_the_rest_is_the_same(undisturbed, run, tmp_path):
    workdir = shutil.copytree(undisturbed, tmp_path / "run")
    newest = workdir / "checkpoints" / "9"
    path = max(newest.glob("state/ocdbt*/d/*"), key=lambda path: path.stat().st_size)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    code, out, err = run(workdir)
    assert code == 0 and re.search(r"workdir .*, at step 6\n", out), err
    assert err.startswith(f"the checkpoint {newest} is damaged or not whole (its arrays are not ")
    assert err.endswith("; set aside as 9.damaged, resuming from step 6\n") and err.count("\n") == 1
    chex.assert_trees_all_equal(read_state(workdir), read_state(undisturbed))
    steps = [row["step"] for row in read_metrics(workdir) if "eval/top1" in row]
    assert steps == [3, 6, 9]


@pytest.mark.slow
def test_signals_save_at_once_and_the_rest_is_the_same(start, run, tmp_path):
    """SIGTERM, then Ctrl-C in the run that resumed, with and without worker processes."""
    # 93 steps, for nine may be over before a signal arrives.
    longer = {"train.joint_epochs": 30, "eval.every_epochs": 31}
    interrupted, first = tmp_path / "interrupted", 1
    for signum, workers in ((signal.SIGTERM, 1), (signal.SIGINT, 0)):
        process = start(interrupted, longer | {"data.num_workers": workers})
        wait_for_step(process, interrupted, first + 1)
        process.send_signal(signum)
        _, err = process.communicate(timeout=120)
        assert process.returncode == 128 + signum, err
        line = re.fullmatch(r"stopped at step (\d+); .*", err.strip().splitlines()[-1])
        assert line, err
        stopped = int(line[1])
        assert first < stopped < 93
        assert (interrupted / "checkpoints" / str(stopped)).is_dir()
        first = stopped
    for workdir in (interrupted, tmp_path / "undisturbed"):
        code, _, err = run(workdir, longer)
        assert code == 0, err
    chex.assert_trees_all_equal(read_state(interrupted), read_state(tmp_path / "undisturbed"))


def assert_close(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> None:
    """Equal up to the order of float32 sums, over nine steps."""
    chex.assert_trees_all_close(a, b, rtol=2e-3, atol=2e-4)


@pytest.mark.slow
def test_four_devices_equal_one(undisturbed, run, tmp_path):
    code, _, err = run(tmp_path, devices=4)
    assert code == 0, err
    assert_close(read_state(tmp_path), read_state(undisturbed))
    one, four = (json.loads((d / "result.json").read_text()) for d in (undisturbed, tmp_path))
    assert four["eval"] == pytest.approx(one["eval"], abs=1e-4)


@pytest.fixture(scope="module")
def start_two(start):
    """As `start`, two processes of one run."""

    def start_two(workdir: Path, *fields: dict) -> list[subprocess.Popen]:
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        joined = {"parallel.coordinator": f"127.0.0.1:{port}", "parallel.num_processes": 2}
        own = fields or ({}, {})
        return [start(workdir, joined | {"parallel.process_id": i} | own[i]) for i in range(2)]

    return start_two


@pytest.mark.slow
def test_process_that_dies_ends_the_other_and_all_go_on(undisturbed, start_two, run, tmp_path):
    """As many processes, and one with two devices, arrive where one process does."""
    processes = start_two(tmp_path / "again")
    wait_for_step(processes[0], tmp_path / "again", 4)  # the first of the second epoch
    processes[1].send_signal(signal.SIGKILL)
    _, err = processes[0].communicate(timeout=60)
    processes[1].communicate()
    assert processes[0].returncode == LOST
    assert re.fullmatch(
        r"error: process 1 of 2 \(.*\) died; run the same command to resume from the .* checkpoint",
        err.strip(),
    )
    shutil.copytree(tmp_path / "again", tmp_path / "elastic")
    processes = start_two(tmp_path / "again")
    outputs = [p.communicate(timeout=300) for p in processes]
    assert [p.returncode for p in processes] == [0, 0], outputs
    assert "evaluated" in outputs[0][0] and "evaluated" not in outputs[1][0]
    code, out, err = run(tmp_path / "elastic", devices=2)
    assert code == 0 and re.search(r"workdir .*, at step \d+", out), err
    one = json.loads((undisturbed / "result.json").read_text())
    for workdir in (tmp_path / "again", tmp_path / "elastic"):
        assert_close(read_state(workdir), read_state(undisturbed))
        result = json.loads((workdir / "result.json").read_text())
        assert result["eval"] == pytest.approx(one["eval"], abs=1e-4)


OTHERS = {
    "tsn": {},
    "frameexit": {
        "frameexit.features": 12,
        "frameexit.gate_features": (6, 4),
        "frameexit.gate_epochs": 2,
        "frameexit.held_out": 0.4,
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_processes_devices_and_kills_change_nothing_of_other_systems(
    name, start, start_two, run, tmp_path
):
    """SoF-Net's laws are above. The kill is in the last phase, where nothing else is tested."""
    fields = {"model.system": name} | OTHERS[name]
    code, _, err = run(tmp_path / "whole", fields)
    assert code == 0, err
    code, _, err = run(tmp_path / "four", fields, devices=4)
    assert code == 0, err
    processes = start_two(tmp_path / "two", fields, fields)
    outputs = [p.communicate(timeout=300) for p in processes]
    assert [p.returncode for p in processes] == [0, 0], outputs
    killed = start(tmp_path / "killed", fields)
    wait_for_step(killed, tmp_path / "killed", find_steps(tmp_path / "whole")[-1] - 1)
    killed.kill()
    killed.communicate()
    code, _, err = run(tmp_path / "killed", fields)
    assert code == 0, err
    whole = read_state(tmp_path / "whole")
    expected = json.loads((tmp_path / "whole/result.json").read_text())["eval"]
    for other in ("four", "two"):
        assert_close(read_state(tmp_path / other), whole)
        result = json.loads((tmp_path / other / "result.json").read_text())
        assert result["eval"] == pytest.approx(expected, abs=1e-4)
    for path, array in read_state(tmp_path / "killed").items():
        np.testing.assert_array_equal(array, whole[path], path)


@pytest.mark.slow
def test_process_that_stops_with_an_error_stops_the_other(start_two, tmp_path):
    """Whose data are not there: a disk that is mounted on one machine alone."""
    processes = start_two(tmp_path, {}, {"data.train": "/nonexistent"})
    outputs = [p.communicate(timeout=60) for p in processes]
    assert [p.returncode for p in processes] == [1, 1], outputs
    assert "error: /nonexistent" in outputs[1][1] and "Traceback" not in outputs[1][1]
    assert "process 1 of 2" in outputs[0][1] and "stopped with an error" in outputs[0][1]


@pytest.mark.slow
def test_loss_that_is_not_finite_stops_and_keeps_the_checkpoint(run, tmp_path):
    """The temperature plays no part in the warm-up; the first joint step divides by nothing."""
    code, _, err = run(tmp_path, {"temperature.initial": 1e-45})
    assert code == 1
    assert re.search(r"error: the loss is nan at step 4; .*checkpoint of step 3 intact", err)
    assert "Traceback" not in err
    state = read_state(tmp_path)
    assert all(np.isfinite(x).all() for x in state.values())
    assert (tmp_path / "checkpoints" / "3").is_dir()


@pytest.mark.slow
def test_weights_that_overflow_in_the_last_step_are_not_saved(run, tmp_path):
    fields = {"optimizer.learning_rate": 1e30, "train.batch_size": 12}  # one step an epoch
    code, _, err = run(tmp_path, fields)
    assert code == 1
    assert re.search(
        r"error: the weights overflow after step 1; stopped, before any checkpoint", err
    )
    assert "Traceback" not in err
    assert not list((tmp_path / "checkpoints").glob("[0-9]*"))


@pytest.mark.slow
def test_two_trainings_in_one_folder_are_refused(start, run, tmp_path):
    process = start(tmp_path)
    wait_for_step(process, tmp_path, 1)
    code, _, err = run(tmp_path)
    process.kill()
    process.communicate()
    assert code == 1 and "is in use by another training" in err


@pytest.mark.slow
def test_two_micro_batches_equal_two_devices(run, tmp_path):
    """Each normalises for itself; rematerialisation changes nothing."""
    states = []
    for name, fields, devices in (
        ("accumulated", {"train.accumulate": 2, "train.remat": True}, 1),
        ("split", {}, 2),
    ):
        fields |= {
            "train.sync_batchnorm": False,
            "train.warmup_epochs": 0,
            "train.joint_epochs": 1,
        }
        code, _, err = run(tmp_path / name, fields, devices=devices)
        assert code == 0, err
        states.append(read_state(tmp_path / name))
    assert_close(*states)


@pytest.mark.slow
def test_unreadable_videos_are_left_out_and_named(videos, run, tmp_path, write_video):
    broken = tmp_path / "broken.mp4"
    broken.write_text("not a video")
    lists = {}
    for split, folder in videos.items():
        rows = [f"{p},{p.parent.name}" for p in sorted(folder.glob("*/*.mp4"))]
        lists[f"data.{split}"] = tmp_path / f"{split}.csv"
        lists[f"data.{split}"].write_text("\n".join([*rows, f"{broken},class0"]) + "\n")
    code, out, err = run(tmp_path / "run", lists)
    assert code == 0, err
    assert "left out of training: 1 video\n" in out
    assert "evaluated 5 / 6 videos" in out
    assert sum(str(broken) in line for line in out.splitlines()) == 2
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (result["eval"]["evaluated"], result["eval"]["total"]) == (5, 6)


MISTAKES = {
    "mistyped field": (
        ["--config.train.batchsize=4"],
        "--config.train.batchsize: no such field; did you mean batch_size?",
    ),
    "wrong type": (["--config.train.batch_size=four"], "batch_size"),
    "no such data": (["--config.data.train=/nonexistent"], "/nonexistent"),
    "unknown variant": (
        ["--config=configs/default.py:tns"],
        "error: --config: no variant 'tns' of this configuration; known: tsn",
    ),
    "no such configuration": (
        ["--config=configs/nothing.py"],
        "--config: no file configs/nothing.py",
    ),
    "no folder": (["--workdir="], "--workdir is missing"),
    "not a flag": (["train"], "'train' is not a flag"),
    "no steps to profile": (["--profile", "--mode=evaluate"], "--profile applies to training"),
    "weights that are not there": (["--config.init_from=none.npz"], "none.npz"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_one_line(name, refuse, tmp_path):
    flags, expected = MISTAKES[name]
    assert expected in refuse(tmp_path / "run", None, *flags)


@pytest.mark.slow
def test_weights_of_a_run_are_evaluated_and_trained_on(undisturbed, run, refuse, tmp_path):
    source = {"init_from": undisturbed}
    code, out, err = run(tmp_path / "evaluated", source, "--mode=evaluate")
    assert code == 0, err
    assert "loaded 112 tensors" in out and "last checkpoint, of step 9" in out
    there, here = (
        json.loads((d / "result.json").read_text()) for d in (undisturbed, tmp_path / "evaluated")
    )
    assert here["eval"] == there["eval"]
    # A training that begins with them says so, and is not taken for one that does not.
    code, out, err = run(tmp_path / "on", source | {"train.joint_epochs": 0})
    assert code == 0, err
    report = json.loads((tmp_path / "on" / "init.json").read_text())
    assert len(report["loaded"]) == 112 and not report["reinitialised"]
    err = refuse(tmp_path / "on", {"train.joint_epochs": 0})
    assert f"init_from is '{undisturbed}' there and '' in the configuration" in err.replace("…", "")
    err = refuse(tmp_path / "on", {"init_from": "other.pth"}, "--mode=evaluate")
    assert "holds a checkpoint of its own; to evaluate other.pth give another --workdir" in err


@pytest.mark.slow
def test_weights_that_are_not_whole_are_not_evaluated(undisturbed, run, tmp_path):
    fields = {"init_from": undisturbed, "model.system": "tsn"}
    code, _, err = run(tmp_path / "tsn", fields | {"train.joint_epochs": 0})
    assert code == 0, err
    assert not (tmp_path / "tsn" / "decisions.png").exists()
    assert not [name for _, name, _ in read_events(tmp_path / "tsn") if name == "eval/decisions"]
    code, _, err = run(tmp_path / "run", {"init_from": tmp_path / "tsn"}, "--mode=evaluate")
    assert code == 1
    assert "cannot be evaluated: 50 tensors would be random (no gates there)" in err
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_checkpoint_of_another_model_is_refused(undisturbed, refuse):
    err = refuse(undisturbed, {"model.hidden": 16})
    assert "model.hidden is 8 there and 16 in the configuration" in err
    err = refuse(undisturbed, {"train.batch_size": 8})
    assert "train.batch_size is 4 there and 8 in the configuration" in err
    err = refuse(undisturbed, {"loss.alpha": 0.5})
    assert "loss.alpha is 0.9 there and 0.5 in the configuration" in err


def test_checkpoint_of_an_older_version_is_refused(undisturbed, refuse, tmp_path):
    workdir = shutil.copytree(undisturbed, tmp_path / "run")
    path = workdir / "checkpoints" / "9" / "record" / "metadata"
    record = json.loads(path.read_text())
    del record["crc32"], record["schedule"]["init_from"]
    digests = {"arrays": json.loads(path.read_text())["crc32"]["arrays"]}
    digests["record"] = zlib.crc32(json.dumps(record, sort_keys=True).encode())
    path.write_text(json.dumps(record | {"crc32": digests}))
    err = refuse(workdir)
    assert err == (
        f"error: {workdir}/checkpoints was written by an older version, without "
        "init_from; train again, or use that version"
    )
