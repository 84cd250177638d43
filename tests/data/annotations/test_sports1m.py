import pytest
from annotation_files import refuse, write_files

from sofnet_jax.data.annotations.benchmark import read_annotation
from sofnet_jax.data.annotations.clip import Clip

A, B, C = "aaaaaaaaaaa", "-bbbbbbbbbb", "ccc_cccccc-"
LABELS = "boomerang\nboxing\nyağlı güreş\nkyūdō\n"


def _read(folder, files):
    return read_annotation("mini_sports1m", write_files(folder, files))


def _refuse(folder, files, *parts):
    refuse("mini_sports1m", write_files(folder, files), *parts)


def _video(id, source, *labels, **more):
    return {
        "id": id,
        "source487": source,
        "label487": list(labels),
        "duration": 144,
        "height": 270,
        "width": 480,
        "title": "Sprint",
        "stitle": "Sprint",
        "thumbnail": f"https://i1.ytimg.com/vi/{id}/hqdefault.jpg",
    } | more


OFFICIAL = [_video(A, "train", 1, 3), _video(B, "test", 2, duration="60"), _video(C, "train", 0)]
LINE = "https://www.youtube.com/watch?v={} {}\n"


def _brief(annotation):
    return [(clip.id, clip.split, *clip.labels) for clip in annotation.clips]


def test_official_json(tmp_path):
    annotation = _read(tmp_path, {"sports1m.json": OFFICIAL, "labels.txt": LABELS})
    assert annotation.clips[:2] == (
        Clip(
            id=A,
            split="train",
            labels=("boxing", "kyūdō"),
            place=f"{tmp_path}/sports1m.json: [0]",
            names=(A,),
            duration=144.0,
        ),
        Clip(
            id=B,
            split="val",
            labels=("yağlı güreş",),
            place=f"{tmp_path}/sports1m.json: [1]",
            names=(B,),
            duration=60.0,
        ),
    )
    assert annotation.classes == tuple(sorted(LABELS.split("\n")[:4])) and annotation.notes == ()


def test_official_partitions(tmp_path):
    files = {
        "train_partition.txt": LINE.format(A, "1, 3") + f"http://youtube.com/watch?v={B}&f=x 2\n",
        "test_partition.txt": f"https://youtu.be/{C} 0\r\n",
        "labels.txt": LABELS,
        "sports_mids.txt": "/m/010dmf,boxing\n/m/0q,boomerang\n",
    }
    annotation = _read(tmp_path, files)
    assert _brief(annotation) == [
        (A, "train", "boxing", "kyūdō"),
        (B, "train", "yağlı güreş"),
        (C, "val", "boomerang"),
    ]
    assert annotation.clips[1].place == f"{tmp_path}/train_partition.txt:2"


def test_a_list_picks_a_subset(tmp_path):
    files = {"all.json": OFFICIAL, "labels.txt": LABELS}
    for rows in (f"{A}\n", f"{A} 100 1\n", f"videos/{A}.mp4 100 3\n"):
        annotation = _read(tmp_path, files | {"train.txt": rows})
        assert _brief(annotation) == [(A, "train", "boxing", "kyūdō"), (B, "val", "yağlı güreş")]
        assert f"left out: 1, first {C} ({tmp_path}/all.json: [2])" in annotation.notes[-1]
        assert annotation.clips[0].duration == 144.0 and annotation.clips[0].path is None


def test_a_list_of_files(tmp_path):
    """Numbers of files are those of one folder only: 00018 is in both."""
    files = {
        "mini_train.csv": "train/23701 716 1\r\ntrain/00018 31 0\r\n",
        "mini_test.csv": "test/00018 1410 3\r\n",
        "labels.txt": LABELS,
    }
    annotation = _read(tmp_path, files)
    assert annotation.clips == (
        Clip(
            id="train/23701",
            split="train",
            labels=("boxing",),
            place=f"{tmp_path}/mini_train.csv:1",
            path="train/23701",
            num_frames=716,
        ),
        Clip(
            id="train/00018",
            split="train",
            labels=("boomerang",),
            place=f"{tmp_path}/mini_train.csv:2",
            path="train/00018",
            num_frames=31,
        ),
        Clip(
            id="test/00018",
            split="val",
            labels=("kyūdō",),
            place=f"{tmp_path}/mini_test.csv:1",
            path="test/00018",
            num_frames=1410,
        ),
    )
    assert annotation.notes == tuple(
        f"{tmp_path}/mini_{split}.csv: labels are read by {tmp_path}/labels.txt, counted from 0; "
        "no given file confirms it"
        for split in ("train", "test")
    )


def test_labels_of_another_order_are_refused(tmp_path):
    files = {
        "all.json": OFFICIAL,
        "labels.txt": LABELS,
        "train.txt": f"{A} 9 0\n{C} 9 1\nddddddddddd 9 2\n",
    }
    _refuse(tmp_path, files, "train.txt: its numbers do not follow", "only 0 of 2 videos")


def test_videos_that_are_told_of_twice(tmp_path):
    files = {"a.json": [*OFFICIAL, OFFICIAL[0], _video(C, "test", 0)], "labels.txt": LABELS}
    annotation = _read(tmp_path, files)
    assert len(annotation.clips) == 3
    assert annotation.notes == (
        f"duplicate rows left out: 2, first {tmp_path}/a.json: [3]",
        "videos in another split by a second file: a list, or else the first, counts: 1, first "
        f"{tmp_path}/a.json: [2] train, {tmp_path}/a.json: [4] val",
    )
    files["a.json"] = [*OFFICIAL, _video(A, "train", 1)]
    _refuse(tmp_path, files, f"a.json: [3]: {A} has different labels in {tmp_path}/a.json: [0]")


def test_files_without_what_they_need(tmp_path):
    _refuse(tmp_path, {"a.json": OFFICIAL}, "a.json: its labels are numbers, and 0 files name")
    _refuse(
        tmp_path,
        {"train.txt": f"{A} 9 1\n"},
        "train.txt: its numbers do not follow any file of class names; give the m",
    )
    _refuse(tmp_path, {"labels.txt": LABELS}, "labels.txt: no file describes videos; give the JSON")
    files = {"a.json": OFFICIAL, "labels.txt": LABELS, "b_labels.txt": LABELS}
    _refuse(tmp_path, files, "a.json: its labels are numbers, and 2 files name the classes")
    files = {"partition.txt": LINE.format(A, 1), "labels.txt": LABELS}
    _refuse(tmp_path, files, "partition.txt: split unknown; put train")


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"id": "../x"}, ["[1].id: '../x' is not a video id"]),
        ({"id": "/x"}, ["[1].id: '/x' is not a video id"]),
        ({"id": "a\0b"}, [r"[1].id: 'a\x00b' is not a video id"]),
        ({"id": 5}, ["[1].id: '5' instead of text"]),
        ({"id": None}, ["[1]: no 'id'"]),
        ({"source487": "extra"}, ["[1].source487: 'extra' is not a split; write train"]),
        ({"source487": 1}, ["[1].source487: '1' instead of text"]),
        ({"label487": 3}, ["[1].label487: '3' instead of a list"]),
        ({"label487": ["x"]}, ["[1].label487[0]: 'x' instead of a number"]),
        ({"label487": [1, 4]}, ["[1].label487: label 4 is none of 4 classes"]),
        ({"label487": [-1]}, ["[1].label487[0]: '-1' instead of a number such as 12"]),
        ({"label487": [10**50]}, ["[1].label487[0]: '1000000", "' instead of a number"]),
        ({"label487": [1.0]}, ["[1].label487[0]: '1.0' instead of a number"]),
        ({"duration": "long"}, ["[1].duration: 'long' instead of a number"]),
        ({"duration": [1]}, ["[1].duration: a list of 1 instead of a number"]),
    ],
)
def test_json_that_is_broken(change, parts, tmp_path):
    files = {"a.json": [OFFICIAL[0], OFFICIAL[1] | change], "labels.txt": LABELS}
    _refuse(tmp_path, files, f"{tmp_path}/a.json: ", *parts)
    files["a.json"] = [OFFICIAL[0], 7]
    _refuse(tmp_path, files, "a.json: [1]: '7' instead of an object")


def test_oddities_of_the_json_are_noted(tmp_path):
    videos = [OFFICIAL[0], _video(B, "test"), _video(C, "test", 1, 1, duration=-5)]
    annotation = _read(tmp_path, {"a.json": videos, "labels.txt": LABELS})
    assert _brief(annotation) == [(A, "train", "boxing", "kyūdō"), (C, "val", "boxing")]
    assert annotation.clips[1].duration is None
    assert annotation.notes == (
        f"durations that are not positive: taken as unknown: 1, first {tmp_path}/a.json: "
        "[2].duration",
        f"videos without a label: left out: 1, first {tmp_path}/a.json: [1]",
    )


@pytest.mark.parametrize(
    ("row", "parts"),
    [
        (f"https://www.youtube.com/watch?v={B}", ["is not a YouTube address and labels"]),
        (f"https://example.org/watch?v={B} 1", ["is not a YouTube address and labels"]),
        (LINE.format("../../../x", 1), ["not a YouTube address"]),
        (LINE.format(B, "1;2"), ["'1;2' instead of"]),
        (LINE.format(B, "1,,2"), ["'' instead of"]),
        (LINE.format(B, "4"), ["label 4 is none of 4 classes"]),
        (LINE.format(B, "9" * 5000), ["'9999"]),
        (LINE.format(A, "2"), [f"{A} has different labels in"]),
        ("x\x1b[2J", [r"'x\x1b[2J' is not a YouTube address"]),
    ],
)
def test_partitions_that_are_broken(row, parts, tmp_path):
    files = {"train.txt": LINE.format(A, "1") + row.strip() + "\n", "labels.txt": LABELS}
    _refuse(tmp_path, files, f"{tmp_path}/train.txt:2: ", *parts)


@pytest.mark.parametrize(
    ("row", "parts"),
    [
        ("train/2 9", ["train.txt:2: ", "is not a row 'id,frames,label'"]),
        ("train/2 9 x", ["train.txt:2: ", "is not a row 'id,frames,label'"]),
        ("train/2 -9 1", ["train.txt:2: ", "is not a row 'id,frames,label'"]),
        ("train/2 9 4", ["train.txt:2: label 4 is none of 4 classes in"]),
        ("train/1 9 2", ["train.txt:2: ", "has different labels in", "train.txt:1"]),
        ("train/../../2 9 1", ["train.txt:2: the path", "leaves the video folder"]),
        ("/train/2 9 1", ["train.txt:2: the path '/train/2' leaves the video folder"]),
        ("train/\x1b2 9 1", [r"train.txt:2: 'train/\x1b2' is not a video path"]),
    ],
)
def test_lists_that_are_broken(row, parts, tmp_path):
    files = {"train.txt": f"train/1 9 1\n{row}\n", "labels.txt": LABELS}
    _refuse(tmp_path, files, f"{tmp_path}/", *parts)
