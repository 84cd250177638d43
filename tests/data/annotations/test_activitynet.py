import json

import pytest
from annotation_files import refuse, write_files

from sofnet_jax.data.annotations.benchmark import read_annotation
from sofnet_jax.data.annotations.clip import Clip

# Ids as YouTube has them: eleven characters, and "v_" may be among them.
A, B, C, D = "aaaaaaaaaaa", "-bbbbbbbbbb", "v_ccccccccc", "ddddv_ddddd"
CLASSES = ("Archery", "BMX", "Long jump", "Triple jump")


def _read(folder, files):
    return read_annotation("activitynet", write_files(folder, files))


def _refuse(folder, files, *parts):
    refuse("activitynet", write_files(folder, files), *parts)


def _video(subset, *instances, duration=100.0):
    annotations = [{"label": label, "segment": list(segment)} for label, *segment in instances]
    return {
        "duration": duration,
        "subset": subset,
        "resolution": "320x240",
        "url": "https://www.youtube.com/watch?v=x",
        "annotations": annotations,
    }


def _official(videos):
    taxonomy = [{"nodeId": 1, "nodeName": "Root", "parentId": None, "parentName": None}]
    return {"version": "VERSION 1.3", "taxonomy": taxonomy, "database": videos}


OFFICIAL = _official(
    {
        A: _video("training", ("BMX", 1, 2.5), ("BMX", 3, 9)),
        B: _video("validation", ("Long jump", 0, 20), ("Triple jump", 30, 40), duration=35.5),
        C: _video("testing"),
    }
)
INDEX = "".join(f"{i},{name}\n" for i, name in enumerate(CLASSES))


def test_official_json(tmp_path):
    annotation = _read(tmp_path, {"activity_net.v1-3.min.json": OFFICIAL})
    place = f"{tmp_path}/activity_net.v1-3.min.json: database."
    assert annotation.clips == (
        Clip(
            id=A,
            split="train",
            labels=("BMX",),
            place=place + A,
            names=(A,),
            segments=((1.0, 2.5), (3.0, 9.0)),
            duration=100.0,
        ),
        Clip(
            id=B,
            split="val",
            labels=("Long jump", "Triple jump"),
            place=place + B,
            names=(B,),
            segments=((0.0, 20.0), (30.0, 35.5)),
            duration=35.5,
        ),
    )
    assert annotation.classes == ("BMX", "Long jump", "Triple jump")
    assert annotation.notes == (
        f"segments cut to their video: 1, first {place}{B}.annotations[1].segment 30 to 40 s",
        f"test videos, whose labels are not public: left out: 1, first {place}{C}",
    )


@pytest.mark.parametrize(
    "rows",
    [
        f"{A},100,1,1\n{B},50,2,3,2\n",
        f"v_{A} 100 1\r\nv_{B} 50 2 3\r\n",
        f"{A}, 100, 1\n\n{B}, 50, 3, 2",
        f"v_{A}\t100\t1\n{B}\t50\t2\t3\n",
    ],
)
@pytest.mark.parametrize("index", [INDEX, INDEX.replace(",", " "), "action\n" + "\n".join(CLASSES)])
def test_lists_in_all_their_forms(rows, index, tmp_path):
    annotation = _read(tmp_path, {"val_split.txt": rows, "classInd.txt": index})
    assert [(c.id, c.split, set(c.labels), c.num_frames) for c in annotation.clips] == [
        (A, "val", {"BMX"}, 100),
        (B, "val", {"Long jump", "Triple jump"}, 50),
    ]
    assert annotation.classes == CLASSES  # all that the index names
    assert annotation.clips[0].segments is None
    assert any("no given file confirms it" in n for n in annotation.notes) == (
        index.startswith("action")
    )


def test_lists_say_which_videos_and_names_say_what_they_show(tmp_path):
    files = {
        "anet.json": OFFICIAL,
        "classInd.txt": INDEX,
        "train.txt": f"{A},30,1,1\n{D},0,0\n",
    }
    annotation = _read(tmp_path, files)
    assert [(c.id, c.split, c.labels, c.num_frames, c.segments) for c in annotation.clips] == [
        (A, "train", ("BMX",), 30, ((1.0, 2.5), (3.0, 9.0))),
        (D, "train", ("Archery",), None, None),
        (B, "val", ("Long jump", "Triple jump"), None, ((0.0, 20.0), (30.0, 35.5))),
    ]
    assert f"rows with 0 frames: taken as unknown: 1, first {tmp_path}/train.txt:2" in (
        annotation.notes
    )
    assert (
        f"videos of lists that no other file describes: 1, first {D} ({tmp_path}/train.txt:2)"
        in (annotation.notes)
    )
    files["train.txt"] = f"{D},9,0\n"
    annotation = _read(tmp_path, files)
    assert [c.id for c in annotation.clips] == [D, B]
    assert f"videos in no list of their split: left out: 1, first {A} ({tmp_path}/anet.json: " in (
        "\n".join(annotation.notes)
    )


def test_a_class_index_of_another_order_is_refused(tmp_path):
    """By the wrong index two of three videos would have wrong labels, and one has no other."""
    videos = {f"{i}" * 11: _video("training", (CLASSES[i], 0, 1)) for i in range(3)}
    rows = "".join(f"{id},9,{i}\n" for i, id in enumerate(videos)) + f"{A},9,3\n"
    other = "0,Archery\n1,Triple jump\n2,BMX\n3,Long jump\n"
    files = {"anet.json": _official(videos), "train.txt": rows, "other_ind.txt": other}
    _refuse(
        tmp_path,
        files,
        f"{tmp_path}/train.txt: its numbers do not follow {tmp_path}/other_ind.txt",
        "only 1 of 3 videos",
        "give the matching one",
    )
    annotation = _read(tmp_path, files | {"classInd.txt": INDEX})
    assert [c.labels for c in annotation.clips] == [(name,) for name in CLASSES]
    assert (
        f"{tmp_path}/other_ind.txt: a different class order, not used: 1, first train.txt"
    ) in annotation.notes
    # Where all videos are told of by name, numbers are not needed.
    files["train.txt"] = rows[: rows.index(A)]
    annotation = _read(tmp_path, files)
    assert [c.labels for c in annotation.clips] == [(name,) for name in CLASSES[:3]]
    assert any("all labels are taken by name" in note for note in annotation.notes)


def test_names_win_over_a_class_index_that_most_videos_agree_with(tmp_path):
    """It has two classes swapped: refused once a video that no file names has one of them."""
    ids = [f"{i:011d}" for i in range(40)]
    videos = {id: _video("training", (CLASSES[i % 4], 0, 1)) for i, id in enumerate(ids)}
    rows = [f"{id},9,{i % 4}\n" for i, id in enumerate(ids) if i % 4 < 2 or i < 8]
    swapped = "0,Archery\n1,BMX\n2,Triple jump\n3,Long jump\n"
    files = {"anet.json": _official(videos), "classInd.txt": swapped}
    annotation = _read(tmp_path, files | {"train.txt": "".join([*rows, f"{A},9,1\n"])})
    labels = {clip.id: clip.labels for clip in annotation.clips}
    assert labels[A] == ("BMX",) and labels[ids[3]] == ("Triple jump",)
    assert "names win: 4, first " in "\n".join(annotation.notes)
    _refuse(
        tmp_path, files | {"train.txt": "".join([*rows, f"{A},9,3\n"])}, "number 3 is Long jump"
    )


def test_two_orders_and_nothing_to_choose_by(tmp_path):
    other = "0,BMX\n1,Archery\n2,Long jump\n3,Triple jump\n"
    files = {"train.txt": f"{A},9,0\n", "a_ind.txt": INDEX, "b_ind.txt": other}
    _refuse(tmp_path, files, "train.txt: its numbers may follow", "a_ind.txt", "b_ind.txt")
    # Rows that are only counted give way to numbers that a file states.
    names = "action\n" + "\n".join(("BMX", "Archery", *CLASSES[2:]))
    annotation = _read(tmp_path, files | {"b_ind.txt": names})
    assert annotation.clips[0].labels == ("Archery",)
    assert any("b_ind.txt: a different class order" in note for note in annotation.notes)
    files = {"train.txt": f"{A},9,0\n"}
    _refuse(
        tmp_path,
        files,
        "train.txt: its numbers do not follow any file of class names; give the matching one",
    )


def test_lists_of_incompatible_orders(tmp_path):
    ids = [str(i) * 11 for i in range(4)]
    one = "".join(f"{id},9,{i}\n" for i, id in enumerate(ids))
    two = "".join(f"{id},9,{(i + 1) % 4}\n" for i, id in enumerate(ids))
    files = {"a_train.txt": one, "b_train.txt": two, "classInd.txt": INDEX}
    _refuse(
        tmp_path,
        files,
        f"{tmp_path}/b_train.txt:1: {ids[0]} has different labels in {tmp_path}/a_train.txt:1",
        "Archery, not BMX; correct one, or leave out the file that is wrong",
    )
    # With names, each list is held against the index on its own.
    videos = {id: _video("training", (CLASSES[i], 0, 1)) for i, id in enumerate(ids)}
    annotation = _read(tmp_path, files | {"anet.json": _official(videos)})
    assert [c.labels for c in annotation.clips] == [(name,) for name in CLASSES]
    assert any(
        n.startswith(f"{tmp_path}/b_train.txt: its numbers do not follow") for n in annotation.notes
    )
    # A single video that differs has a wrong label in one of them.
    files["b_train.txt"] = one.replace(f"{ids[2]},9,2", f"{ids[2]},9,3")
    _refuse(tmp_path, files, "b_train.txt:3: ", "a_train.txt:3: Long jump, not Triple jump")


def test_lists_of_one_split_are_merged(tmp_path):
    files = {
        "a_train.txt": f"{A},9,0\n{B},0,1\n",
        "b_train.txt": f"{B},50,1\n{A},10,0,0\n{D},7,2\n",
        "classInd.txt": INDEX,
    }
    annotation = _read(tmp_path, files)
    assert [(c.id, c.labels, c.num_frames) for c in annotation.clips] == [
        (A, ("Archery",), 9),
        (B, ("BMX",), 50),
        (D, ("Long jump",), 7),
    ]
    notes = "\n".join(annotation.notes)
    assert (
        "videos that only some of the lists of their split have: 1, first "
        f"{D} ({tmp_path}/b_train.txt:3)" in notes
    )
    assert (
        f"different frame counts: the first counts: 1, first {tmp_path}/a_train.txt:1 9, "
        f"{tmp_path}/b_train.txt:2 10" in notes
    )


def test_ids_that_lost_their_prefix_inside_are_mended_where_another_file_proves_it(tmp_path):
    """Every v_ was removed: C, which begins with it, and D, which has it inside, lost theirs."""
    damaged = [C.replace("v_", ""), D.replace("v_", ""), "eeeeeeeee"]
    files = {
        "train_org.txt": "".join(f"{id},9,{i}\n" for i, id in enumerate([A, *damaged])),
        "classInd.txt": INDEX,
        "bsn.json": {
            f"v_{C}": {
                "duration_second": 9.5,
                "annotations": [{"label": "BMX", "segment": [1, 2]}],
            },
            f"v_{D}": {"duration_second": 0, "annotations": []},
        },
    }
    annotation = _read(tmp_path, files)
    assert [c.id for c in annotation.clips] == [A, C, D, "eeeeeeeee"]
    assert annotation.clips[1].names == (C,) and annotation.clips[1].duration == 9.5
    assert annotation.clips[2].labels == ("Long jump",) and annotation.clips[2].duration is None
    # The eleven characters of the last one are not known: v_ stood at one of ten places.
    names = annotation.clips[3].names
    assert len(names) == 11 and all(name.replace("v_", "") == "eeeeeeeee" for name in names)
    assert {"v_eeeeeeeee", "eeeev_eeeee", "eeeeeeeeev_", "eeeeeeeee"} <= set(names)
    notes = "\n".join(annotation.notes)
    assert f"taken as unknown: 1, first {tmp_path}/bsn.json: v_{D}.duration_second" in notes
    assert f"repaired from another file: 2, first {tmp_path}/train_org.txt:2 {C}" in notes
    assert f"under all possible ids: 1, first {tmp_path}/train_org.txt:4 eeeeeeeee" in notes
    # Another list proves it as well.
    del files["bsn.json"]
    files["train_new.txt"] = f"{C},9,1\nshort,9,0\n"
    annotation = _read(tmp_path, files)
    assert C in [c.id for c in annotation.clips]
    assert "short" in [c.id for c in annotation.clips]


def test_bsn_files(tmp_path):
    bsn = {
        f"v_{id}": {
            "duration_second": 10.0,
            "duration_frame": 300,
            "annotations": [{"label": label, "segment": [1, 5]}] if label else [],
            "feature_frame": 296,
        }
        for id, label in ((A, "BMX"), (B, "Archery"), (C, ""))
    }
    head = "video,numFrame,seconds,fps,rfps,subset,featureFrame\n"
    rows = [f"v_{A},300,10,30,29.97,training,296", f"v_{B},300,10,30,29.97,validation,296"]
    table = head + "\n".join([*rows, f"v_{C},300,10,30,29.97,testing,296"])
    annotation = _read(tmp_path, {"bsn.json": bsn, "video_info.csv": table})
    assert [(c.id, c.split, c.labels, c.segments, c.num_frames) for c in annotation.clips] == [
        (A, "train", ("BMX",), ((1.0, 5.0),), 300),
        (B, "val", ("Archery",), ((1.0, 5.0),), 300),
    ]
    files = {"video_info.csv": table, "classInd.txt": INDEX}
    annotation = _read(tmp_path, files | {"bsn.json": bsn, "val.txt": f"{B},290,0\n"})
    assert [c.num_frames for c in annotation.clips] == [290, 300]  # B by the list, A by the table
    assert (
        f"the first counts: 1, first {tmp_path}/val.txt:1 290, {tmp_path}/bsn.json: v_{B} 300"
        in "\n".join(annotation.notes)
    )
    (tmp_path / "video_info.csv").unlink()
    _refuse(tmp_path, {"bsn.json": bsn}, f"bsn.json: v_{A}: split unknown; give a list")
    annotation = _read(
        tmp_path, {"bsn.json": bsn, "val.txt": f"{B},290,0\n", "classInd.txt": INDEX}
    )
    assert [(c.id, c.split, c.num_frames) for c in annotation.clips] == [(B, "val", 290)]


def test_splits_and_labels_that_files_tell_differently(tmp_path):
    second = {A: _video("validation", ("BMX", 1, 2)), D: _video("training", ("BMX", 1, 2))}
    annotation = _read(tmp_path, {"a.json": OFFICIAL, "b.json": _official(second)})
    assert [(c.id, c.labels) for c in annotation.clips if c.split == "train"] == [
        (A, ("BMX",)),
        (D, ("BMX",)),
    ]
    places = f"{tmp_path}/a.json: database.{A} train, {tmp_path}/b.json: database.{A} val"
    assert f"or else the first, counts: 1, first {places}" in "\n".join(annotation.notes)
    second[A] = _video("training", ("Archery", 1, 2))
    files = {"a.json": OFFICIAL, "b.json": _official(second)}
    _refuse(tmp_path, files, f"b.json: database.{A}: ", f"a.json: database.{A}: BMX, not Archery")
    (tmp_path / "b.json").unlink()
    files = {"a.json": OFFICIAL, "classInd.txt": INDEX}
    annotation = _read(
        tmp_path, files | {"train.txt": f"{B},9,2\n{A},9,1\n", "val.txt": f"{A},9,1\n"}
    )
    notes = "\n".join(annotation.notes)
    assert (
        f"or else the first, counts: 2, first {tmp_path}/train.txt:1 train, {tmp_path}/a.json: "
        in notes
    )
    assert f"so that validation sees training data: 1, first {A} " in notes


def test_a_few_videos_of_other_classes_than_by_name(tmp_path):
    videos = {f"{i}" * 11: _video("training", (CLASSES[i], 0, 1)) for i in range(3)}
    rows = "".join(f"{id},9,{i}\n" for i, id in enumerate(videos))
    files = {"anet.json": _official(videos), "classInd.txt": INDEX}
    annotation = _read(tmp_path, files | {"train.txt": rows.replace("9,2", "9,0")})
    assert [c.labels for c in annotation.clips] == [(name,) for name in CLASSES[:3]]
    assert f"names win: 1, first {tmp_path}/train.txt:3 Archery, not Long jump as" in "\n".join(
        annotation.notes
    )


@pytest.mark.parametrize(
    ("rows", "parts"),
    [
        (f"{A},9\n", ["train.txt"]),
        (f"{A},9,0\n{B},9\n", ["train.txt:2: ", "is not a row 'id,frames,label'"]),
        (f"{A},9,0\n{D},9,0\n{B}\n", ["train.txt:3: ", "is not a row 'id,frames,label'"]),
        (f"{A},9,0\n{B},9,x\n", ["train.txt:2: ", "is not a row 'id,frames,label'"]),
        (f"{A},9,0\n{B},9,\n", ["train.txt:2: ", "is not a row 'id,frames,label'"]),
        (f"{A},9,0\n{B},9,-1\n", ["train.txt:2: ", "is not a row 'id,frames,label'"]),
        (f"{A},9,0\n{B},9,1.0\n", ["train.txt:2: ", "is not a row 'id,frames,label'"]),
        (f"{A},9,0\n{B},-9,0\n", ["train.txt:2: ", "is not a row 'id,frames,label'"]),
        (f"{A},9,0\n{B},9,{'9' * 5000}\n", ["train.txt:2: ", "is not a row 'id,frames,label'"]),
        (f"{A},9,0\n{B},9,٣\n", ["train.txt:2: ", "is not a row 'id,frames,label'"]),
        (f"{A},9,0\n{B},9,4\n", ["train.txt:2: label 4 is none of 4 classes in"]),
        (f"{A},9,0\n../../etc/x,9,0\n", ["train.txt:2: '../../etc/x' is not a video id"]),
        (f"{A},9,0\n/etc/passwd,9,0\n", ["train.txt:2: '/etc/passwd' is not a video id"]),
        (f"{A},9,0\na\x1b[2Jb,9,0\n", [r"train.txt:2: 'a\x1b[2Jb' is not a video id"]),
        (f"{A},9,0\n,9,0\n", ["train.txt:2: ", "is not a row 'id,frames,label'"]),
        (f"{A},9,0\n{B},9,1\n{A},9,2\n", ["train.txt:3: ", "different labels in", "train.txt:1"]),
    ],
)
def test_lists_that_are_broken(rows, parts, tmp_path):
    _refuse(tmp_path, {"train.txt": rows, "classInd.txt": INDEX}, *parts)


def test_a_row_that_is_repeated_is_noted(tmp_path):
    rows = f"{A},9,0\n{B},9,1\n{A},9,0\n"
    annotation = _read(tmp_path, {"train.txt": rows, "classInd.txt": INDEX})
    assert [c.id for c in annotation.clips] == [A, B]
    assert annotation.notes == (f"duplicate rows left out: 1, first {tmp_path}/train.txt:3",)


def test_a_list_whose_split_nothing_tells(tmp_path):
    files = {"list.txt": f"{A},9,0\n", "classInd.txt": INDEX}
    _refuse(tmp_path, files, "list.txt: split unknown; put train or val into")


@pytest.mark.parametrize(
    ("index", "parts"),
    [
        (
            "0,Archery\n1,BMX\n1,Long jump\n",
            ["classInd.txt:3: duplicate number or name in '1,Long"],
        ),
        ("0,Archery\n1,BMX\n2,BMX\n", ["classInd.txt:3: duplicate number or name in '2,BMX'"]),
        (
            "0,Archery\n1,BMX\nLong jump\n",
            ["classInd.txt:3: 'Long jump' is not a class number and name"],
        ),
        ("0,Archery\n1,B\x07MX\n", [r"classInd.txt:2: 'B\x07MX' is not a class name"]),
        ("0,Archery\n99999999999,BMX\n", ["classInd.txt:2: '99999999999' instead of"]),
    ],
)
def test_class_indices_that_are_broken(index, parts, tmp_path):
    _refuse(tmp_path, {"train.txt": f"{A},9,0\n", "classInd.txt": index}, *parts)


def _broken(change):
    video = _video("training", ("BMX", 1, 2))
    change(video)
    return _official({A: video})


@pytest.mark.parametrize(
    ("document", "parts"),
    [
        ({"database": []}, [": database: a list of 0 instead of an object"]),
        ({"database": {A: []}}, [f": database.{A}: a list of 0 instead of an object"]),
        ({"database": {A: {}}}, [f": database.{A}: split unknown"]),
        ({"database": {A: {"annotations": []}}}, [f": database.{A}: split unknown"]),
        ({"database": {"../x": _video("training")}}, ["'../x' is not a video id"]),
        ({"database": {A: _video("trainig")}}, [f"{A}.subset: 'trainig' is not a split"]),
        (
            _official(
                {A: _video("training", ("BMX", 1, 2)), f"v_{A}": _video("training", ("a", 1, 2))}
            ),
            [f"v_{A}: {A} has different labels in", f"database.{A}: BMX, not a;"],
        ),
        (
            _broken(lambda v: v.update(annotations={"a": 1})),
            ["annotations: an object of 1 instead"],
        ),
        (_broken(lambda v: v["annotations"][0].pop("label")), ["annotations[0]: no 'label'"]),
        (
            _broken(lambda v: v["annotations"][0].update(label=3)),
            ["[0].label: '3' instead of text"],
        ),
        (_broken(lambda v: v["annotations"][0].update(label="a\n")), []),
        (
            _broken(lambda v: v["annotations"][0].update(label=" ")),
            ["[0].label: '' is not a class name"],
        ),
        (
            _broken(lambda v: v["annotations"][0].update(segment=[1])),
            ["a list of 1 instead of a li"],
        ),
        (
            _broken(lambda v: v["annotations"][0].update(segment=[1, True])),
            ["'True' instead of a n"],
        ),
        (_broken(lambda v: v["annotations"][0].update(segment="1-2")), ["'1-2' instead of a list"]),
        (_broken(lambda v: v.update(duration="9 s")), [f"{A}.duration: '9 s' instead of a num"]),
        (_broken(lambda v: v.update(duration=10**400)), ["'1000000000", "…' instead of a number"]),
        (json.dumps(_broken(lambda v: None)).replace("100.0", "1e999"), ["'inf' instead of a num"]),
    ],
)
def test_json_of_another_shape(document, parts, tmp_path):
    if not parts:  # a label with a line end at its end is that label
        assert _read(tmp_path, {"a.json": document}).clips[0].labels == ("a",)
        return
    _refuse(tmp_path, {"a.json": document}, f"{tmp_path}/a.json: ", *parts)


def test_segments_that_are_wrong_do_not_lose_the_video(tmp_path):
    video = _video("training", ("BMX", 5, 1), ("BMX", -4, -2), ("BMX", 200, 300))
    annotation = _read(tmp_path, {"a.json": _official({A: video})})
    assert annotation.clips[0].labels == ("BMX",) and annotation.clips[0].segments is None
    place = f"{tmp_path}/a.json: database.{A}.annotations"
    assert annotation.notes == (
        "segments left out: they contain nothing of their video: 3, first "
        f"{place}[0].segment 5 to 1 s",
    )


def test_a_video_without_a_label_is_left_out(tmp_path):
    videos = {
        A: _video("training", ("BMX", 1, 2)),
        B: _video("validation"),
        D: _video("training", duration=-1),
    }
    annotation = _read(tmp_path, {"a.json": _official(videos)})
    assert [c.id for c in annotation.clips] == [A]
    place = f"{tmp_path}/a.json: database."
    assert annotation.notes == (
        f"durations that are not positive: taken as unknown: 1, first {place}{D}.duration",
        f"videos without a label: left out: 2, first {place}{B}",
    )


@pytest.mark.parametrize(
    ("rows", "parts"),
    [
        (["v_x,1,2,training"], [":2: 4 columns where the header has 5"]),
        (["v_x,1,2,trainin,0"], [":2: subset: 'trainin' is not a split"]),
        (["v_x,1,nan,training,0"], [":2: seconds: 'nan' instead of"]),
        (["v_x,many,2,training,0"], [":2: numframe: 'many' instead of"]),
        (["../x,1,2,training,0"], [":2: video: '../x' is not a video id"]),
        (['"v_x,1,2,training,0'], [": not CSV", "quotes"]),
    ],
)
def test_tables_that_are_broken(rows, parts, tmp_path):
    table = "\n".join(["video,numFrame,seconds,subset,featureFrame", *rows])
    _refuse(tmp_path, {"a.json": OFFICIAL, "info.csv": table}, f"{tmp_path}/info.csv", *parts)
