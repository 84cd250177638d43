"""Locks of folders, also on file systems that have none."""

import errno
import fcntl
import os
import shutil
from unittest.mock import Mock

import pytest

from sofnet_jax.data.synthetic import dataset
from sofnet_jax.data.synthetic.dataset import create_synthetic, is_synthetic
from sofnet_jax.host.errors import UserError
from sofnet_jax.host.lock import InUseError, lock_folder


def test_second_holder_is_refused(tmp_path):
    with lock_folder(tmp_path, "training"):
        with (
            pytest.raises(InUseError, match="in use by another training; wait for it"),
            lock_folder(tmp_path, "training"),
        ):
            pass
    with lock_folder(tmp_path, "training"):
        pass


def test_what_is_no_folder_is_named(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nothing")
    for name, kind in (("file", "a file"), ("link", "a link that leads nowhere")):
        with pytest.raises(UserError, match=f"/{name} is {kind}; give a folder"):
            with lock_folder(tmp_path / name, "training"):
                pass


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL])
def test_file_system_without_locks(code, tmp_path, monkeypatch, capsys):
    """As NFS, Lustre and FUSE can be."""
    monkeypatch.setattr(fcntl, "flock", Mock(side_effect=OSError(code, os.strerror(code))))
    for _ in range(2):
        with lock_folder(tmp_path / "run", "training"):
            (tmp_path / "run" / "x").touch()
    (note,) = capsys.readouterr().err.splitlines()
    assert note.startswith(f"note: {tmp_path}/run/.lock cannot be locked ({os.strerror(code)}); ")


def test_generators_without_locks_leave_each_other_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", Mock(side_effect=OSError(errno.ENOSYS, "")))
    other = tmp_path / ".data.other.partial"
    other.mkdir()
    write = dataset._write_files

    def write_second(folder, meta, num_workers):
        write(folder, meta, num_workers)
        shutil.copytree(folder, tmp_path / "data")  # the other is done

    monkeypatch.setattr(dataset, "_write_files", write_second)
    counts = dict.fromkeys(("train_videos", "val_videos", "num_workers"), 1)
    create_synthetic(tmp_path / "data", num_classes=2, num_frames=16, size=32, seed=0, **counts)
    assert is_synthetic(tmp_path / "data")
    assert [path.name for path in tmp_path.glob(".data.*.partial")] == [other.name]
