"""Files survive crashes, power cuts and concurrent writers; JSON stays valid."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sofnet_jax.host.files import (
    format_json,
    is_number,
    read_json,
    require_place,
    write_json,
    write_whole,
)


def _list(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_contents_are_on_disk_before_the_rename_and_the_rename_before_the_end(
    tmp_path, monkeypatch
):
    """The order that survives a power cut at any moment."""
    operations = []
    fsync, replace = os.fsync, os.replace

    def record_fsync(descriptor):
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        operations.append(("folder", path) if path.is_dir() else ("file", path.read_text()))
        fsync(descriptor)

    def record_replace(source, target):
        operations.append(("rename", Path(target)))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(os, "replace", record_replace)
    path = tmp_path / "new" / "x"
    with write_whole(path) as partial:
        partial.write_text("content")
        assert not operations
    assert operations == [("file", "content"), ("rename", path), ("folder", path.parent)]


def test_a_file_system_that_cannot_flush_folders_is_accepted_and_a_broken_disk_is_not(
    tmp_path, monkeypatch
):
    def fail(code):
        def fsync(_):
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(os, "fsync", fsync)

    fail(22)  # EINVAL
    write_json(tmp_path / "x", {})
    fail(5)  # EIO
    with pytest.raises(OSError, match="Input/output"):
        write_json(tmp_path / "x", {"new": 1})
    assert read_json(tmp_path / "x") == {} and _list(tmp_path) == ["x"]


def test_an_error_while_writing_leaves_the_old_file(tmp_path):
    path = tmp_path / "x"
    path.write_text("old")
    with pytest.raises(ValueError, match="mine"), write_whole(path) as partial:
        partial.write_text("ne")
        raise ValueError("mine")
    assert path.read_text() == "old" and _list(tmp_path) == ["x"]


_KILLED = """
import os, sys
from pathlib import Path
from sofnet_jax.host.files import write_whole
with write_whole(Path(sys.argv[1])) as partial:
    partial.write_text("ne")
    if sys.argv[2] == "before":
        os.kill(os.getpid(), 9)
    replace = os.replace
    def kill(*paths):
        if sys.argv[2] == "after":
            replace(*paths)
        os.kill(os.getpid(), 9)
    os.replace = kill
"""


@pytest.mark.parametrize(
    ("moment", "left", "litter"), [("before", "old", 1), ("at", "old", 1), ("after", "ne", 0)]
)
def test_a_killed_writer_leaves_a_whole_file_and_the_next_one_tidies_up(
    moment, left, litter, tmp_path
):
    path = tmp_path / "x[1].txt"
    path.write_text("old")
    done = subprocess.run([sys.executable, "-c", _KILLED, path, moment], check=False)
    assert done.returncode == -9
    assert path.read_text() == left and len(_list(tmp_path)) == 1 + litter
    with write_whole(path) as partial:
        partial.write_text("new")
    assert path.read_text() == "new" and _list(tmp_path) == [path.name]


def test_two_writers_at_once_each_write_a_whole_file(tmp_path):
    path = tmp_path / "x"
    with write_whole(path) as one:
        one.write_text("one")
        with write_whole(path) as two:  # does not delete what the first is writing
            two.write_text("two")
        assert path.read_text() == "two" and one.read_text() == "one"
    assert path.read_text() == "one" and _list(tmp_path) == ["x"]


def test_what_is_no_file_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/null")
    (tmp_path / "folder").mkdir()
    for name in _list(tmp_path):
        kept = (tmp_path / name).lstat()
        with pytest.raises(OSError, match="not a regular file|Is a directory"):
            require_place(tmp_path / name)
        with pytest.raises(OSError, match="not a regular file|Is a directory"):
            write_json(tmp_path / name, {})
        assert (tmp_path / name).lstat() == kept
    assert _list(tmp_path) == ["folder", "link", "pipe"]


@pytest.mark.parametrize("name", ["x" * 255, "ż" * 127, "x" + "😀" * 63])
def test_the_longest_names_are_written(name, tmp_path):
    write_json(tmp_path / name, {"a": 1})
    require_place(tmp_path / name)
    with pytest.raises(OSError, match="File name too long"):
        write_json(tmp_path / (name + "y" * 9), {})
    with pytest.raises(OSError, match="File name too long"):
        require_place(tmp_path / (name + "y" * 9))
    assert _list(tmp_path) == [name]


def test_no_link_is_followed_or_waited_for(tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("diary")
    for name in ("x", "x.partial-0"):
        (tmp_path / name).symlink_to(precious)
    os.mkfifo(tmp_path / "x.partial-1")
    write_json(tmp_path / "x", 1)
    assert precious.read_text() == "diary" and not (tmp_path / "x").is_symlink()


def test_json_has_null_for_numbers_that_it_lacks(tmp_path):
    content = {"a": [math.nan, 0.1], "b": {"c": -math.inf, "d": (1, True, None, "NaN")}}
    text = format_json(content)
    assert text == '{"a": [null, 0.1], "b": {"c": null, "d": [1, true, null, "NaN"]}}'
    write_json(tmp_path / "x.json", content)
    assert read_json(tmp_path / "x.json") == json.loads(text)
    assert not is_number(json.loads(text)["a"][0]) and not is_number(math.nan)
