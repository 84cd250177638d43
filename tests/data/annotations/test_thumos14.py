import struct
import zlib
from unittest import mock

import numpy as np
import pytest
import scipy.io
from annotation_files import refuse, write_files

from sofnet_jax.data.annotations import matlab
from sofnet_jax.data.annotations.benchmark import read_annotation
from sofnet_jax.data.annotations.clip import Clip
from sofnet_jax.data.annotations.files import Material, Node
from sofnet_jax.data.annotations.matlab import load, parse, read_structures
from sofnet_jax.host.errors import UserError
from sofnet_jax.host.workers import Failure, map_in_order

NAMES = ("BaseballPitch", "Basketball", "CliffDiving", "Diving", "Drumming")
# The files have 101 classes; the others are of no account here.
CLASSES = "".join(f"{name}\n" for name in (*NAMES, *(f"Other{i}" for i in range(6, 102))))
NUMBERED = "".join(f"{i} {name}\n" for i, name in enumerate(CLASSES.split(), 1))


def _v(number):
    return f"video_validation_{number:07d}"


def _t(number):
    return f"video_test_{number:07d}"


def _mat(path, records, variable="test_videos"):
    """Writes what MATLAB would: a row of structures whose empty fields are empty matrices."""
    fields = list(dict.fromkeys(key for record in records for key in record))
    array = np.empty((1, len(records)), [(field, object) for field in fields])
    for i, record in enumerate(records):
        array[0, i] = tuple(_cell(record.get(field)) for field in fields)
    scipy.io.savemat(path, {variable: array})
    return path


def _cell(value):
    if value is None:
        return np.zeros((0, 0))
    if isinstance(value, list) and value and isinstance(value[0], str):
        cells = np.empty((1, len(value)), object)
        cells[0, :] = value
        return cells
    return value


def _record(id, *labels, background="NO", seconds=100.0, frames=None):
    numbers = [NAMES.index(label) + 1 for label in labels]
    return {
        "video_name": id,
        "YouTube_video_name": "What: it's called",
        "primary_action": labels[0] if labels else None,
        "primary_action_index": numbers[0] if labels else None,
        "secondary_actions": list(labels[1:]) or None,
        "secondary_actions_indices": numbers[1:] or None,
        "background_video": background,
        "video_duration_seconds": seconds,
        "number_of_frames": frames,
    }


def _write(folder, files):
    mats = {name for name, content in files.items() if isinstance(content, list)}
    for name in mats:
        _mat(folder / name, files[name])
    write_files(folder, {name: files[name] for name in files if name not in mats})
    return [folder / name for name in files]


def _read(folder, files):
    with _in_process():
        return read_annotation("thumos14", _write(folder, files))


def _refuse(folder, files, *parts):
    with _in_process():
        refuse("thumos14", _write(folder, files), *parts)


def _in_process():
    """Sound MATLAB files need no worker, whose start takes a second."""
    return mock.patch.object(matlab, "map_in_order", lambda function, items, **_: map(load, items))


METADATA = [
    _record(_t(1), "Diving", "CliffDiving", seconds=50.5),
    _record(_t(2), "Drumming", background="YES"),
    _record(_t(3), "Basketball", "BaseballPitch", "Drumming", frames=900),
    _record(_v(1), "BaseballPitch"),
]


def test_metadata(tmp_path):
    annotation = _read(tmp_path, {"test_set.mat": METADATA})
    place = f"{tmp_path}/test_set.mat: test_videos"
    assert annotation.clips == (
        Clip(
            id=_t(1),
            split="val",
            labels=("Diving", "CliffDiving"),
            place=place + "(1)",
            names=(_t(1),),
            duration=50.5,
        ),
        Clip(
            id=_t(2),
            split="val",
            labels=("Drumming",),
            place=place + "(2)",
            names=(_t(2),),
            duration=100.0,
            background=True,
        ),
        Clip(
            id=_t(3),
            split="val",
            labels=("Basketball", "BaseballPitch", "Drumming"),
            place=place + "(3)",
            names=(_t(3),),
            duration=100.0,
            num_frames=900,
        ),
        Clip(
            id=_v(1),
            split="train",
            labels=("BaseballPitch",),
            place=place + "(4)",
            names=(_v(1),),
            duration=100.0,
        ),
    )
    assert annotation.classes == NAMES
    assert annotation.notes == (
        "background videos, which only resemble their class: kept, as the paper counts them: 1, "
        f"first {_t(2)} (Drumming)",
    )


def test_background_set_and_videos_without_a_class(tmp_path):
    records = [*METADATA, _record("video_background_0000007"), _record(_t(4))]
    annotation = _read(tmp_path, {"test_set.mat": records})
    assert len(annotation.clips) == 4
    place = f"{tmp_path}/test_set.mat: test_videos"
    assert annotation.notes[:2] == (
        f"videos of the background set, without a class: left out: 1, first {place}(5)",
        f"videos without a label: left out: 1, first {place}(6)",
    )


@pytest.mark.parametrize(
    ("files", "base"),
    [
        ({"classes.txt": CLASSES}, 1),
        ({"classes.txt": CLASSES}, 0),
        ({"classes.txt": NUMBERED}, 1),
        ({"classInd.txt": CLASSES, "class_ori.txt": NUMBERED}, 1),
    ],
)
def test_lists_are_counted_from_0_or_1_by_their_range(files, base, tmp_path):
    """0 tells the one and 101 the other."""
    rows = f"{_v(1)},100,{1 + base}\n{_v(2)},0,{base},{3 + base}\n{_v(3)},5,{100 + base}\n"
    if base == 0:
        rows = rows.replace(",100\n", ",0\n")
    annotation = _read(tmp_path, files | {"list.txt": rows})
    last = "Other101" if base else "BaseballPitch"
    assert [(c.id, c.split, c.labels, c.num_frames) for c in annotation.clips] == [
        (_v(1), "train", ("Basketball",), 100),
        (_v(2), "train", ("BaseballPitch", "Diving"), None),
        (_v(3), "train", (last,), 5),
    ]
    assert len(annotation.classes) == 101
    assert f"rows with 0 frames: taken as unknown: 1, first {tmp_path}/list.txt:2" in (
        annotation.notes
    )


def test_lists_whose_counting_nothing_tells(tmp_path):
    files = {"list.txt": f"{_v(1)},100,2\n", "classes.txt": CLASSES}
    _refuse(tmp_path, files, "list.txt: its numbers may follow", "from 0", "from 1, which dif")
    # The metadata tells: of a list from 1, and of one from 0.
    for number in (1, 0):
        files |= {"list.txt": f"{_v(1)} 100 {number}\n", "set.mat": METADATA}
        annotation = _read(tmp_path, files)
        assert [c.labels for c in annotation.clips if c.split == "train"] == [("BaseballPitch",)]
        assert any("different class order" in n for n in annotation.notes) == (number == 0)


def test_labels_by_the_metadata_where_a_list_has_fewer(tmp_path):
    files = {"set.mat": METADATA, "list.txt": f"{_t(3)},0,2,1\n{_t(1)},9,4,3\n"}
    annotation = _read(tmp_path, files)
    assert [(c.id, c.labels, c.num_frames) for c in annotation.clips] == [
        (_t(3), ("Basketball", "BaseballPitch", "Drumming"), 900),
        (_t(1), ("Diving", "CliffDiving"), 9),  # the primary one first
        (_v(1), ("BaseballPitch",), None),
    ]
    notes = "\n".join(annotation.notes)
    assert f"names win: 1, first {tmp_path}/list.txt:1 Basketball and BaseballPitch, not" in notes
    assert f"in no list of their split: left out: 1, first {_t(2)} ({tmp_path}/set.mat: " in notes


def test_lost_commas_are_mended_where_another_file_proves_it(tmp_path):
    """4241 was 42,41; 98 may be a class, and is not where another file has 9,8 for it."""
    lost = f"{_t(1)},9,4241\n{_t(2)},9,98\n{_t(3)},9,5\n{_t(4)},9,6227\n"
    whole = f"{_t(1)},9,42,41\n{_t(2)},9,9,8\n{_t(3)},9,5\n{_t(4)},9,62,27,9\n"
    files = {"classes.txt": CLASSES, "a.txt": lost, "b.txt": whole + f"{_t(5)},9,101\n"}
    files["a.txt"] += f"{_t(5)},9,101\n"
    _refuse(
        tmp_path,
        files,
        f"{tmp_path}/b.txt:4: {_t(4)} has different labels in {tmp_path}/a.txt:4: Other62 and ",
    )
    files["b.txt"] = files["b.txt"].replace("62,27,9", "62,27")
    annotation = _read(tmp_path, files)
    assert [c.labels for c in annotation.clips] == [
        ("Other42", "Other41"),
        ("Other9", "Other8"),
        ("Drumming",),
        ("Other62", "Other27"),
        ("Other101",),
    ]
    assert (
        "labels that lost the comma between them, repaired from another file: 3, first "
        f"{tmp_path}/a.txt:1 4241 is 42,41"
    ) in annotation.notes
    del files["b.txt"]
    (tmp_path / "b.txt").unlink()
    _refuse(tmp_path, files, "/a.txt:1: label 4241 is none of 101 classes")
    metadata = [_record(_t(1), "Diving", "Basketball", "Drumming"), _record(_t(2), "Drumming")]
    files = {"set.mat": metadata, "a.txt": f"{_t(1)},9,42\n{_t(2)},9,5\n"}
    annotation = _read(tmp_path, files)
    assert set(annotation.clips[0].labels) == {"Diving", "Basketball", "Drumming"}
    assert f"another file: 1, first {tmp_path}/a.txt:1 42 is 4,2" in "\n".join(annotation.notes)


TEMPORAL = {
    "set.mat": METADATA,
    "Diving_test.txt": f"{_t(1)}  1.0 2.5\n{_t(1)}  10.0 12.0\n{_t(3)} 4.0 5.0\n",
    "CliffDiving_test.txt": f"{_t(1)}  10.0 12.0\n",
    "Ambiguous_test.txt": f"{_t(1)}  20.0 21.0\n\n",
    "BaseballPitch_val.txt": f"{_v(1)} 90.0 100.4\n{_v(1)} 7 8.5\n{_v(1)} 101.0 102.0\n",
}


def test_temporal_annotations(tmp_path):
    annotation = _read(tmp_path, TEMPORAL)
    segments = {c.id: c.segments for c in annotation.clips}
    assert segments == {
        _t(1): ((1.0, 2.5), (10.0, 12.0)),  # both classes; once where they are the same
        _t(2): None,
        _t(3): None,  # only of a class that it does not have
        _v(1): ((90.0, 100.0), (7.0, 8.5)),
    }
    notes = "\n".join(annotation.notes)
    for note in (
        "segments that are ambiguous or to avoid: left out: 1, first "
        f"{tmp_path}/Ambiguous_test.txt:1",
        "segments of videos or of classes that the other files do not have: left out: 1, first "
        f"{tmp_path}/Diving_test.txt:3",
        f"segments cut to their video: 1, first {tmp_path}/BaseballPitch_val.txt:1 90 to 100.4 s",
        "segments left out: they contain nothing of their video: 1, first "
        f"{tmp_path}/BaseballPitch_val.txt:3 101 to 102 s",
    ):
        assert note in notes
    assert "duplicate" not in notes


def test_segments_of_some_classes_of_a_video_only(tmp_path):
    """Elsewhere in the video may be the other class: it is not known what is irrelevant."""
    files = {k: v for k, v in TEMPORAL.items() if k != "CliffDiving_test.txt"}
    annotation = _read(tmp_path, files)
    assert annotation.clips[0].segments is None
    assert f"taken as not localised: 1, first {_t(1)}, not of CliffDiving" in "\n".join(
        annotation.notes
    )


def test_videos_to_avoid(tmp_path):
    files = TEMPORAL | {"test_avoid_videos.txt": f"{_t(1)} Diving\n{_t(1)} CliffDiving\n"}
    annotation = _read(tmp_path, files)
    assert annotation.clips[0].segments is None and len(annotation.clips) == 4
    assert f"to avoid: left out: 4, first {tmp_path}/Diving_test.txt:1" in "\n".join(
        annotation.notes
    )


def test_temporal_annotations_with_lists(tmp_path):
    files = {
        "list.txt": f"{_t(1)},9,4\n{_t(9)},9,101\n",
        "classes.txt": CLASSES,
        "Diving_test.txt": TEMPORAL["Diving_test.txt"] + f"{_t(8)} 1.0 2.0\n",
        "test_durations.txt": f"/data/TH14/{_t(1)}.mp4\n11.5\n",
    }
    annotation = _read(tmp_path, files)
    assert annotation.clips[0].segments == ((1.0, 2.5), (10.0, 11.5))
    assert annotation.clips[0].duration == 11.5
    assert (
        "segments of videos or of classes that the other files do not have: left out: 2, first "
        f"{tmp_path}/Diving_test.txt:3"
    ) in annotation.notes


def test_durations(tmp_path):
    rows = f"{_t(1)}.mp4\n50.4995\n{_t(2)}.mp4\n90.0\n{_t(3)}.mp4\n-1.0\n"
    again = f"{_t(1)}.mp4\n51.000\n"
    files = {"set.mat": METADATA, "a_durations.txt": rows, "b_durations.txt": again}
    annotation = _read(tmp_path, files)
    assert [c.duration for c in annotation.clips] == [50.5, 100.0, 100.0, 100.0]
    notes = "\n".join(annotation.notes)
    assert f"not positive: taken as unknown: 1, first {tmp_path}/a_durations.txt:6" in notes


def test_nothing_that_tells_of_classes(tmp_path):
    files = {"Diving_test.txt": TEMPORAL["Diving_test.txt"]}
    _refuse(tmp_path, files, "Diving_test.txt: no file has the videos' classes", "test_set.mat")


@pytest.mark.parametrize(
    ("name", "row", "parts"),
    [
        ("list.txt", f"{_t(2)},9", ["list.txt:2: ", "is not a row 'id,frames,label'"]),
        ("list.txt", f"{_t(2)},x,1", ["list.txt:2: ", "is not a row 'id,frames,label'"]),
        ("list.txt", f"{_t(2)},9,1.5", ["list.txt:2: ", "is not a row 'id,frames,label'"]),
        ("list.txt", f"{_t(2)},9,{'9' * 5000}", ["list.txt:2: ", "is not a row 'id,frames,label'"]),
        ("list.txt", f"{_t(2)},9,102", ["list.txt:2: label 102 is none of 101 classes"]),
        ("list.txt", f"{_t(2)},9,0", ["list.txt:2: label 0 is none of 101 classes"]),
        ("list.txt", "../x,9,1", ["list.txt:2: '../x' is not a THUMOS'14 id"]),
        ("list.txt", "video_test_1,9,1", ["list.txt:2: 'video_test_1' is not a THUMOS'14 id"]),
        ("list.txt", "video_background_0000001,9,1", ["list.txt:2: ", "background set"]),
        ("list.txt", f"{_t(1)},9,2", ["list.txt:2: ", "has different labels in", "list.txt:1"]),
        ("Diving_test.txt", f"{_t(1)} 1.0", ["Diving_test.txt:2: 2 columns; a row is"]),
        ("Diving_test.txt", f"{_t(1)} 1.0 2.0 3.0", ["Diving_test.txt:2: 4 columns; a row is"]),
        ("Diving_test.txt", f"{_t(1)} 1.0 nan", ["Diving_test.txt:2: 'nan' instead of"]),
        ("Diving_test.txt", f"{_t(1)} inf 2.0", ["Diving_test.txt:2: 'inf' instead of"]),
        ("Diving_test.txt", f"{_t(1)} 1.0 1e999", ["Diving_test.txt:2: '1e999' instead of"]),
        ("Diving_test.txt", "../../x 1.0 2.0", ["Diving_test.txt:2: '../../x' is not a THUMOS"]),
        ("avoid.txt", f"{_t(1)} Diving x", ["avoid.txt:2: 3 columns; a row is 'video class'"]),
        ("avoid.txt", "/x Diving", ["avoid.txt:2: '/x' is not a THUMOS"]),
        ("durations.txt", "/data/x.mp4\n1.5", ["durations.txt:3: 'x' is not a THUMOS'14 id"]),
        ("durations.txt", f"{_t(1)}.mp4", ["durations.txt:3: the last video has no duration"]),
        ("durations.txt", f"{_t(1)}.mp4\nlong", ["durations.txt:4: 'long' instead of"]),
    ],
)
def test_text_that_is_broken(name, row, parts, tmp_path):
    files = {
        "classes.txt": NUMBERED,
        "list.txt": f"{_t(1)},9,4\n",
        "Diving_test.txt": f"{_t(1)} 1.0 2.0\n",
        "avoid.txt": f"{_t(1)} Diving\n",
        "durations.txt": f"{_t(1)}.mp4\n9.5\n",
    }
    files[name] += row + "\n"
    _refuse(tmp_path, files, f"{tmp_path}/", *parts)


def test_segments_that_are_wrong_do_not_lose_the_video(tmp_path):
    rows = f"{_v(1)} 5.0 2.0\n{_v(1)} -9.0 -1.5\n{_v(1)} 3.0 3.0\n"
    annotation = _read(tmp_path, {"set.mat": METADATA, "BaseballPitch_val.txt": rows})
    assert annotation.clips[3].segments is None
    place = f"{tmp_path}/BaseballPitch_val.txt"
    assert annotation.notes[:1] == (
        f"segments left out: they contain nothing of their video: 3, first {place}:1 5 to 2 s",
    )


def test_a_temporal_file_whose_name_tells_no_class(tmp_path):
    files = {"set.mat": METADATA, "mine.txt": f"{_t(1)} 1.0 2.0\n"}
    _refuse(tmp_path, files, "mine.txt: temporal annotations whose class the file's name")


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"video_name": "../x"}, ["(2)", "'../x' is not a THUMOS'14 id"]),
        ({"video_name": 3.0}, ["(2).video_name[0]: '3.0' instead of text"]),
        ({"video_name": None}, ["(2): '' is not a THUMOS'14 id"]),
        ({"video_name": ["a", "b"]}, ["(2): 'ab' is not a THUMOS'14 id"]),
        ({"video_name": _t(1)}, [f"(2): {_t(1)} has different labels in", "(1)"]),
        ({"primary_action": 7}, ["(2).primary_action[0]: '7' instead of text"]),
        (
            {"primary_action": "Di\x1bving"},
            ["(2).primary_action[0]: 'Di\\x1bving' is not a class name"],
        ),
        ({"primary_action_index": "four"}, ["(2).primary_action_index[0]: 'four' instead of a nu"]),
        ({"video_duration_seconds": np.nan}, ["(2).video_duration_seconds[0]: 'nan' instead of"]),
        ({"video_duration_seconds": "x"}, ["(2).video_duration_seconds[0]: 'x' instead of a nu"]),
        ({"number_of_frames": "many"}, ["(2).number_of_frames[0]: 'many' instead of a number"]),
    ],
)
def test_metadata_that_is_broken(change, parts, tmp_path):
    records = [_record(_t(1), "Diving"), _record(_t(2), "Diving", "Drumming") | change]
    _refuse(tmp_path, {"set.mat": records}, f"{tmp_path}/set.mat: test_videos", *parts)


def test_mat_files_that_are_broken(tmp_path):
    path = _mat(tmp_path / "set.mat", METADATA)
    whole = path.read_bytes()

    def refuse(data, *parts):
        path.write_bytes(data)
        with pytest.raises(UserError) as caught:
            read_annotation("thumos14", [path])
        assert str(path) in str(caught.value) and str(caught.value).isprintable()
        for part in parts:
            assert part in str(caught.value)

    refuse(b"<html>moved</html>", "not a file of THUMOS'14; it begins with '<html>")
    refuse(whole.replace(b"MATLAB 5.0", b"MATLAB 7.3", 1), "of version 7.3; save it with '-v7'")
    refuse(whole[:100], "damaged (", "); download it again")
    refuse(whole[: len(whole) // 2], "damaged (")
    refuse(whole[:128], "0 arrays of structures with 'video_name'")
    refuse(whole[:128] + struct.pack("<II", 5 << 16 | 14, 0), "damaged (")


def test_a_mat_file_that_asks_for_too_much_memory_is_damaged(tmp_path):
    """It claims two gigabytes, which the worker refuses to allocate."""
    count = 2**28
    matrix = struct.pack("<IIIIIIiiHH4sII", 6, 8, 6, 0, 5, 8, 1, count, 1, 1, b"x", 9, 8 * count)
    element = zlib.compress(struct.pack("<II", 14, len(matrix) + 8 * count) + matrix)
    head = b"MATLAB 5.0".ljust(124) + struct.pack("<H", 0x100) + b"IM"
    path = tmp_path / "set.mat"
    path.write_bytes(head + struct.pack("<II", 15, len(element)) + element)
    refuse("thumos14", [path], f"{path}: damaged (MemoryError); download it again")


@pytest.mark.slow
@pytest.mark.parametrize("compressed", [True, False])
def test_no_damage_to_a_mat_file_goes_further_than_a_line_that_names_it(compressed, tmp_path):
    path = tmp_path / "set.mat"
    array = scipy.io.loadmat(_mat(path, METADATA))["test_videos"]
    scipy.io.savemat(path, {"test_videos": array}, do_compression=compressed)
    whole = path.read_bytes()
    assert len(read_annotation("thumos14", [path]).clips) == 4
    random = np.random.default_rng(0)
    damaged = []
    for i in range(400):
        start = 128 + random.integers(len(whole) - 128)
        damage = random.bytes(random.choice([1, 2, 8])) if i % 2 else b"\xff" * 4
        damaged.append(whole[:start] + damage + whole[start + len(damage) :])
    results = list(map_in_order(parse, damaged, num_workers=1, time_limit=60.0))
    lines = [result for result in results if isinstance(result, str)]
    assert len(results) == 400
    assert len(lines) > 390 if compressed else len(lines) > 100
    # A crash, and whatever still parses, as a user would see them.
    failures = [i for i, result in enumerate(results) if isinstance(result, Failure)]
    parsed = [i for i, result in enumerate(results) if isinstance(result, dict)]
    for i in failures[:1] + parsed[:5]:
        path.write_bytes(damaged[i])
        try:
            read_annotation("thumos14", [path])
            assert i not in failures
        except UserError as error:
            assert str(path) in str(error) and str(error).isprintable()


def test_mat_files_hold_what_scipy_reads(tmp_path):
    """Numbers of every type, text, cells, and empty fields."""
    numbers = {
        name: np.arange(6).astype(name).reshape(2, 3)
        for name in "i1 u1 i2 u2 i4 u4 i8 u8 f4 f8".split()
    }
    cells = np.empty((1, 2), object)
    cells[0, :] = ["größe", np.array([[1.5, 2]])]
    fields = numbers | {"text": "a text", "empty": np.zeros((0, 0)), "cells": cells, "odd": 1j}
    scipy.io.savemat(tmp_path / "x.mat", {"array": fields})
    ((structure,),) = read_structures([Material(tmp_path / "x.mat")], "text")
    assert structure == Node(
        f"{tmp_path / 'x.mat'}: array(1)",
        {
            **{name: [0, 3, 1, 4, 2, 5] for name in numbers},  # column by column
            "text": ["a text"],
            "empty": [],
            "cells": ["größe", 1.5, 2.0],
            "odd": [None],
        },
    )
    with pytest.raises(UserError, match="'None' instead of a number"):
        structure.get_list("odd")[0].number()


def test_mat_files_of_other_things(tmp_path):
    scipy.io.savemat(tmp_path / "x.mat", {"a": np.eye(3)})
    paths = [tmp_path / "x.mat"]
    with pytest.raises(UserError, match="x.mat: 0 arrays of structures with 'video_name'"):
        read_annotation("thumos14", paths)
