import pytest
from annotation_files import refuse, write_files

from sofnet_jax.data.annotations.benchmark import read_annotation
from sofnet_jax.data.annotations.clip import Clip
from sofnet_jax.data.annotations.files import Notes
from sofnet_jax.data.annotations.own import merge_rows
from sofnet_jax.data.source import create_source
from sofnet_jax.host.errors import UserError


def _read(folder, files):
    return read_annotation("videos", write_files(folder, files))


def _refuse(folder, files, *parts):
    refuse("videos", write_files(folder, files), *parts)


def _brief(annotation):
    return [(clip.id, clip.split, clip.path, *clip.labels) for clip in annotation.clips]


def test_csv_with_all_columns(tmp_path):
    rows = (
        "path,label,label,split,start,end,relevant_start,relevant_end,id\n"
        "a.mp4,run,jump,train,1.5,20,,,first\n"
        'deep/b c.mp4,"swim, fast",,validation,,,2,3,\n'
        'deep/b c.mp4,"swim, fast",,test,,,7.5,9,\n'
    )
    annotation = _read(tmp_path, {"all.csv": rows})
    assert annotation.clips == (
        Clip(
            id="first",
            split="train",
            labels=("run", "jump"),
            place=f"{tmp_path}/all.csv:2",
            path="a.mp4",
            start=1.5,
            end=20.0,
        ),
        Clip(
            id="deep/b c.mp4",
            split="val",
            labels=("swim, fast",),
            place=f"{tmp_path}/all.csv:3",
            path="deep/b c.mp4",
            segments=((2.0, 3.0), (7.5, 9.0)),
        ),
    )
    assert annotation.classes == ("jump", "run", "swim, fast") and annotation.notes == ()


def test_json(tmp_path):
    videos = [
        {"path": "a.mp4", "label": "run", "split": "train", "segments": [[1, 2], [3, 4.5]]},
        {"path": "b.mp4", "labels": ["run", "jump"], "split": "val", "start": 2, "id": "b"},
        {"path": "b.mp4", "label": 3, "split": "val", "fps": 25, "segments": []},
    ]
    for document in (videos, {"videos": videos}):
        annotation = _read(tmp_path, {"all.json": document})
        where = ": " if document is videos else ": videos"
        assert annotation.clips == (
            Clip(
                id="a.mp4",
                split="train",
                labels=("run",),
                place=f"{tmp_path}/all.json{where}[0]",
                path="a.mp4",
                segments=((1.0, 2.0), (3.0, 4.5)),
            ),
            Clip(
                id="b",
                split="val",
                labels=("run", "jump"),
                place=f"{tmp_path}/all.json{where}[1]",
                path="b.mp4",
                start=2.0,
            ),
            Clip(
                id="b.mp4",
                split="val",
                labels=("3",),
                place=f"{tmp_path}/all.json{where}[2]",
                path="b.mp4",
            ),
        )
        assert annotation.notes == (
            f"unknown keys: ignored: 1, first {tmp_path}/all.json{where}[2].fps",
        )


def test_the_split_comes_from_the_column_the_file_or_the_path(tmp_path):
    assert _brief(_read(tmp_path, {"my_val.csv": "a.mp4,run\n"}))[0][1] == "val"
    assert _brief(_read(tmp_path, {"train/x.csv": "a.mp4,run\n"}))[0][1] == "train"
    assert _brief(_read(tmp_path, {"x.csv": "training/run/a.mp4,run\n"}))[0][1] == "train"
    rows = "path,label,split\na.mp4,run,\nb.mp4,run,train\n"
    assert [row[1] for row in _brief(_read(tmp_path, {"val.csv": rows}))] == ["train", "val"]
    _refuse(tmp_path, {"x.csv": "run/a.mp4,run\n"}, "x.csv: split unknown; put train or val")
    rows = "path,label,split\na.mp4,run,holdout\n"
    _refuse(tmp_path, {"x.csv": rows}, "x.csv:2: 'holdout' is not a split; write train or val")


def test_rows_of_one_video_and_videos_of_both_splits(tmp_path):
    files = {
        "train.csv": "a.mp4,run\nb.mp4,run\na.mp4,jump\na.mp4,run\n",
        "val.csv": "./b.mp4,run\n",
    }
    annotation = _read(tmp_path, files)
    assert _brief(annotation) == [
        ("a.mp4", "train", "a.mp4", "run", "jump"),
        ("b.mp4", "train", "b.mp4", "run"),
        ("b.mp4", "val", "b.mp4", "run"),
    ]
    assert annotation.notes == (
        f"duplicate rows left out: 1, first {tmp_path}/train.csv:4",
        "videos in both splits, so that validation sees training data: 1, first "
        f"b.mp4 ({tmp_path}/val.csv:1)",
    )


def test_one_path_in_several_spellings_is_one_video(tmp_path):
    rows = "d/a.mp4,run\n./d//a.mp4,jump\nd/./a.mp4,run\n.//tmp/x.mp4,run\n"
    assert _brief(_read(tmp_path, {"train.csv": rows})) == [
        ("d/a.mp4", "train", "d/a.mp4", "run", "jump"),
        ("tmp/x.mp4", "train", "tmp/x.mp4", "run"),
    ]
    _refuse(tmp_path, {"train.csv": "./,run\n"}, "train.csv:1: './' is not a video path")


def test_one_class_in_two_unicode_forms_is_one(tmp_path):
    """As macOS decomposes the names of files."""
    annotation = _read(tmp_path, {"train.csv": "a.mp4,Kyu\u0304do\u0304\nb.mp4,Ky\u016bd\u014d\n"})
    assert annotation.classes == ("Ky\u016bd\u014d",)


def test_folders_of_the_system_are_neither_splits_nor_classes(tmp_path):
    write_files(tmp_path, dict.fromkeys(("train/run/a.mp4", "train/@eaDir/b.mp4"), ""))
    write_files(tmp_path, dict.fromkeys(("__MACOSX/train/run/a.mp4", "val/run/b.mp4"), ""))
    annotation = read_annotation("videos", [tmp_path])
    assert annotation.classes == ("run",) and len(annotation.clips) == 2
    assert annotation.notes == (f"folders of the system left out: 2, first {tmp_path}/__MACOSX",)


@pytest.mark.parametrize("closed", [".", "val", "val/run"])
@pytest.mark.parametrize("name", ["videos", "activitynet"])
def test_a_folder_that_cannot_be_read_is_named(name, closed, tmp_path, close_folder):
    write_files(tmp_path, {"train/run/a.mp4": "", "val/run/b.mp4": ""})
    close_folder(tmp_path / closed)
    message = refuse(name, [tmp_path])
    assert message.startswith(f"{tmp_path / closed}: cannot be read (Permission denied)")


def test_one_name_in_both_splits_is_of_two_videos(tmp_path):
    for split in ("train", "val"):
        (tmp_path / split / "run").mkdir(parents=True)
        (tmp_path / split / "run/1.mp4").touch()
    annotation = read_annotation("videos", [tmp_path])
    assert [clip.id for clip in annotation.clips] == ["run/1.mp4"] * 2
    assert not any("both splits" in note for note in annotation.notes)


def test_integer_labels_are_in_the_order_of_their_values(tmp_path):
    assert _read(tmp_path, {"train.csv": "a.mp4,10\nb.mp4,9\nc.mp4,0\n"}).classes == (
        "0",
        "9",
        "10",
    )
    huge = "9" * 900
    annotation = _read(tmp_path, {"train.csv": f"a.mp4,{huge}\nb.mp4,10\n"})
    assert annotation.classes == ("10", huge)
    assert create_source(tmp_path / "train.csv").classes == ("10", huge)


@pytest.mark.parametrize("given", [("",), ("train", "val"), ("val", "train")])
def test_folder_per_class(given, tmp_path):
    names = ["train/run/a.mp4", "train/jump/deep/b.avi", "val/run/a.mp4", "val/run/notes.txt"]
    write_files(tmp_path, dict.fromkeys(names, ""))
    annotation = read_annotation("videos", [tmp_path / folder for folder in given])
    assert sorted(_brief(annotation)) == [
        ("jump/deep/b.avi", "train", "train/jump/deep/b.avi", "jump"),
        ("run/a.mp4", "train", "train/run/a.mp4", "run"),
        ("run/a.mp4", "val", "val/run/a.mp4", "run"),
    ]
    assert annotation.classes == ("jump", "run")
    kind = "files that are not videos by their names: left out"
    assert f"{kind}: 1, first {tmp_path}/val/run/notes.txt" in annotation.notes
    # Training straight from the folder names the videos likewise.
    ids = [video.id for video in create_source(tmp_path / "train").videos]
    assert sorted(ids) == sorted(clip.id for clip in annotation.clips if clip.split == "train")


def test_folders_that_tell_too_little(tmp_path):
    def refuse(*parts):
        with pytest.raises(UserError) as caught:
            read_annotation("videos", [tmp_path])
        assert str(caught.value).startswith(str(tmp_path)) and str(caught.value).isprintable()
        for part in parts:
            assert part in str(caught.value)

    write_files(tmp_path, {"README.txt": "x"})
    refuse("no sub-folders")
    write_files(tmp_path, {"run/a.mp4": ""})
    refuse("split unknown; put the folders of the classes into folders train and val")


def test_a_folder_of_files_that_tell_of_videos(tmp_path):
    files = {
        "train.csv": "path,label\nrun/a.mp4,run\n",
        "val.json": [{"path": "run/b.mp4", "label": "run"}],
        "sizes.csv": "file,bytes\nrun/a.mp4,100\n",
        "other.json": {"a": 1},
        "broken.json": "{",
        "empty.csv": "",
        "run/a.mp4": "",
    }
    write_files(tmp_path, files)
    annotation = read_annotation("videos", [tmp_path])
    assert _brief(annotation) == [
        ("run/a.mp4", "train", "run/a.mp4", "run"),
        ("run/b.mp4", "val", "run/b.mp4", "run"),
    ]
    assert annotation.notes == (f"files without videos left out: 4, first {tmp_path}/broken.json",)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("path,label\n", [": no videos in it"]),
        ("a.mp4\n", [":1: no label"]),
        ("a.mp4,run\n,run\n", [":2: no path"]),
        ("label,path\nrun,\n", [":2: no path"]),
        ("path,label,stop\n", [":1: column 'stop' is unknown", "split, id"]),
        ("path,label,split,split\n", [":1: column 'split' is unknown, missing or there twice"]),
        ("path,label\na.mp4,run,x\n", [":2: 3 columns where the header has 2"]),
        ("path,label,end\na.mp4,run,-1\n", [":2: end -1 is not after start 0"]),
        ("video,class\na.mp4,run\n", [":1: 'video' is not a video", "call them path, label"]),
        ("name,class\nfirst,run\nb/a.mp4,run\n", [":1: 'name' is not a video"]),
        ("path,label,end\na.mp4,run,nan\n", [":2: end: 'nan' instead of a number"]),
        ("path,label,end\na.mp4,run,1e999\n", [":2: end: '1e999' instead of"]),
        ("path,label,start,end\na.mp4,run,5,4\n", [":2: end 4 is not after start 5"]),
        (
            "path,label,relevant_start,relevant_end\na.mp4,run,5,4\n",
            [":2: relevant: end 4 is not after start 5"],
        ),
        ("../a.mp4,run\n", [":1: the path '../a.mp4' leaves the video folder"]),
        ("a/../../b.mp4,run\n", [":1: the path", "leaves the video folder"]),
        ("/data/a.mp4,run\n", [":1: the path '/data/a.mp4' leaves the video folder"]),
        ("C:\\a.mp4,run\n", [":1: the path", "leaves the video folder"]),
        ("\\\\server\\a.mp4,run\n", [":1: the path", "leaves the video folder"]),
        ("a\x1b.mp4,run\n", [r":1: 'a\x1b.mp4' is not a video path"]),
        (f"{'a' * 5000},run\n", [":1: 'aaa", "is not a video path"]),
        ("a.mp4,r\x1bn\n", [r":1: 'r\x1bn' is not a class name"]),
        ("a.mp4,run\nb.mp4,r\0n\n", [":2: not text (a NUL byte)"]),
        ('"a.mp4,run\n', [":1: not CSV", "quotes"]),
        ("path,label,id\na.mp4,run,../x\n", [":2: the path '../x' leaves the video folder"]),
        ("path,label,id\na.mp4,run,x\nb.mp4,run,x\n", [":3: its id is that of", "train.csv:2"]),
        ("path,label,id\na.mp4,run,b.mp4\nb.mp4,run,\n", [":3: its id is that of"]),
    ],
)
def test_csv_that_is_broken(text, parts, tmp_path):
    _refuse(tmp_path, {"train.csv": text}, f"{tmp_path}/train.csv", *parts)


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"path": None}, ["[1]: no path"]),
        ({"path": ""}, ["[1]: no path"]),
        ({"path": 3}, ["[1].path: '3' instead of text"]),
        ({"path": "../a.mp4"}, ["[1]: the path '../a.mp4' leaves the video folder"]),
        ({"path": "/a.mp4"}, ["[1]: the path '/a.mp4' leaves the video folder"]),
        ({"path": "a\0.mp4"}, [r"[1]: 'a\x00.mp4' is not a video path"]),
        ({"path": "a\ud800.mp4"}, [r"[1]: 'a\ud800.mp4' is not a video path"]),
        ({"label": None}, ["[1]: no label; write at least one"]),
        ({"label": " "}, ["[1]: no label"]),
        ({"label": "r\nn"}, [r"[1]: 'r\nn' is not a class name"]),
        ({"label": None, "labels": []}, ["[1]: no label"]),
        ({"label": None, "labels": "run"}, ["[1].labels: 'run' instead of a list"]),
        ({"label": 1.5}, ["[1].label: '1.5' instead of text"]),
        ({"label": True}, ["[1].label: 'True' instead of a number"]),
        ({"label": 10**40}, ["[1].label: '10000000", "' instead of a number"]),
        ({"split": "x"}, ["[1]: 'x' is not a split"]),
        ({"start": -1}, ["[1]: start -1 is before the video"]),
        ({"start": "1:30"}, ["[1].start: '1:30' instead of a number"]),
        ({"start": 5, "end": 5}, ["[1]: end 5 is not after start 5"]),
        ({"segments": [[1, 2], [4, 3]]}, ["[1]: relevant: end 3 is not after start 4"]),
        ({"segments": [[-1, 2]]}, ["[1]: relevant: start -1 is before the video"]),
        ({"segments": [[1]]}, ["[1].segments[0]: a list of 1 instead of a list of two numbers"]),
        ({"segments": {"a": 1}}, ["[1].segments: an object of 1 instead of a list"]),
        ({"id": "../../x"}, ["[1]: the path '../../x' leaves the video folder"]),
        ({"id": 5}, ["[1].id: '5' instead of text"]),
    ],
)
def test_json_that_is_broken(change, parts, tmp_path):
    good = {"path": "a.mp4", "label": "run"}
    videos = [good, {"path": "b.mp4", "label": "run"} | change]
    _refuse(tmp_path, {"train.json": videos}, f"{tmp_path}/train.json: ", *parts)


@pytest.mark.parametrize(
    ("document", "parts"),
    [
        ([], [": no videos in it"]),
        ([1], ["[0]: '1' instead of an object"]),
        ({}, [": no 'videos'"]),
        ({"videos": {}}, ["videos: an object of 0 instead of a list"]),
        ("[1e999]", ["[0]: 'inf' instead of an object"]),
    ],
)
def test_json_of_another_shape(document, parts, tmp_path):
    _refuse(tmp_path, {"train.json": document}, f"{tmp_path}/train.json: ", *parts)


class _Counted(str):
    """A label that counts how often it is compared."""

    comparisons = 0

    def __eq__(self, other):
        _Counted.comparisons += 1
        return super().__eq__(other)

    __hash__ = str.__hash__


def test_many_rows_of_one_video_are_not_all_compared_with_each_other():
    count = 2000
    rows = [Clip("a", "", (_Counted(i % 1000),), f"a:{i}") for i in range(count)]
    notes = Notes()
    (clip,) = merge_rows(rows, notes)
    assert clip.labels == tuple(map(str, range(1000)))
    assert notes.lines() == ("duplicate rows left out: 1,000, first a:1000",)
    assert _Counted.comparisons < 10 * count
