"""The command as its user meets it."""

import json
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from command import PYTHON, call

from sofnet_jax.data.source import create_source

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def files(tmp_path_factory, write_video):
    """Two splits of two classes, one video damaged and one missing a class."""
    root = tmp_path_factory.mktemp("files")
    for split, count in (("train", 3), ("val", 1)):
        for label in ("run", "jump"):
            for i in range(count):
                write_video(root / split / label / f"{i}.mp4", range(i, i + 30))
    (root / "train/run/bad.mp4").write_text("no video")
    return root


def _start(*arguments, **kwargs):
    command = [*PYTHON, "-m", "sofnet_jax.prepare", *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=ROOT, **pipes, **kwargs)


def _run(*arguments):
    return call("prepare", *arguments)


@pytest.mark.slow
def test_prepares_and_shows_a_folder_per_class(files, tmp_path):
    flags = (f"--annotations={files}", f"--videos={files}", f"--out={tmp_path / 'out'}")
    process = _start("videos", *flags, "--num_frames=20", "--workers=2")
    stdout, stderr = process.communicate()
    folder = tmp_path / "out/videos/1.0.0"
    assert process.returncode == 0, stderr
    assert "train: 7 videos" in stdout and "val: 2 videos" in stdout
    assert re.search(r"unreadable +1  left out; such as .*bad.mp4", stdout)
    assert stdout.endswith(
        f"prepared: {folder}; train with --config.data.prepared={tmp_path / 'out/videos'}\n"
    )
    assert json.loads((folder / "prepared.json").read_text())["format"] == {
        "num_frames": 20, "short_side": 256, "quality": 90
    }  # fmt: skip
    sheet = tmp_path / "sheet.png"
    code, stdout, stderr = _run("--inspect", tmp_path / "out/videos", f"--sheet={sheet}")
    assert (code, stderr) == (0, "")
    assert "train: 6 videos, 0.00 hours" in stdout and "resolutions  96×96 6" in stdout
    assert sheet.read_bytes()[:4] == b"\x89PNG"
    sheet.unlink()
    code, stdout, stderr = _run("videos", *flags[:2], "--inspect", f"--sheet={sheet}")
    assert (code, stderr) == (0, "")
    assert "train: of 7 annotated videos 7 are there, 6 open" in stdout
    assert "seconds      1.2 to 1.2" in stdout and sheet.is_file()


def test_lists_files_for_training_without_preparing(files, tmp_path):
    code, stdout, stderr = _run(
        "videos", f"--annotations={files}", f"--videos={files}", f"--out={tmp_path}", "--list"
    )
    assert code == 0, stderr
    folder = tmp_path / "videos"
    assert f"{folder}/train.csv: 7 of 7 videos" in stdout
    source = create_source(folder / "train.csv")
    assert source.classes == ("jump", "run") and len(source) == 7
    assert source[0].path == str(files / "train/jump/0.mp4")
    assert sorted(path.name for path in folder.iterdir()) == ["train.csv", "val.csv"]


def test_lists_no_video_of_a_class_that_cannot_be_trained(files, tmp_path):
    rows = ["path,label,split", "train/run/0.mp4,run,train", "train/run/1.mp4,fly,train"]
    rows += ["gone.mp4,jump,train", "train/jump/0.mp4,jump,val", "train/run/2.mp4,run,val"]
    (tmp_path / "a.csv").write_text("\n".join(rows))
    flags = (f"--annotations={tmp_path / 'a.csv'}", f"--videos={files}", f"--out={tmp_path}")
    code, stdout, stderr = _run("videos", *flags, "--list")
    assert code == 0, stderr
    assert "2 of 3 classes have training videos" in stdout
    assert "left out: 1, first train/jump/0.mp4" in stdout
    train = create_source(tmp_path / "videos/train.csv")
    val = create_source(tmp_path / "videos/val.csv", classes=train.classes)
    assert train.classes == ("fly", "run") and [video.labels for video in val.videos] == [(1,)]


def test_the_folder_above_is_named_if_that_is_meant(files, tmp_path):
    one = files / "train"
    code, _, stderr = _run("videos", f"--annotations={one}", f"--videos={one}", f"--out={tmp_path}")
    assert code == 1 and stderr.count("\n") == 1
    assert "none of the 7 annotated videos is in it; looked for files such as train/" in stderr
    assert stderr.endswith(f"; give --videos={files}\n")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("encoding", "name", "shown"),
    [("utf-8:strict", b"caf\xe9.txt", r"caf\udce9.txt"), ("latin-1", "日.txt".encode(), r"\u65e5")],
)
def test_names_that_cannot_be_shown_are_spelt_out(encoding, name, shown, files, tmp_path):
    shutil.copytree(files, tmp_path / "files")
    (tmp_path / "files/train/run" / os.fsdecode(name)).touch()
    flags = (f"--annotations={tmp_path / 'files'}", f"--videos={tmp_path / 'files'}")
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    process = _start("videos", *flags, f"--out={tmp_path}", "--list", env=environment)
    stdout, stderr = process.communicate()
    assert process.returncode == 0, stderr
    assert f"train/run/{shown}" in stdout


@pytest.mark.slow
def test_a_data_set_of_nothing_is_an_error(tmp_path):
    for split in ("train", "val"):
        (tmp_path / split / "run").mkdir(parents=True)
        (tmp_path / split / "run/bad.mp4").write_text("no video")
    flags = (f"--annotations={tmp_path}", f"--videos={tmp_path}", f"--out={tmp_path / 'out'}")
    code, stdout, stderr = _run("videos", *flags)
    problems = tmp_path / "out/videos/1.0.0/problems.csv"
    assert code == 1 and "prepared:" not in stdout, stderr
    assert stderr.count("\n") == 1 and "none of the videos could be read" in stderr
    assert str(problems) in stderr and problems.read_text().count("unreadable") == 2


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_finished(files, tmp_path):
    many = tmp_path / "many"
    for i in range(200):
        target = many / "train/run" / f"{i:03d}.mp4"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(files / "train/run/0.mp4", target)
    flags = (f"--annotations={many}", f"--videos={many}", f"--out={tmp_path / 'out'}")
    unfinished = tmp_path / "out/videos/.unfinished"
    process = _start("videos", *flags, start_new_session=True)
    while process.poll() is None and not list(unfinished.glob("*.json")):
        pass
    os.killpg(process.pid, signal.SIGINT)  # as a terminal sends it, to the workers as well
    _, stderr = process.communicate()
    assert process.returncode == 130
    assert stderr.endswith(
        "finished videos are kept; rerun the same command to resume\ninterrupted\n"
    )
    assert not (tmp_path / "out/videos/1.0.0").exists()
    finished = {path.stat().st_ino for path in unfinished.glob("*.array_record")}
    assert _run("videos", *flags)[0] == 0
    prepared = {path.stat().st_ino for path in (tmp_path / "out/videos/1.0.0").glob("*record*")}
    assert finished and finished <= prepared


def _mistakes(files):
    given = (f"--annotations={files}", f"--videos={files}", "--out=out")
    return {
        "no name": ((), "say what to prepare: one of activitynet, mini_kinetics, thumos14"),
        "unknown name": (("activity", *given), "say what to prepare: one of activitynet"),
        "no annotations": (("videos",), "--annotations is missing"),
        "no videos": (("videos", given[0]), "--videos is missing"),
        "no out": (("videos", *given[:2]), "--out is missing"),
        "no such annotations": (("videos", "--annotations=/nowhere", *given[1:]), "of annotations"),
        "no such videos": (("videos", given[0], "--videos=/nowhere", given[2]), "/nowhere: no"),
        "other videos": (
            ("videos", given[0], f"--videos={files / 'val'}", given[2]), "none of the 9 annotated"
        ),
        "list into a file": (
            ("videos", *given[:2], f"--out={files / 'val/run/0.mp4'}", "--list"), "cannot write to"
        ),
        "out is a file": (("videos", *given[:2], f"--out={files / 'val/run/0.mp4'}"), "cannot"),
        "another word": (("videos", "more", *given), "did you mean videos?"),
        "no such runner": (("videos", *given, "--beam=--runner=DirctRunner"), "--beam: Unexpected"),
        "bad number": (("videos", *given, "--quality=101"), "quality"),
        "nothing to inspect": (("--inspect",), "name one data set"),
        "nothing prepared": (("--inspect", files), "nothing prepared in it"),
    }  # fmt: skip


@pytest.mark.parametrize("name", _mistakes(Path()))
def test_mistakes_are_one_line(name, files):
    arguments, expected = _mistakes(files)[name]
    code, _, stderr = _run(*arguments)
    assert code == 1, stderr
    assert stderr.startswith("error: ") and stderr.count("\n") == 1 and expected in stderr
    assert not (ROOT / "out").exists()
