"""The list of the files that are there reads as the data set it was made from."""

import os

from sofnet_jax.data.annotations.files import Notes
from sofnet_jax.data.prepared.library import write_listing
from sofnet_jax.data.prepared.record import Task
from sofnet_jax.data.source import Video, create_source

CLASSES = ("jump", "run")


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
