import pytest
from annotation_files import refuse, write_files

from sofnet_jax.data.annotations.benchmark import read_annotation
from sofnet_jax.data.annotations.clip import Clip

A, B, C = "aaaaaaaaaaa", "-bbbbbbbbbb", "ccc_cccccc-"
CLASSES = "air drumming\npassing American football (in game)\nyoga\n"
HEAD = "label,youtube_id,time_start,time_end,split,is_cc\n"


def _read(folder, files):
    return read_annotation("mini_kinetics", write_files(folder, files))


def _refuse(folder, files, *parts):
    refuse("mini_kinetics", write_files(folder, files), *parts)


def _brief(annotation):
    return [(clip.id, clip.split, *clip.labels) for clip in annotation.clips]


def test_list_with_spaces_in_its_paths(tmp_path):
    rows = (
        f"images/val/air drumming/{A}_000007_000017 60 0\n"
        f"images/train/passing American football (in game)/{B}_000100_000110 300 1\n"
        f"images/val/yoga/{C}_000000_000010 1 2"  # as the public list ends
    )
    annotation = _read(tmp_path, {"videofolder.txt": rows, "classInd.txt": CLASSES})
    assert annotation.clips == (
        Clip(
            id=f"{A}_000007_000017",
            split="val",
            labels=("air drumming",),
            place=f"{tmp_path}/videofolder.txt:1",
            names=(A,),
            trimmed=(f"{A}_000007_000017",),
            start=7.0,
            end=17.0,
            num_frames=60,
        ),
        Clip(
            id=f"{B}_000100_000110",
            split="train",
            labels=("passing American football (in game)",),
            place=f"{tmp_path}/videofolder.txt:2",
            names=(B,),
            trimmed=(f"{B}_000100_000110",),
            start=100.0,
            end=110.0,
            num_frames=300,
        ),
        Clip(
            id=f"{C}_000000_000010",
            split="val",
            labels=("yoga",),
            place=f"{tmp_path}/videofolder.txt:3",
            names=(C,),
            trimmed=(f"{C}_000000_000010",),
            start=0.0,
            end=10.0,
            num_frames=1,
        ),
    )
    assert annotation.classes == tuple(CLASSES.splitlines()) and annotation.notes == ()


@pytest.mark.parametrize("row", ["{}_000007_000017.mp4 60 0", "x y/{}_000007_000017,60,0"])
def test_other_forms_of_a_list(row, tmp_path):
    annotation = _read(tmp_path, {"val.txt": row.format(A), "classInd.txt": CLASSES})
    assert _brief(annotation) == [(f"{A}_000007_000017", "val", "air drumming")]
    annotation = _read(tmp_path, {"val.txt": f"{A} 60 2\n", "classInd.txt": CLASSES})
    assert _brief(annotation) == [(A, "val", "yoga")]
    assert annotation.clips[0].names == (A,) and annotation.clips[0].start is None


def test_official_csv_with_the_names_of_the_classes(tmp_path):
    train = HEAD + f'"yoga",{A},417,427,train,0\nabseiling,{B},0,10,train,1\n'
    val = HEAD + f"air drumming,{C},5,15,validate,0\nyoga,{C},5,15,test,0\n"
    annotation = _read(tmp_path, {"a.csv": train, "b.csv": val, "classInd.txt": CLASSES})
    assert annotation.clips == (
        Clip(
            id=f"{A}_000417_000427",
            split="train",
            labels=("yoga",),
            place=f"{tmp_path}/a.csv:2",
            names=(A,),
            trimmed=(f"{A}_000417_000427",),
            start=417.0,
            end=427.0,
        ),
        Clip(
            id=f"{C}_000005_000015",
            split="val",
            labels=("air drumming",),
            place=f"{tmp_path}/b.csv:2",
            names=(C,),
            trimmed=(f"{C}_000005_000015",),
            start=5.0,
            end=15.0,
        ),
    )
    assert annotation.notes == (
        f"rows of Kinetics' test set, or without a label: left out: 1, first {tmp_path}/b.csv:3",
        f"rows of Kinetics' CSV with other classes: left out: 1, first {tmp_path}/a.csv:3",
    )


def test_csv_without_the_names_of_the_classes(tmp_path):
    rows = [f"class {i},{i:011d},0,10,train\n" for i in range(201)]
    head = HEAD.replace(",is_cc", "")
    assert len(_read(tmp_path, {"a.csv": head + "".join(rows[:200])}).classes) == 200
    _refuse(tmp_path, {"a.csv": head + "".join(rows)}, "a.csv:2: 201 classes; give the file with")


def test_a_list_picks_from_the_csv_in_its_split(tmp_path):
    csv = HEAD + "".join(
        f"yoga,{id},{start},{start + 10},{split},0\n"
        for id, start, split in [(A, 1, "val"), (B, 2, "val"), (C, 3, "train")]
    )
    files = {"k.csv": csv, "classInd.txt": CLASSES, "val.txt": f"{B}_000002_000012 250 2\n"}
    annotation = _read(tmp_path, files)
    assert _brief(annotation) == [
        (f"{B}_000002_000012", "val", "yoga"),
        (f"{C}_000003_000013", "train", "yoga"),
    ]
    assert annotation.clips[0].num_frames == 250
    assert annotation.notes == (
        f"videos in no list of their split: left out: 1, first {A}_000001_000011 "
        f"({tmp_path}/k.csv:2)",
    )
    # So does a list of whole videos, or of ids alone.
    for row in (f"{B} 250 2\n", f"{B}\n"):
        annotation = _read(tmp_path, files | {"val.txt": row})
        assert [(c.id, c.start) for c in annotation.clips if c.split == "val"] == [
            (f"{B}_000002_000012", 2.0)
        ]


def test_names_of_classes_are_one_however_they_are_spelled(tmp_path):
    """The end of a public class list is damaged; folders have no blanks; the CSV is right."""
    csv = HEAD + f"yoga,{A},0,10,val,0\nair drumming,{B},0,10,val,0\n"
    files = {
        "val.txt": f"val/Air_Drumming/{B}_000000_000010 9 0\nval/yoga/{A}_000000_000010 9 2\n",
        "classes.txt": CLASSES.replace("yoga\n", "yoga''."),
    }
    expected = [
        (f"{B}_000000_000010", "val", "air drumming"),
        (f"{A}_000000_000010", "val", "yoga"),
    ]
    annotation = _read(tmp_path, files | {"k.csv": csv})
    assert _brief(annotation) == expected and annotation.classes == tuple(CLASSES.splitlines())
    assert annotation.notes == ()
    assert _brief(_read(tmp_path, files)) == expected  # the folders prove it as well
    assert _brief(_read(tmp_path, files | {"names.txt": CLASSES})) == expected


def test_folders_tell_the_classes(tmp_path):
    paths = [f"val/yoga/{A}_000000_000010 9 ", f"val/air drumming/{B}_000000_000010 9 "]
    expected = [
        (f"{A}_000000_000010", "val", "yoga"),
        (f"{B}_000000_000010", "val", "air drumming"),
    ]
    # Without a class index they alone do, and against one of another order all of them do.
    for files in ({}, {"classes.txt": CLASSES}):
        annotation = _read(tmp_path, files | {"list.txt": f"{paths[0]}0\n{paths[1]}1\n"})
        assert _brief(annotation) == expected
        assert any("all labels are taken by name" in note for note in annotation.notes)
    # One that contradicts its number is named all the same.
    rows = f"{paths[0]}2\n{paths[1]}0\nval/yoga/{C}_000000_000010 9 1\n"
    files = {"list.txt": rows, "classes.txt": CLASSES}
    annotation = _read(tmp_path, files)
    assert _brief(annotation)[2] == (f"{C}_000000_000010", "val", "yoga")
    assert f"names win: 1, first {tmp_path}/list.txt:3 passing" in "\n".join(annotation.notes)
    # The CSV wins over the folder.
    csv = HEAD + f"yoga,{C},0,10,val,0\n"
    annotation = _read(tmp_path, files | {"k.csv": csv})
    assert _brief(annotation)[2] == (f"{C}_000000_000010", "val", "yoga")
    csv = HEAD + f"air drumming,{C},0,10,val,0\n"
    annotation = _read(tmp_path, files | {"k.csv": csv})
    assert _brief(annotation)[2] == (f"{C}_000000_000010", "val", "air drumming")
    assert f"names win: 1, first {tmp_path}/list.txt:3 passing" in "\n".join(annotation.notes)


OTHER = (
    HEAD
    + f"abseiling,{A},0,10,val,0\nyoga,{B},0,10,val,0\n"
    + "".join(f"class {i},{i:011d},0,10,val,0\n" for i in range(198))
)
NOTE = "another Mini-Kinetics-200 (80,000 and 5,000 clips) than the paper's (121,215 and 9,867)"


def test_the_other_mini_kinetics_is_named_and_never_mixed(tmp_path):
    files = {
        "s9xie.csv": OTHER,
        "val.txt": f"val/yoga/{C}_000000_000010 9 2\n",
        "classes.txt": CLASSES,
    }
    _refuse(tmp_path, files, f"{tmp_path}/s9xie.csv: of {NOTE}; leave it out")
    annotation = read_annotation("mini_kinetics", [tmp_path])
    assert _brief(annotation) == [(f"{C}_000000_000010", "val", "yoga")]
    assert f"files left out, which are of {NOTE}: 1, first {tmp_path}/s9xie.csv" in annotation.notes
    _refuse(tmp_path, {"s9xie.csv": OTHER, "classes.txt": CLASSES}, "s9xie.csv: of another")


def test_the_other_mini_kinetics_alone_is_read(tmp_path):
    files = {"s9xie.csv": OTHER, "val_ids.txt": f"{B}\n", "train_ids.txt": f"{C}\n"}
    annotation = _read(tmp_path, files)
    assert _brief(annotation) == [(f"{B}_000000_000010", "val", "yoga")]
    assert annotation.notes[0] == f"this is {NOTE}: do not compare with the paper's numbers"
    assert f"videos without a label: left out: 1, first {tmp_path}/train_ids.txt:1" in (
        annotation.notes
    )


def test_ids_alone_are_the_others_by_their_number(tmp_path):
    csv = HEAD + f"yoga,{A},0,10,val,0\nabseiling,{B},0,10,val,0\n"
    rows = [f"class {i},{i:011d},0,10,train,0\n" for i in range(200)]
    files = {"k.csv": csv + "".join(rows), "classes.txt": CLASSES, "val_ids.txt": f"{A}\n{B}\n"}
    annotation = _read(tmp_path, files)
    assert _brief(annotation) == [(f"{A}_000000_000010", "val", "yoga")]
    assert f"videos without a label: left out: 1, first {tmp_path}/val_ids.txt:2" in (
        annotation.notes
    )
    files["val_ids.txt"] = "".join(f"{i:011d}\n" for i in range(1000, 6000))
    _refuse(tmp_path, files, "val_ids.txt: of another Mini-Kinetics-200")
    files["val_ids.txt"] = f"{A}\n"
    assert _brief(_read(tmp_path, files)) == [(f"{A}_000000_000010", "val", "yoga")]
    _refuse(tmp_path, {"val_ids.txt": f"{A}\n"}, "val_ids.txt: no file describes clips")


@pytest.mark.parametrize(
    ("rows", "parts"),
    [
        (f"yoga,{A},0,10,val,0,1\n", [":2: 7 columns where the header has 6"]),
        (f"yoga,{A},0,10\n", [":2: 4 columns where the header has 6"]),
        (f"yoga,{A},10,10,val,0\n", [":2: no clip lasts from 10 to 10 seconds"]),
        (f"yoga,{A},20,10,val,0\n", [":2: no clip lasts from 20 to 10 seconds"]),
        (f"yoga,{A},-5,5,val,0\n", [":2: no clip lasts from -5 to 5 seconds"]),
        (f"yoga,{A},0,1e300,val,0\n", [":2: no clip lasts from 0 to 1e+300 seconds"]),
        (f"yoga,{A},0,inf,val,0\n", [":2: time_end: 'inf' instead of"]),
        (f"yoga,{A},nan,10,val,0\n", [":2: time_start: 'nan' instead of"]),
        (f"yoga,{A},0,1_0,val,0\n", [":2: time_end: '1_0' instead of"]),
        (f"yoga,{A},0,,val,0\n", [":2: no 'time_end'"]),
        (f"yoga,{A},0,{'9' * 9000},val,0\n", [":2: time_end: '9999"]),
        (f"yoga,{A},0,10,holdout,0\n", [":2: split: 'holdout' is not a split"]),
        ("yoga,../../x,0,10,val,0\n", [":2: youtube_id: '../../x' is not a video id"]),
        ("yoga,/etc/passwd,0,10,val,0\n", [":2: youtube_id: '/etc/passwd' is not a video id"]),
        (f"yo\x00ga,{A},0,10,val,0\n", [":2: not text (a NUL byte)"]),
        (f"yo\x1bga,{A},0,10,val,0\n", [r":2: label: 'yo\x1bga' is not a class name"]),
        (f'yoga,{A},0,10,val,0\n"yoga,{B},0,10,val,0\n', [": not CSV", "quotes"]),
        (
            f"yoga,{A},0,10,val,0\narchery,{A},0,10,val,0\n",
            [":3: ", "different labels in", "k.csv:2"],
        ),
    ],
)
def test_csv_that_is_broken(rows, parts, tmp_path):
    _refuse(tmp_path, {"k.csv": HEAD + rows}, f"{tmp_path}/k.csv", *parts)


@pytest.mark.parametrize(
    ("row", "parts"),
    [
        (f"val/yoga/{B}", ["val.txt:2: ", "is not a row 'id,frames,label'"]),
        ("9 2", ["val.txt:2: ", "is not a row 'id,frames,label'"]),
        (f"val/yoga/{B} x 2", ["val.txt:2: ", "is not a row 'id,frames,label'"]),
        (f"val/yoga/{B} 9 2.5", ["val.txt:2: ", "is not a row 'id,frames,label'"]),
        (f"val/yoga/{B} 9 -2", ["val.txt:2: ", "is not a row 'id,frames,label'"]),
        (f"val/yoga/{B} 9 3", ["val.txt:2: label 3 is none of 3 classes in"]),
        (f"val/yoga/{B} 9 {'9' * 30}", ["val.txt:2: ", "is not a row 'id,frames,label'"]),
        (f"val/../../{B} 9 2", ["val.txt:2: the path 'val/../../", "leaves the video folder"]),
        (f"val\\..\\{B} 9 2", ["val.txt:2: the path", "leaves the video folder"]),
        (f"/data/val/yoga/{B} 9 2", ["val.txt:2: the path '/data/val", "leaves the video folder"]),
        (f"C:\\val\\yoga\\{B} 9 2", ["val.txt:2: the path 'C:", "leaves the video folder"]),
        (f"val/yo\x1bga/{B} 9 2", [r"val.txt:2: 'val/yo\x1bga/", "is not a video path"]),
        (f"val/air drumming/{A} 9 1", ["val.txt:2: ", "different labels in", "val.txt:1"]),
    ],
)
def test_lists_that_are_broken(row, parts, tmp_path):
    rows = f"val/yoga/{A} 9 2\n{row}\nval/yoga/{C} 9 2\n"
    _refuse(tmp_path, {"val.txt": rows, "classes.txt": CLASSES}, f"{tmp_path}/", *parts)


def test_lists_whose_split_nothing_tells(tmp_path):
    rows = f"yoga/{A} 9 2\n"
    _refuse(
        tmp_path,
        {"list.txt": rows, "classes.txt": CLASSES},
        "list.txt: split unknown; put train or val into",
    )
    assert (
        _brief(_read(tmp_path, {"train/list.txt": rows, "classes.txt": CLASSES}))[0][1] == "train"
    )


def test_ids_that_are_broken(tmp_path):
    csv = HEAD + f"yoga,{A},0,10,val,0\n"
    files = {"k.csv": csv, "val.txt": f"{A}\nx/../y\n"}
    _refuse(tmp_path, files, "val.txt:2: the path 'x/../y' leaves the video folder")
    _refuse(tmp_path, {"k.csv": csv, "ids.txt": f"{A}\n"}, "ids.txt: split unknown")


def test_a_row_that_is_repeated_is_noted(tmp_path):
    csv = HEAD + f"yoga,{A},0,10,val,0\n" * 2
    annotation = _read(tmp_path, {"k.csv": csv})
    assert len(annotation.clips) == 1
    assert annotation.notes == (f"duplicate rows left out: 1, first {tmp_path}/k.csv:3",)
