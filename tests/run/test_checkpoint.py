"""Checkpoints: the latest two and the best are kept and found, in one session and in several."""

import contextlib
import errno
import gc
import json
import logging
import os
import resource
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import orbax.checkpoint as ocp
import pytest

from sofnet_jax.host.errors import DamagedError, UserError, explain_full_disk
from sofnet_jax.run.checkpoint import Checkpoints, has_checkpoint


def save(checkpoints: Checkpoints, step: int, top1: float | None) -> None:
    checkpoints.save(step, {"x": np.full(3, step)}, {"step": step})
    checkpoints.wait()
    if top1 is not None:
        checkpoints.rate(step, {"top1": top1, "top5": 1.0, "map": 1 - top1})


@pytest.mark.parametrize("sessions", ["one", "many"])
def test_latest_and_best(sessions, tmp_path):
    checkpoints = Checkpoints(tmp_path, metric="top1")
    best = {1: 1, 2: 1, 3: 1, 4: 1, 5: 1, 6: 6, 7: 6, 8: 8}
    for step, top1 in enumerate((0.5, 0.4, 0.1, None, 0.2, 0.6, 0.3, 0.6), 1):
        save(checkpoints, step, top1)
        if sessions == "many":
            checkpoints.close()
            checkpoints = Checkpoints(tmp_path, metric="top1")
        assert (checkpoints.find("last"), checkpoints.find("best")) == (step, best[step])
        assert checkpoints.is_rated(step) == (top1 is not None)
        found = checkpoints.restore(best[step], {"x": np.zeros(3, int)})["x"]
        np.testing.assert_array_equal(found, best[step])
    assert {p.name for p in tmp_path.iterdir()} == {"6", "7", "8", "metrics.json"}
    checkpoints.close()
    by_map = Checkpoints(tmp_path, metric="map", read_only=True)
    assert by_map.find("best") == 7  # of those that are left
    by_map.close()


def test_nothing_there(tmp_path):
    checkpoints = Checkpoints(tmp_path / "new", metric="map")
    assert checkpoints.find("last") is None and checkpoints.find("best") is None
    save(checkpoints, 3, None)
    assert checkpoints.find("best") == 3
    checkpoints.close()


def test_a_reader_leaves_what_is_being_written(tmp_path):
    checkpoints = Checkpoints(tmp_path, metric="map")
    save(checkpoints, 1, 0.5)
    partial = tmp_path / "2.orbax-checkpoint-tmp"
    partial.mkdir()
    reader = Checkpoints(tmp_path, metric="map", read_only=True)
    assert reader.find("last") == 1 and partial.is_dir()
    assert reader.read_record(1) == {"step": 1}
    reader.close()
    checkpoints.close()


def find_largest(folder: Path) -> Path:
    """The file that holds the numbers."""
    return max(folder.glob("state/ocdbt*/d/*"), key=lambda path: path.stat().st_size)


def cut(folder: Path) -> None:
    path = find_largest(folder)
    path.write_bytes(path.read_bytes()[:100])


def flip(folder: Path) -> None:
    """One bit in the middle of the numbers, which neither Orbax nor TensorStore notices."""
    path = find_largest(folder)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def write_record(folder: Path, text: str) -> None:
    (folder / "record" / "metadata").write_text(text)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "cut short": cut,
    "a bit flipped": flip,
    "a file deleted": lambda folder: find_largest(folder).unlink(),
    "an index deleted": lambda folder: (folder / "state" / "manifest.ocdbt").unlink(),
    "an empty folder": empty,
    "a record that is no JSON": lambda folder: write_record(folder, "{"),
    "a record in which a bit flipped": lambda folder: write_record(
        folder, (folder / "record" / "metadata").read_text().replace('"step": 3', '"step": 2')
    ),
}


@pytest.fixture(scope="module")
def three(tmp_path_factory) -> Path:
    """Checkpoints of 1, 2 and 3, of which the first is the best."""
    folder = tmp_path_factory.mktemp("three")
    checkpoints = Checkpoints(folder, metric="top1")
    for step, top1 in ((1, 0.9), (2, 0.1), (3, 0.2)):
        state = {"x": np.random.default_rng(step).random(1000), "y": [np.full(3, step)] * 20}
        checkpoints.save(step, state, {"step": step})
        checkpoints.rate(step, {"top1": top1, "top5": 1.0, "map": 0.5})
    checkpoints.close()
    return folder


LIKE = {"x": np.zeros(1000), "y": [np.zeros(3, int)] * 20}


def restore_latest(checkpoints: Checkpoints) -> tuple[int, list[str]]:
    """The step of the latest whole checkpoint, and the lines about damaged ones."""
    steps = []

    def restore(step: int) -> None:
        assert checkpoints.read_record(step) == {"step": step}
        np.testing.assert_array_equal(checkpoints.restore(step, LIKE)["y"], step)
        steps.append(step)

    lines = checkpoints.restore_latest(restore)
    return steps[-1], lines


@pytest.mark.parametrize("kind", DAMAGES)
def test_damaged_checkpoint_gives_way_to_the_one_before(kind, three, tmp_path):
    folder = shutil.copytree(three, tmp_path / "run")
    DAMAGES[kind](folder / "3")
    (folder / "3.damaged").write_text("in the way")
    reader = Checkpoints(folder, metric="top1", read_only=True)
    for read in (
        lambda: reader.restore(3, LIKE),
        lambda: reader.read_variables(3),
        lambda: restore_latest(reader),
    ):
        with pytest.raises(DamagedError, match=f"{folder}/3 is damaged or not whole"):
            read()
    reader.close()
    before = sorted(path.name for path in (folder / "3").rglob("*"))
    checkpoints = Checkpoints(folder, metric="top1")
    step, (line,) = restore_latest(checkpoints)
    assert step == checkpoints.find("last") == 2 and checkpoints.find("best") == 1
    assert line.startswith(f"the checkpoint {folder}/3 is damaged or not whole (")
    assert line.endswith("; set aside as 3.damaged, resuming from step 2")
    assert sorted(path.name for path in (folder / "3.damaged").rglob("*")) == before
    assert not checkpoints.is_rated(3)
    assert set(json.loads((folder / "metrics.json").read_text())) == {"1", "2"}
    save(checkpoints, 3, 0.95)  # the training comes to it again
    assert checkpoints.find("last") == checkpoints.find("best") == 3
    checkpoints.close()


def test_damaged_best_checkpoint_is_found_at_the_start(three, tmp_path):
    folder = shutil.copytree(three, tmp_path / "run")
    flip(folder / "1")
    with contextlib.closing(Checkpoints(folder, metric="top1", read_only=True)) as reader:
        assert restore_latest(reader) == (3, [])  # which needs no other
    with contextlib.closing(Checkpoints(folder, metric="top1")) as checkpoints:
        step, (line,) = restore_latest(checkpoints)
        assert step == 3 and line.startswith(f"the checkpoint {folder}/1 is damaged or not whole (")
        assert line.endswith("; set aside as 1.damaged, resuming from step 3")
        assert checkpoints.find("best") == 3 and not checkpoints.is_rated(1)


def test_all_damaged_are_left_as_they_are(three, tmp_path):
    folder = shutil.copytree(three, tmp_path / "run")
    for step in "123":
        flip(folder / step)
    checkpoints = Checkpoints(folder, metric="top1")
    with pytest.raises(UserError, match=f"no checkpoint in {folder} is whole; .* newest: .*/3 is"):
        restore_latest(checkpoints)
    checkpoints.close()
    assert sorted(path.name for path in folder.iterdir()) == ["1", "2", "3", "metrics.json"]


def refuse_record(code: int, monkeypatch) -> None:
    error = OSError(code, os.strerror(code), "/x/3/record/metadata")
    monkeypatch.setattr(ocp.JsonCheckpointHandler, "restore", Mock(side_effect=error))


def refuse_arrays(code: int, monkeypatch) -> None:
    """As TensorStore does."""
    text = f"UNKNOWN: Error reading local file \"/x\": failed [os_error_code='{code}'] [tensor…"
    error = ValueError(text)
    monkeypatch.setattr(ocp.StandardCheckpointHandler, "restore", Mock(side_effect=error))


@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO, errno.ESTALE])
@pytest.mark.parametrize("refuse", [refuse_record, refuse_arrays])
def test_checkpoint_that_cannot_be_read_is_not_damaged(refuse, code, three, tmp_path, monkeypatch):
    folder = shutil.copytree(three, tmp_path / "run")
    before = sorted(path.name for path in folder.rglob("*"))
    readers = [Checkpoints(folder, metric="top1", read_only=only) for only in (True, False)]
    refuse(code, monkeypatch)
    for checkpoints in readers:
        with contextlib.closing(checkpoints):
            said = f"cannot read the checkpoint {folder}/3: {os.strerror(code)}; it may be whole"
            with pytest.raises(UserError, match=said) as refused:
                restore_latest(checkpoints)
        assert not isinstance(refused.value, DamagedError)
    assert sorted(path.name for path in folder.rglob("*")) == before


def test_error_that_is_not_about_a_checkpoint_is_raised(three, monkeypatch):
    error = RuntimeError("Unable to initialize backend 'cuda'")
    with contextlib.closing(Checkpoints(three, metric="top1", read_only=True)) as reader:
        monkeypatch.setattr(ocp.JsonCheckpointHandler, "restore", Mock(side_effect=error))
        with pytest.raises(RuntimeError, match="Unable to initialize backend"):
            reader.read_record(3)


def test_folder_that_cannot_be_read(three, tmp_path, monkeypatch):
    """Neither its list nor its metrics, which are not called damaged either."""
    folder = shutil.copytree(three, tmp_path / "run")
    refused = PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    with monkeypatch.context() as patched:
        patched.setattr(ocp, "CheckpointManager", Mock(side_effect=refused))
        with pytest.raises(UserError, match=f"cannot open {folder}: Permission denied$"):
            Checkpoints(folder, metric="top1")
    with monkeypatch.context() as patched:
        patched.setattr(os, "listdir", Mock(side_effect=refused))
        with pytest.raises(UserError, match=f"cannot open {folder}: Permission denied$"):
            has_checkpoint(folder)
    monkeypatch.setattr(Path, "read_text", Mock(side_effect=refused))
    with pytest.raises(UserError, match=f"{folder}/metrics.json: Permission denied$"):
        Checkpoints(folder, metric="top1")
    assert has_checkpoint(folder) and not has_checkpoint(tmp_path / "none")


def test_damaged_list_of_a_checkpoint_is_refused(three, tmp_path):
    folder = shutil.copytree(three, tmp_path / "run")
    (folder / "3" / "_CHECKPOINT_METADATA").write_text("3")
    with pytest.raises(UserError, match=f"{folder} holds .* damaged _CHECKPOINT_METADATA"):
        Checkpoints(folder, metric="top1")


def test_checkpoint_without_checksums_gives_way_and_names_the_version(three, tmp_path):
    folder = shutil.copytree(three, tmp_path / "run")
    path = folder / "3" / "record" / "metadata"
    assert set(json.loads(path.read_text())) == {"step", "crc32"}
    path.write_text('{"step": 3}')
    with contextlib.closing(Checkpoints(folder, metric="top1")) as checkpoints:
        step, (line,) = restore_latest(checkpoints)
    assert step == 2 and "(without checksums, as versions before 0.1.0 wrote it)" in line


# A path with each, and whether it can be read from.
MISREAD = {"lr[0.1]": True, "a*": True, "a?": True, "a\\b": False, "gs:": False, "\udce4": False}


@pytest.mark.parametrize("name", MISREAD)
def test_path_that_orbax_misreads_is_refused_and_a_link_to_it_is_not(name, three, tmp_path):
    folder = shutil.copytree(three, tmp_path / name / "run" / "checkpoints")
    before = sorted(path.name for path in folder.rglob("*"))
    with pytest.raises(UserError, match="cannot be written to a path with .*, or give a link"):
        Checkpoints(folder, metric="top1")
    if MISREAD[name]:
        with contextlib.closing(Checkpoints(folder, metric="top1", read_only=True)) as reader:
            assert restore_latest(reader) == (3, [])
    else:
        with pytest.raises(UserError, match="cannot be read from a path with"):
            Checkpoints(folder, metric="top1", read_only=True)
    assert sorted(path.name for path in folder.rglob("*")) == before
    (tmp_path / "link").symlink_to(folder.parent)
    link = tmp_path / "link" / "checkpoints"
    with contextlib.closing(Checkpoints(link, metric="top1")) as checkpoints:
        checkpoints.save(4, LIKE, {"step": 4})
        checkpoints.rate(4, {"top1": 0.5, "top5": 1.0, "map": 0.5})
        assert checkpoints.find("last") == 4


def test_first_checkpoint_is_read_back(tmp_path):
    with contextlib.closing(Checkpoints(tmp_path, metric="top1")) as checkpoints:
        checkpoints.save(1, LIKE, {"step": 1})
        checkpoints.wait()
        DAMAGES["an index deleted"](tmp_path / "1")
        with pytest.raises(UserError, match=f"{tmp_path}/1 is damaged .*, though it was just"):
            checkpoints.rate(1, {"top1": 0.5, "top5": 1.0, "map": 0.5})
        assert not checkpoints.is_rated(1)


def test_a_training_of_no_steps_has_no_checkpoint_to_read_back(tmp_path):
    with contextlib.closing(Checkpoints(tmp_path, metric="top1")) as checkpoints:
        checkpoints.rate(0, {"top1": 0.5, "top5": 1.0, "map": 0.5})
        assert checkpoints.is_rated(0) and checkpoints.find("last") is None


def fail_to_read(checkpoints: Checkpoints) -> None:
    with contextlib.suppress(DamagedError):  # as a training does, which takes the one before
        checkpoints.read_record(1)


def fail(checkpoints: Checkpoints) -> None:
    with contextlib.suppress(ValueError):
        raise ValueError


RAISED = ValueError('OUT_OF_RANGE: Error reading "x/0" in OCDBT database at local file "/x/"')
TASK = "Task was destroyed but it is pending!\ntask: <Task pending coro=<{}() running at {}:121>>"
ORBAX = f"{ocp.__path__[0]}/_src/serialization/type_handlers.py"


@pytest.mark.parametrize("use", [fail, fail_to_read])
def test_a_programs_own_messages_are_heard_and_orbax_is_not(use, tmp_path, monkeypatch, caplog):
    """With two folders open at once, closed in the order of opening, and after a failure."""
    heard: list[SimpleNamespace] = []
    monkeypatch.setattr(sys, "unraisablehook", heard.append)
    one, two = (Checkpoints(tmp_path / name, metric="top1") for name in "ab")
    use(one)
    one.close()
    two.close()
    asyncio, absl = logging.getLogger("asyncio"), logging.getLogger("absl")
    caplog.set_level(logging.WARNING)
    caplog.clear()
    asyncio.error(TASK.format("_open_and_write", ORBAX))
    asyncio.error("Task exception was never retrieved", exc_info=RAISED)
    absl.handle(absl.makeRecord("absl", logging.ERROR, ORBAX, 1, "failed", (), None))
    routine = "Given directory is read only=/x"
    absl.handle(absl.makeRecord("absl", logging.WARNING, ORBAX, 1, routine, (), None))
    assert not caplog.messages
    skipped = "Skipping merge of OCDBT checkpoints"
    absl.handle(absl.makeRecord("absl", logging.WARNING, ORBAX, 1, skipped, (), None))
    assert caplog.messages == [skipped]
    caplog.clear()
    own = [TASK.format("serve", "/home/me/serve.py"), "Task exception was never retrieved"]
    asyncio.error(own[0])
    asyncio.error(own[1], exc_info=ValueError("mine"))
    absl.handle(absl.makeRecord("absl", logging.ERROR, "/home/me/x.py", 1, "failed", (), None))
    assert caplog.messages == [*own, "failed"]
    closed, mine = RuntimeError("Event loop is closed"), RuntimeError("mine")
    odd = [SimpleNamespace(exc_value=e, object=o) for e in (closed, mine) for o in (None, "mine")]
    for each in odd:
        sys.unraisablehook(each)
    assert heard == odd[1:]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Checkpoints(tmp_path / "c", metric="top1").close()
        for name in ("serve", "NumpyHandler._background_serialize"):
            warnings.warn(f"coroutine '{name}' was never awaited", RuntimeWarning, stacklevel=1)
    assert [str(w.message) for w in caught] == ["coroutine 'serve' was never awaited"]


@pytest.mark.parametrize(
    "arguments, place", [((), "/run"), (("/cache/x",), "/cache/x")], ids=["no name", "a name"]
)
def test_full_disk_is_that_of_the_file(arguments, place):
    said = f"^cannot write to {place}: No space left on device; free some space and run the same"
    with pytest.raises(UserError, match=said), explain_full_disk(Path("/run")):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), *arguments)


@pytest.mark.parametrize(
    "code, remedy",
    [
        (errno.EROFS, "make the file system writable"),
        (errno.EDQUOT, "free some space or have the quota raised"),
        (errno.EFBIG, "raise the limit on the size of a file"),
    ],
)
@pytest.mark.parametrize("kind", [OSError, ValueError])  # that of TensorStore
def test_the_remedy_is_that_of_the_reason(kind, code, remedy):
    with pytest.raises(UserError, match=remedy) as error, explain_full_disk(Path("/run")):
        raise kind(f"Error writing: {os.strerror(code)}")
    assert code == errno.EDQUOT or "free some space" not in str(error.value)


@contextlib.contextmanager
def little_room() -> Iterator[None]:
    """No file can become larger than 4 kB, for which a system has other words than for a disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_checkpoint_that_cannot_be_written_is_none(three, tmp_path):
    folder = shutil.copytree(three, tmp_path / "run")
    state = {"x": np.random.default_rng(4).random(10_000)}
    checkpoints = Checkpoints(folder, metric="top1")
    with pytest.raises(
        UserError, match=f"cannot write to {tmp_path}: File too large; raise the limit on the size"
    ):
        with explain_full_disk(tmp_path), little_room():
            checkpoints.save(4, state, {"step": 4})
            checkpoints.wait()
    assert checkpoints.find("last") == 3 and restore_latest(checkpoints) == (3, [])
    checkpoints.save(4, state, {"step": 4})  # now there is room
    checkpoints.close()
    assert not list(folder.glob("*tmp*"))
    reader = Checkpoints(folder, metric="top1", read_only=True)
    np.testing.assert_array_equal(reader.restore(4, state)["x"], state["x"])
    reader.close()
    del checkpoints
    gc.collect()  # what Orbax had begun and left alone
