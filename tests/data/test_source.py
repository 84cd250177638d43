import os
from collections.abc import Sequence

import pytest

from sofnet_jax.data.source import Source, Video, create_source, select_part
from sofnet_jax.host.errors import UserError


def _touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def _csv(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "videos.csv"
    path.write_bytes(text.encode(encoding))
    return path


def _fails(path, *parts, **kwargs):
    """The path is refused in one line that begins with `path` and has all the parts."""
    with pytest.raises(UserError) as caught:
        create_source(path, **kwargs)
    message = str(caught.value)
    assert message.startswith(str(path)) and "\n" not in message
    for part in parts:
        assert part in message


def test_folder_of_classes(tmp_path):
    _touch(tmp_path, "run/b.MP4", "run/a.avi", "run/deep/er/c.webm", "jump/d.mkv", "jump/e.mov")
    _touch(tmp_path, "run/notes.txt", "run/.hidden.mp4", ".git/x.mp4", "README.md")
    source = create_source(tmp_path)
    assert source.classes == ("jump", "run")
    assert [(video.id, video.labels) for video in source.videos] == [
        ("jump/d.mkv", (0,)),
        ("jump/e.mov", (0,)),
        ("run/a.avi", (1,)),
        ("run/b.MP4", (1,)),
        ("run/deep/er/c.webm", (1,)),
    ]
    assert len(source) == 5 and source[3].path == str(tmp_path / "run/b.MP4")
    assert source[0].relevant is None
    kind = "files that are not videos by their names: left out"
    assert source.notes == (f"{kind}: 1, first {tmp_path}/run/notes.txt",)


def test_folder_follows_links_but_not_in_circles(tmp_path):
    _touch(tmp_path, "elsewhere/a.mp4", "data/run/b.mp4")
    os.symlink(tmp_path / "elsewhere", tmp_path / "data/run/link")
    os.symlink(tmp_path / "data/run", tmp_path / "data/run/circle")
    assert [v.id for v in create_source(tmp_path / "data").videos] == [
        "run/b.mp4",
        "run/link/a.mp4",
    ]


def test_folders_without_a_video_are_not_classes(tmp_path):
    _touch(tmp_path, "run/a.mp4", "jump/readme.txt")
    source = create_source(tmp_path)
    assert source.classes == ("run",)
    left_out = (
        f"folders without a video: not classes: 1, first {tmp_path}/jump",
        f"files that are not videos by their names: left out: 1, first {tmp_path}/jump/readme.txt",
    )
    assert source.notes == left_out
    source = create_source(tmp_path, classes=("run", "jump", "swim"))
    assert source.classes == ("run", "jump", "swim") and source[0].labels == (0,)
    unseen = (f"{tmp_path}: no video of 'jump'", f"{tmp_path}: no video of 'swim'")
    assert source.notes == (*left_out, *unseen)
    assert create_source(tmp_path, classes=("run",)).notes == left_out


def test_folders_of_the_system_are_not_classes(tmp_path):
    """As archives of macOS, file servers and file systems leave them."""
    _touch(tmp_path, "run/a.mp4", "run/@eaDir/a.mp4/thumb.mp4", "__MACOSX/run/a.mp4")
    _touch(tmp_path, "@eaDir/a.mp4", "lost+found/b.mp4", "@home/b.mp4")
    source = create_source(tmp_path)
    assert source.classes == ("@home", "run") and len(source) == 2
    assert source.notes == (f"folders of the system left out: 4, first {tmp_path}/@eaDir",)


def test_folder_mistakes(tmp_path):
    _fails(tmp_path / "missing", "no such file or folder; give a folder")
    _fails(tmp_path, "no sub-folders")
    _touch(tmp_path, "run/readme.txt")
    _fails(tmp_path, "no videos", ".mp4")
    _touch(tmp_path, "runs/a.mp4")
    _fails(tmp_path, "'runs' is not a class", "closest is 'run'", classes=("jump", "run"))


@pytest.mark.parametrize("closed", [".", "walk", "walk/deep/er"])
def test_a_folder_that_cannot_be_read_is_not_an_empty_one(closed, tmp_path, close_folder):
    root = tmp_path / "train"
    _touch(root, "run/a.mp4", "walk/b.mp4", "walk/deep/er/c.mp4")
    close_folder(root / closed)
    _fails(root, f"{root / closed}: cannot be read (Permission denied); change its permissions")


def test_a_path_below_a_folder_that_cannot_be_read(tmp_path, close_folder):
    _touch(tmp_path, "train/run/a.mp4", "train.csv")
    close_folder(tmp_path)
    for name in ("train", "train.csv"):
        with pytest.raises(UserError, match="cannot be read .Permission denied."):
            create_source(tmp_path / name)


COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"  # as Linux and as macOS write it


def test_a_class_is_one_in_either_unicode_form(tmp_path):
    _touch(tmp_path, f"train/{COMPOSED}/a.mp4", f"train/{DECOMPOSED}/b.mp4", "train/cafz/c.mp4")
    _touch(tmp_path, f"val/{DECOMPOSED}/d.mp4")
    train = create_source(tmp_path / "train")
    assert train.classes == ("cafz", COMPOSED) and train.notes == ()
    assert sorted(video.labels for video in train.videos) == [(0,), (1,), (1,)]
    for classes in (train.classes, ("cafz", DECOMPOSED)):
        [video] = create_source(tmp_path / "val", classes=classes).videos
        assert video.labels == (1,) and os.path.exists(video.path)
    rows = _csv(tmp_path, f"path,label\n/d.mp4,{DECOMPOSED}\n")
    assert create_source(rows).classes == (COMPOSED,)
    assert create_source(rows, classes=(DECOMPOSED, "run"))[0].labels == (0,)


@pytest.mark.parametrize("listed", [COMPOSED, DECOMPOSED])
def test_a_listed_path_is_found_in_the_other_unicode_form(listed, tmp_path):
    files = [f"{COMPOSED}/{DECOMPOSED}.mp4", f"{DECOMPOSED} 2/{COMPOSED} 1.mp4"]
    _touch(tmp_path, *files)
    rows = f"{listed}/{listed}.mp4,run\n{listed} 2/{listed} 1.mp4,run\n{listed}/gone.mp4,run\n"
    found = [video.path for video in create_source(_csv(tmp_path, rows)).videos]
    assert found == [str(tmp_path / file) for file in (*files, f"{COMPOSED}/gone.mp4")]


def test_a_listed_path_may_be_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/mine")
    [video] = create_source(_csv(tmp_path, "~/a.mp4,run\n")).videos
    assert (video.id, video.path) == ("~/a.mp4", "/home/mine/a.mp4")


def test_rows_in_both_unicode_forms_are_of_one_video(tmp_path):
    path = _csv(tmp_path, f"{COMPOSED}.mp4,run\n{DECOMPOSED}.mp4,jump\n")
    assert [video.labels for video in create_source(path).videos] == [(1, 0)]


def test_csv_without_header(tmp_path):
    text = 'a.mp4,run\n\n"b, c.mp4","jump, high",run,\n/data/d.mp4, run \n'
    source = create_source(_csv(tmp_path, text, "utf-8-sig"))
    assert source.classes == ("jump, high", "run")
    assert source.videos == (
        Video("a.mp4", str(tmp_path / "a.mp4"), (1,)),
        Video("b, c.mp4", str(tmp_path / "b, c.mp4"), (0, 1)),
        Video("/data/d.mp4", "/data/d.mp4", (1,)),
    )


def test_csv_with_header(tmp_path):
    source = create_source(
        _csv(
            tmp_path,
            "path,label,label,start,end,relevant_start,relevant_end\r\n"
            "a.mp4,run,jump,1.5,20,,\r\n"
            "a.mp4,run,,,,2,3\r\n"
            "a.mp4,run,,,,7.5,9\r\n"
            "b.mp4,jump,jump,4,,,\r\n",
        )
    )
    a, b = str(tmp_path / "a.mp4"), str(tmp_path / "b.mp4")
    assert source.videos == (
        Video("a.mp4#t=1.5,20", a, (1, 0), 1.5, 20.0),
        Video("a.mp4", a, (1,), relevant=((2.0, 3.0), (7.5, 9.0))),
        Video("b.mp4#t=4", b, (0,), 4.0),
    )


def test_repeated_rows_are_noted_and_left_out(tmp_path):
    path = _csv(tmp_path, "a.mp4,run\nb.mp4,run\na.mp4,run\n")
    source = create_source(path)
    assert [video.id for video in source.videos] == ["a.mp4", "b.mp4"]
    assert source.notes == (f"duplicate rows left out: 1, first {path}:3",)


def test_classes_come_from_the_training_data(tmp_path):
    path = _csv(tmp_path, "a.mp4,run\nb.mp4,jumping\n")
    assert create_source(path, classes=("run", "swim", "jumping"))[1].labels == (2,)
    _fails(path, ":2: 'jumping' is not a class; the closest is 'jump'", classes=("jump", "run"))


def test_integer_labels(tmp_path):
    path = _csv(tmp_path, "a.mp4,10\nb.mp4,9\nc.mp4,0\n")
    source = create_source(path)
    assert source.classes == ("0", "9", "10")  # by value
    assert [video.labels for video in source.videos] == [(2,), (1,), (0,)]
    assert create_source(path, classes=("10", "9", "0"))[0].labels == (0,)  # by name
    names = tuple(f"class{i}" for i in range(11))
    assert [v.labels for v in create_source(path, classes=names).videos] == [(10,), (9,), (0,)]
    _fails(path, ":1: label 10 is out of range; the 3 classes", classes=("run", "jump", "swim"))
    _fails(path, ":2: '9' is not a class; the closest is '10'", classes=("0", "10"))


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ["no videos in it"]),
        ("path,label\n", ["no videos in it"]),
        ("a.mp4\n", [":1: no label"]),
        ("a.mp4,\n", [":1: no label"]),
        ("a.mp4,run\n,run\n", [":2: no path"]),
        ("path\na.mp4\n", [":1: column 'label' is unknown, missing"]),
        ("path,label,stop\n", [":1: column 'stop' is unknown", "start, end"]),
        ("path,label,end,end\n", [":1: column 'end' is unknown, missing or there twice"]),
        ("path,label\na.mp4,run\nb.mp4,run,1\n", [":3: 3 columns where the header has 2"]),
        ("path,label,end\na.mp4,run\n", [":2: 2 columns where the header has 3"]),
        ("path,label,start\na.mp4,run,-1\n", [":2: start -1 is before the video", "seconds"]),
        ("path,label,start\na.mp4,run,nan\n", [":2: start: 'nan' instead of"]),
        ("path,label,end\na.mp4,run,inf\n", [":2: end: 'inf' instead of"]),
        ("path,label,end\na.mp4,run,1:30\n", [":2: end: '1:30' instead of"]),
        ("path,label,end\na.mp4,run,0\n", [":2: end 0 is not after start 0"]),
        ("path,label,start,end\na.mp4,run,5,5\n", [":2: end 5 is not after start 5"]),
        ("path,label,relevant_start\na.mp4,run,5\n", [":2: no 'relevant_end'"]),
        (
            "path,label,relevant_start,relevant_end\na.mp4,run,5,4\n",
            [":2: relevant: end 4 is not after start 5"],
        ),
        ('a.mp4,run\n"b.mp4,run\n', [":2: not CSV", "quotes"]),
    ],
)
def test_csv_mistakes(text, parts, tmp_path):
    _fails(_csv(tmp_path, text), *parts)


def test_text_in_another_encoding(tmp_path):
    _fails(_csv(tmp_path, "a.mp4,run\nb.mp4,größe\n", "latin-1"), ":2: not UTF-8 text")


def test_a_source_may_hold_videos_of_another_kind():
    class Counting(Sequence):
        def __len__(self):
            return 3

        def __getitem__(self, i):
            return Video(str(i), "", (0,))

    source = Source(Counting(), ("run",))
    assert len(source) == 3 and source[2].id == "2"


@pytest.mark.parametrize("head", ["", "path,label\n", "\nPath, Label\n"])
def test_rows_of_one_video_give_it_all_their_labels(head, tmp_path):
    path = tmp_path / "list.csv"
    path.write_text(head + "a.mp4,run\nb.mp4,run\na.mp4,jump\na.mp4,run\n")
    source = create_source(path)
    assert source.classes == ("jump", "run")
    assert [(v.id, v.labels) for v in source.videos] == [("a.mp4", (1, 0)), ("b.mp4", (1,))]
    assert len(source.notes) == 1 and "duplicate rows" in source.notes[0]


def test_columns_in_any_order_and_close_segments_apart(tmp_path):
    path = tmp_path / "list.csv"
    path.write_text("label,path,start\nrun,a.mp4,1234.561\nrun,a.mp4,1234.564\n")
    source = create_source(path)
    assert [v.id for v in source.videos] == ["a.mp4#t=1234.561", "a.mp4#t=1234.564"]


def test_a_tenth_of_every_class_is_held_out_and_never_trained_on(tmp_path):
    videos = [Video(f"{label}/{i}", "", (label,)) for label in range(3) for i in range(20)]
    source = Source(videos, ("a", "b", "c"))
    most, rest = (select_part(source, part, 0.1) for part in ("most", "held out"))
    assert len(most) == 54 and [v.labels for v in rest.videos] == [(n,) for n in (0, 0, 1, 1, 2, 2)]
    assert not {v.id for v in most.videos} & {v.id for v in rest.videos}
    fewer = Source(videos[::-1], source.classes)  # the choice depends on names alone
    assert {v.id for v in select_part(fewer, "held out", 0.1).videos} == {v.id for v in rest.videos}
    assert select_part(source, "all", 0.1) is source
