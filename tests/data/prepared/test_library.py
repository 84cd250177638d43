"""A clip's file is found under usual names, and a written list reads as it was written."""

import dataclasses
import os

import pytest

from sofnet_jax.data.annotations.clip import Annotation, Clip
from sofnet_jax.data.annotations.files import Notes
from sofnet_jax.data.prepared.library import Library, find_tasks, write_listing
from sofnet_jax.data.prepared.record import Task
from sofnet_jax.data.source import Video, create_source
from sofnet_jax.host.errors import UserError

CLASSES = ("jump", "run")


def _touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def _clip(name, **kwargs):
    return Clip(id=name, split="train", labels=("run",), place="a:1", names=(name,), **kwargs)


def _find(folder, clip):
    found = Library(folder).find(clip)
    return found and found.path.relative_to(folder).as_posix()


@pytest.mark.parametrize(
    "file",
    [
        "-aBcDeFgHiJ.mp4",
        "v_-aBcDeFgHiJ.mp4",
        "train/some class/-aBcDeFgHiJ.MKV",
        "-aBcDeFgHiJ.unheard_of",
        "-aBcDeFgHiJ",
        "A title: with [brackets] [-aBcDeFgHiJ].webm",
        "v_-aBcDeFgHiJ_plastering.avi",
    ],
)
def test_file_names(file, tmp_path):
    _touch(tmp_path, file, "other.mp4")
    assert _find(tmp_path, _clip("-aBcDeFgHiJ")) == file


def test_another_id_is_not_taken(tmp_path):
    _touch(tmp_path, "-aBcDeFgHij.mp4", "x-aBcDeFgHiJ.mp4", "-aBcDeFgHiJ.mp4.part")
    assert _find(tmp_path, _clip("-aBcDeFgHiJ")) is None


def test_an_id_may_itself_begin_with_v(tmp_path):
    _touch(tmp_path, "v_v_34567890x.mp4")
    assert _find(tmp_path, _clip("v_34567890x")) == "v_v_34567890x.mp4"
    _touch(tmp_path, "v_34567890x.mp4")
    assert _find(tmp_path, _clip("v_34567890x")) == "v_34567890x.mp4"


def test_a_list_may_write_the_prefix_where_the_file_has_none(tmp_path):
    _touch(tmp_path, "abc.mp4")
    assert _find(tmp_path, _clip("v_abc")) == "abc.mp4"


def test_a_video_is_preferred_to_what_lies_beside_it(tmp_path):
    _touch(tmp_path, "abc.info", "abc.jpg", "abc.mp4", "abc.txt")
    found = Library(tmp_path).find(_clip("abc"))
    assert found.path.name == "abc.mp4" and found.others == ()


def test_hidden_folders_are_not_looked_into(tmp_path):
    _touch(tmp_path, ".trash/abc.mp4", "b/.ipynb_checkpoints/abc.mp4")
    os.symlink(tmp_path / ".trash", tmp_path / "b/.link")
    _touch(tmp_path, "b/other.mp4")
    assert _find(tmp_path, _clip("abc")) is None
    _touch(tmp_path, "b/abc.mp4")
    assert _find(tmp_path, _clip("abc")) == "b/abc.mp4"
    assert _find(tmp_path / ".trash", _clip("abc")) == "abc.mp4"  # where the user says so


def test_several_files_are_told_of_but_links_are_one(tmp_path):
    _touch(tmp_path, "a/abc.mp4", "b/v_abc.webm", "c/abc.mkv")
    os.symlink(tmp_path / "a/abc.mp4", tmp_path / "c/abc.avi")
    found = Library(tmp_path).find(_clip("abc"))
    assert found.path == tmp_path / "a/abc.mp4"
    assert found.others == (tmp_path / "c/abc.mkv", tmp_path / "b/v_abc.webm")


def test_part_of_a_video_is_cut_from_the_whole_or_has_its_own_file(tmp_path):
    clip = _clip("abcdefghijk", trimmed=("abcdefghijk_000010_000020",), start=10.0, end=20.0)
    _touch(tmp_path, "abcdefghijk_000050_000060.mp4")  # another part
    assert _find(tmp_path, clip) is None
    _touch(tmp_path, "abcdefghijk.mp4")
    library = Library(tmp_path)
    assert library.find(clip).path.name == "abcdefghijk.mp4" and not library.find(clip).trimmed
    annotation = Annotation("videos", ("run",), (clip,))
    [task] = find_tasks(annotation, library)["train"]
    assert (task.start, task.end, task.duration) == (10.0, 20.0, 10.0)
    _touch(tmp_path, "x/abcdefghijk_000010_000020.mp4")
    [task] = find_tasks(annotation, Library(tmp_path))["train"]
    assert task.path == str(tmp_path / "x/abcdefghijk_000010_000020.mp4")
    assert (task.start, task.end, task.duration) == (None, None, 10.0)


def test_a_path_is_taken_as_it_is(tmp_path):
    _touch(tmp_path, "run/1.mp4", "jump/1.mp4")
    clip = Clip(id="jump/1.mp4", split="train", labels=("jump",), place="a:1", path="jump/1.mp4")
    assert _find(tmp_path, clip) == "jump/1.mp4"
    bare = dataclasses.replace(clip, path="jump/1")
    assert _find(tmp_path, bare) == "jump/1.mp4"
    gone = Clip(id="jump/2.mp4", split="train", labels=("jump",), place="a:1", path="jump/2.mp4")
    assert Library(tmp_path).find(gone) is None


def test_labels_are_numbers_of_classes_and_missing_files_are_tasks_too(tmp_path):
    _touch(tmp_path, "abc.mp4")
    clips = (
        Clip("abc", "train", ("run", "jump"), "a:1", names=("abc",), duration=7.0),
        Clip("xyz", "val", ("jump",), "a:2", names=("xyz",), segments=((1.0, 2.0),)),
    )
    tasks = find_tasks(Annotation("videos", ("jump", "run"), clips), Library(tmp_path))
    [found], [missing] = tasks["train"], tasks["val"]
    assert (found.id, found.labels, found.duration) == ("abc", (1, 0), 7.0)
    assert (missing.path, missing.labels, missing.segments) == (None, (0,), ((1.0, 2.0),))


def test_a_file_is_found_in_the_other_unicode_form(tmp_path):
    composed, decomposed = "caf\u00e9", "cafe\u0301"  # as Linux and as macOS write it
    for there, listed in ((composed, decomposed), (decomposed, composed)):
        root = tmp_path / str(len(there))
        _touch(root, f"{there}/{there}.mp4")
        clip = Clip(id="a", split="train", labels=("run",), place="a:1", path=f"{listed}/{listed}")
        for path in (f"{listed}/{listed}.mp4", f"{listed}/{listed}"):
            found = _find(root, dataclasses.replace(clip, path=path))
            assert found == f"{there}/{there}.mp4"
        assert _find(root, _clip(listed)) == f"{there}/{there}.mp4"


@pytest.mark.parametrize("closed", [".", "walk"])
def test_a_folder_that_cannot_be_read_is_named(closed, tmp_path, close_folder):
    _touch(tmp_path, "walk/1.mp4", "run/1.mp4")
    close_folder(tmp_path / closed)
    with pytest.raises(UserError, match=f"^{tmp_path / closed}: cannot be read .Permission denied"):
        Library(tmp_path)


def test_a_listed_file_in_a_folder_that_cannot_be_read(tmp_path, close_folder):
    _touch(tmp_path, "run/1.mp4", ".cache/2.mp4")  # hidden folders are not searched
    clip = Clip(id="2", split="train", labels=("run",), place="a:1", path=".cache/2.mp4")
    library = Library(tmp_path)
    close_folder(tmp_path / ".cache")
    with pytest.raises(UserError, match="cannot be read .Permission denied"):
        find_tasks(Annotation("videos", ("run",), (clip,)), library)


def test_mistakes(tmp_path):
    with pytest.raises(UserError, match="no such folder; give"):
        Library(tmp_path / "nowhere")
    with pytest.raises(UserError, match="no files in this folder"):
        Library(tmp_path)


def test_a_list_reads_as_what_it_was_written_from(tmp_path):
    tasks = [
        Task("a", (1, 0), "/data/a.mp4", start=1.5, segments=((2.0, 3.0), (4.0, 5.0))),
        Task("b", (0,), "/data/b, c.mp4"),
        Task("gone", (0,), None),
    ]
    path = tmp_path / "new/train.csv"
    assert write_listing(path, tasks, CLASSES, Notes()) == 2
    source = create_source(path)
    segments = ((2.0, 3.0), (4.0, 5.0))
    assert source.classes == CLASSES
    assert source.videos == (
        Video("/data/a.mp4#t=1.5", "/data/a.mp4", (1, 0), 1.5, relevant=segments),
        Video("/data/b, c.mp4", "/data/b, c.mp4", (0,)),
    )


def test_paths_relative_to_where_one_is_become_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_listing(tmp_path / "lists/train.csv", [Task("a", (0,), "files/a.mp4")], CLASSES, Notes())
    assert create_source(tmp_path / "lists/train.csv")[0].path == str(tmp_path / "files/a.mp4")


def test_names_that_are_not_utf8_are_left_out(tmp_path):
    notes = Notes()
    tasks = [Task("a", (0,), os.fsdecode(b"/data/caf\xe9.mp4")), Task("b", (0,), "/data/b.mp4")]
    assert write_listing(tmp_path / "train.csv", tasks, CLASSES, notes) == 1
    assert [video.path for video in create_source(tmp_path / "train.csv").videos] == ["/data/b.mp4"]
    [line] = notes.lines()
    assert line.isprintable() and "caf\\udce9.mp4" in line
