"""Mistakes in a configuration file are one line that names the file."""

import errno
import os

import pytest
from command import call

DEFAULT = "from sofnet_jax.run.config import create_default, apply_variant\n"
FILES = {
    "mistyped": (
        "c.train.warmup_epoch = 5",
        ":3: warmup_epoch: no such field; did you mean warmup_epochs?",
    ),
    "mistyped group": ("c.trian.remat = True", ":3: trian: no such field; did you mean train?"),
    "mistyped key": ('c.data["sizee"] = 5', ":3: sizee: no such field; did you mean size?"),
    "new": ("c.frobnicate = 3", ":3: frobnicate: no such field"),
    "raises": ("1 / 0", ":3: division by zero"),
    "raises without words": ("assert False", ":3: AssertionError"),
    "reads what is not there": (
        'open("/nothing")',
        ":3: [Errno 2] No such file or directory: '/nothing'",
    ),
    "a wrong type": ('c.train.warmup_epochs = "x"', ":3: Could not override field 'warmup_epochs'"),
    "a wrong variant": ('apply_variant(c, "tns")', ":3: no variant 'tns' of this configuration"),
    "a number": ("return 3", " get_config returned 3; return what create_default() returns"),
    "nothing": ("return None", " get_config returned None; return what create_default() returns"),
    "a dictionary": ("return {}", " get_config returned {}; return what create_default() returns"),
    "too little": ("return type(c)({'seed': 0, 'data': {}})", " no field init_from"),
    "no group": ("return type(c)({'seed': 0, 'init_from': '', 'data': 3})", " no field data.name"),
}


@pytest.mark.parametrize("command", ["main", "sweep", "compare"])
@pytest.mark.parametrize("kind", FILES)
def test_mistakes_in_a_configuration_file(kind, command, tmp_path):
    line, expected = FILES[kind]
    path = tmp_path / "mine.py"
    path.write_text(f"{DEFAULT}def get_config():\n    c = create_default(); {line}\n    return c\n")
    code, out, err = call(command, f"--config={path}", f"--workdir={tmp_path / 'run'}")
    where = f"{path}{expected}" if expected[0] == ":" else expected[1:]
    assert (code, out) == (1, "") and err.count("\n") == 1 and len(err) < 300
    assert err.startswith(f"error: --config: {where}"), err


def test_the_home_folder_is_expanded_in_every_path(tmp_path, monkeypatch):
    """Shells leave `~` alone after `--name=`."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("train/run/a.mp4", "val.csv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "mine.py").write_text(
        f"{DEFAULT}def get_config():\n"
        "    c = create_default(); c.data.train = '~/train'; c.data.val = '~/val.csv'\n"
        "    return c\n"
    )
    code, _, err = call("main", "--config=~/mine.py", "--workdir=~/run")
    assert code == 1 and err.startswith(f"error: {tmp_path}/val.csv: no videos in it")
    code, _, err = call("prepare", "videos", "--annotations=~/train", "--videos=~/none", "--out=~")
    assert code == 1 and err.startswith(f"error: {tmp_path}/none: no such folder")


@pytest.mark.parametrize(
    "code, remedy",
    [
        (errno.EACCES, "change its permissions, or give another path"),
        (errno.ENAMETOOLONG, "give a shorter path"),
    ],
)
def test_what_the_system_refuses_is_one_line_that_names_the_file(code, remedy, monkeypatch):
    def refuse(*_, **__):
        raise OSError(code, os.strerror(code), "/closed/a")

    monkeypatch.setattr("sofnet_jax.inference.load.load", refuse)
    said = f"error: /closed/a: {os.strerror(code)}; {remedy}\n"
    assert call("predict", "a.mp4", "--checkpoint=run") == (1, "", said)
