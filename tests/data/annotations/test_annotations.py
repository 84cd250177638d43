"""What holds for the annotations of every benchmark; each has a file of its own besides."""

import json
import os

import numpy as np
import pytest
from annotation_files import refuse, write_files

from sofnet_jax.data.annotations.benchmark import (
    BENCHMARKS,
    count_classes,
    describe_counts,
    read_annotation,
)
from sofnet_jax.data.annotations.clip import Annotation, Clip, clean_segments
from sofnet_jax.data.annotations.files import Notes
from sofnet_jax.data.annotations.names import find_file_split
from sofnet_jax.host.errors import UserError

# The smallest files that each reader takes.
SAMPLES = {
    "activitynet": {"train.txt": "aaaaaaaaaaa,100,0\n", "classInd.txt": "0,Archery\n1,BMX\n"},
    "mini_kinetics": {
        "train.txt": "air drumming/aaaaaaaaaaa_000001_000011 300 0\n",
        "classInd.txt": "air drumming\narchery\n",
    },
    "thumos14": {
        "train.txt": "video_validation_0000001,100,1\n",
        "classInd.txt": "1 Archery\n2 Diving\n",
    },
    "mini_sports1m": {"train.txt": "aaaaaaaaaaa 100 0\n", "labels.txt": "boomerang\nboxing\n"},
    "videos": {"train.csv": "a.mp4,run\n"},
}


@pytest.mark.parametrize("name", BENCHMARKS)
def test_samples_are_read_as_files_and_as_folders(name, tmp_path):
    paths = write_files(tmp_path / "deep", SAMPLES[name])
    by_file = read_annotation(name, paths)
    assert [(clip.split, len(clip.labels)) for clip in by_file.clips] == [("train", 1)]
    assert by_file.name == name and by_file.clips[0].place.startswith(f"{paths[0]}:1")
    by_folder = read_annotation(name, [tmp_path / "deep" if name == "videos" else tmp_path])
    assert by_folder == by_file
    assert read_annotation(name, [*paths, tmp_path / "deep"]).clips == by_file.clips


@pytest.mark.parametrize("name", BENCHMARKS)
def test_files_that_are_not_there_or_not_recognised(name, tmp_path):
    refuse(name, [], "no files")
    refuse(name, [tmp_path / "missing.txt"], f"{tmp_path}/missing.txt: no such file or folder")
    (tmp_path / "empty").mkdir()
    refuse(name, [tmp_path / "empty"], f"{tmp_path}/empty: no ")
    paths = write_files(tmp_path / "good", SAMPLES[name])
    strange = {
        "empty.txt": "",
        "blank.csv": " \r\n\n",
        "space.csv": "\x1c\n\u2003\n",
        "other.json": '{"a": [1, 2]}',
        "notes.json": '"text"',
    }
    for path in write_files(tmp_path / "strange", strange):
        refuse(name, [*paths, path], str(path))


@pytest.mark.parametrize("name", [n for n in BENCHMARKS if n != "videos"])
def test_what_is_not_recognised_in_a_folder_is_noted(name, tmp_path):
    paths = write_files(tmp_path, SAMPLES[name])
    alone = read_annotation(name, paths)
    write_files(
        tmp_path,
        {
            "README.txt": "How to get it:\n\nSee the home page, or ask.\n",
            "sub/latin.txt": "größe\n".encode("latin-1"),
            "binary.txt": b"\0\1\2",
            "empty.csv": "",
            "other.json": "[1, 2]",
            "video.mp4": b"\0",
            ".hidden.txt": "x",
        },
    )
    annotation = read_annotation(name, [tmp_path])
    assert annotation.clips == alone.clips
    (note,) = set(annotation.notes) - set(alone.notes)
    assert note.startswith("unrecognised files left out: 5, first ")


@pytest.mark.parametrize("name", BENCHMARKS)
@pytest.mark.parametrize(
    ("suffix", "content", "parts"),
    [
        (".txt", "ok\nok\ngröße\n".encode("latin-1"), [":3: not UTF-8 text"]),
        (".txt", "a,1,2\nb,1,2\n".encode("utf-16"), [":1: not "]),
        (".txt", b"a,100,0\nb\0c,100,0\n", [":2: not text (a NUL byte)"]),
        (".json", b'{"database":', [":1: not JSON"]),
        (".json", b"[\n1,\n2,\n}", [":4: not JSON"]),
        (".json", b"[" * 100_000, ["nested too deeply"]),
        (".json", b'{"a":' * 50_000 + b"1" + b"}" * 50_000, ["nested too deeply"]),
        (".json", b'[{"path": "a.mp4", "start": NaN}]', ["NaN is not a JSON number"]),
        (".json", b'{"database": {"a": {"duration": -Infinity}}}', ["-Infinity is not"]),
        (".json", b"[" + b"9" * 5000 + b"]", ["thousands of digits"]),
        (".json", b'{"database": {"x": {}, "x": {"a": 1}}}', ["duplicate key 'x'"]),
        (".json", b'{"database": "\xff"}', [":1: not UTF-8 text"]),
    ],
)
def test_files_that_are_broken(name, suffix, content, parts, tmp_path):
    paths = write_files(tmp_path, SAMPLES[name])
    (bad,) = write_files(tmp_path, {f"train_x{suffix}": content})
    if suffix == ".json" and name == "thumos14" and b"\xff" not in content:
        parts = ["not a file of ", "it begins with "]
    refuse(name, [*paths, bad], str(bad), *parts)


def test_a_folder_of_several_data_sets_is_suspected(tmp_path):
    for name, files in SAMPLES.items():
        write_files(tmp_path / name, files)
    refuse("activitynet", [tmp_path], f"if {tmp_path} has files of other data sets too, give")


def test_what_is_given_twice_counts_as_named(tmp_path):
    write_files(tmp_path, SAMPLES["activitynet"] | {"README.txt": "How to get it:\n\nSee\nSee\n"})
    assert read_annotation("activitynet", [tmp_path]).clips
    for paths in ([tmp_path, tmp_path / "README.txt"], [tmp_path / "README.txt", tmp_path]):
        refuse("activitynet", paths, "README.txt: not a file of ActivityNet")


def test_broken_json_in_a_folder_is_not_passed_over(tmp_path):
    write_files(tmp_path, SAMPLES["activitynet"] | {"anet.json": '{"database": {"aaa'})
    refuse("activitynet", [tmp_path], "anet.json:1: not JSON")


def test_files_that_cannot_be_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.txt")  # opening it would wait for ever
    refuse("activitynet", [tmp_path / "pipe.txt"], "no such file")
    write_files(tmp_path, SAMPLES["activitynet"])
    assert len(read_annotation("activitynet", [tmp_path]).clips) == 1


def test_links_are_followed_once_and_not_in_circles(tmp_path):
    write_files(tmp_path / "real", SAMPLES["activitynet"])
    os.symlink(tmp_path / "real", tmp_path / "real" / "circle")
    os.symlink(tmp_path / "real" / "train.txt", tmp_path / "real" / "train_again.txt")
    annotation = read_annotation("activitynet", [tmp_path / "real"])
    assert [clip.id for clip in annotation.clips] == ["aaaaaaaaaaa"]
    assert all("another file" not in note for note in annotation.notes)


def test_a_name_that_is_no_benchmark(tmp_path):
    refuse("ucf101", [tmp_path], "'ucf101' is not a benchmark", "thumos14")


@pytest.mark.parametrize("name", BENCHMARKS)
def test_the_order_of_the_files_does_not_matter(name, tmp_path):
    paths = write_files(tmp_path, SAMPLES[name])
    assert read_annotation(name, paths[::-1]) == read_annotation(name, paths)


@pytest.mark.slow
def test_rows_that_take_for_ever_to_match(tmp_path):
    paths = write_files(tmp_path, {"train.txt": "1," * 200_000 + "x\n" + " " * 100_000 + "1 1 a"})
    for name in BENCHMARKS:
        refuse(name, paths, str(paths[0]))
    rows = "https://youtu.be/aaaaaaaaaaa 1\nhttps://youtu.be/" + "a" * 200_000
    paths = write_files(tmp_path, {"train.txt": rows, "labels.txt": "boomerang\nboxing\n"})
    refuse("mini_sports1m", paths, "train.txt:2: ", "is not a YouTube address and labels")
    rows = f"path,label,end\na.mp4,run,{'9' * 120_000}x\n"
    refuse("videos", write_files(tmp_path, {"train.csv": rows}), "train.csv:2: end: '999")


COUNTS = {"activitynet": 200, "mini_kinetics": 200, "thumos14": 101, "mini_sports1m": 487}


@pytest.mark.parametrize("name", COUNTS)
def test_a_line_above_the_class_names_moves_no_label(name, tmp_path):
    """An unknown header would be class 0."""
    lists = {"train.txt": SAMPLES[name]["train.txt"].replace(",1\n", ",0\n")}
    names = "".join(f"class {chr(97 + i // 26)}{chr(97 + i % 26)}\n" for i in range(COUNTS[name]))
    whole = read_annotation(name, write_files(tmp_path, lists | {"classes.txt": names}))
    headed = lists | {"classes.txt": "label\n" + names}
    assert read_annotation(name, write_files(tmp_path, headed)).clips == whole.clips
    for head in ("class name", "# classes"):
        paths = write_files(tmp_path, lists | {"classes.txt": f"{head}\n{names}"})
        refuse(name, paths, f"classes.txt:1: '{head}'", "delete this line if it is a header")


@pytest.mark.parametrize("separator", [";", "; ", ":", "|", " | ", "\t", ", "])
def test_separators_between_class_numbers_and_names(separator, tmp_path):
    index = f"0{separator}Archery\n1{separator}BMX\n"
    paths = write_files(tmp_path, SAMPLES["activitynet"] | {"classInd.txt": index})
    annotation = read_annotation("activitynet", paths)
    assert annotation.classes == ("Archery", "BMX") and annotation.clips[0].labels == ("Archery",)


def test_annotations_without_a_single_labelled_video(tmp_path):
    (path,) = write_files(tmp_path, {"anet.json": '{"database": {}}'})
    refuse("activitynet", [path], f"no labelled videos in {path}")
    files = {"all.json": "[]", "labels.txt": "boomerang\nboxing\n", "train.txt": "aaaaaaaaaaa\n"}
    refuse("mini_sports1m", write_files(tmp_path, files), "all.json")


def test_columns_there_twice(tmp_path):
    rows = "video,numFrame,Subset,subset\naaaaaaaaaaa,300,validation,training\n"
    refuse(
        "activitynet", write_files(tmp_path, {"v.csv": rows}), "v.csv:1: column 'subset' is there"
    )
    rows = "label,youtube_id,time_start,time_end,split,,\nyoga,aaaaaaaaaaa,0,10,train,x,y\n"
    paths = write_files(tmp_path, {"k.csv": rows})
    assert read_annotation("mini_kinetics", paths).classes == ("yoga",)


MORE = {
    "activitynet": {
        "anet.json": '{"database": {"bbbbbbbbbbb": {"subset": "validation", "duration": 9.5, '
        '"annotations": [{"label": "BMX", "segment": [1, 2.5]}]}}}',
        "info.csv": "video,numFrame,seconds,subset\nv_bbbbbbbbbbb,300,10,validation\n",
    },
    "mini_kinetics": {
        "k.csv": "label,youtube_id,time_start,time_end,split\narchery,bbbbbbbbbbb,0,10,val\n",
        "train_ids.txt": "bbbbbbbbbbb\n",
    },
    "thumos14": {
        "Archery_val.txt": "video_validation_0000001 1.0 2.5\n",
        "durations.txt": "video_validation_0000001.mp4\n9.5\n",
        "avoid.txt": "video_validation_0000001 Diving\n",
    },
    "mini_sports1m": {
        "all.json": '[{"id": "bbbbbbbbbbb", "source487": "test", "label487": [1], "duration": 5}]',
        "test_partition.txt": "https://www.youtube.com/watch?v=ccccccccccc 0,1\n",
    },
    "videos": {
        "val.json": '[{"path": "b.mp4", "label": "run", "start": 1, "segments": [[1, 2.5]]}]',
        "val.csv": "path,label,split,end,relevant_start,relevant_end\nc.mp4,run,val,9,1,2\n",
    },
}
HOSTILE = (
    "../",
    "\0",
    "\udcff",
    "NaN",
    "1e999",
    "-",
    "9" * 5000,
    *'",\n\r[]{} /:\\\t',
    "null",
    "\x1b",
    "\u202e",
    "\ufeff",
    "٣",
    "",
)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_no_damage_goes_further_than_a_line_that_names_the_file(name, tmp_path):
    files = SAMPLES[name] | MORE[name]
    paths = write_files(tmp_path, files)
    assert read_annotation(name, paths).clips
    random = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        path = paths[random.integers(len(paths))]
        text = files[path.name]
        for _ in range(random.integers(1, 4)):
            start = random.integers(len(text) + 1)
            text = (
                text[:start]
                + HOSTILE[random.integers(len(HOSTILE))]
                + text[start + random.integers(12) :]
            )
        path.write_bytes(text.encode(errors="surrogateescape"))
        try:
            read_annotation(name, paths)
        except UserError as error:
            refused += 1
            assert str(error).isprintable() and str(tmp_path) in str(error)
        path.write_text(files[path.name])
    assert refused > 100


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train.txt", "train"),
        ("mini_sports1m_test.csv", "val"),
        ("actnet-Train_split.txt", "train"),
        ("validate.csv", "val"),
        ("validation_set.mat", "val"),
        ("training.json", "train"),
        ("val/list.txt", "val"),
        ("my_val/list.txt", ""),
        ("val/train.txt", "train"),
        ("train_val.txt", ""),
        ("trainval.txt", ""),
        ("constraint.txt", ""),
        ("evaluation.txt", ""),
    ],
)
def test_split_by_name(name, split, tmp_path):
    assert find_file_split(tmp_path / "x" / name) == split


def test_segments_are_cut_to_their_video_and_noted():
    notes = Notes()
    given = [(1, 4), (8, 10.5), (9, 12), (-1, 2), (1, 4), (3, 3), (5, 4), (-3, -1), (10, 11)]
    placed = [(f"f:{i}", (float(a), float(b))) for i, (a, b) in enumerate(given, 1)]
    segments = clean_segments(placed, 10.0, notes)
    assert segments == ((1, 4), (8, 10), (9, 10), (0, 2))
    assert notes.lines() == (
        "segments cut to their video: 3, first f:2 8 to 10.5 s",
        "duplicate segments left out: 1, first f:5 1 to 4 s",
        "segments left out: they contain nothing of their video: 4, first f:6 3 to 3 s",
    )
    assert clean_segments([("f:1", (5.0, 4.0))], None, Notes()) is None
    assert clean_segments([("f:1", (5.0, 1e6))], None, Notes()) == ((5, 1e6),)


def test_counts_beside_the_papers():
    clips = [Clip(str(i), "val", ("a", "b") if i < 2 else ("b",), "") for i in range(9868)]
    annotation = Annotation("mini_kinetics", ("a", "b", "c"), tuple(clips))
    assert describe_counts(annotation) == [
        "train: 0 (121,215 fewer than the paper's 121,215) videos",
        "val: 9,868 (1 more than the paper's 9,867) videos",
        "val: from 0 ('c') to 9,868 ('b') videos in a class",
        "3 (197 fewer than the paper's 200) classes",
    ]
    assert count_classes(annotation, "val") == {"a": 2, "b": 9868, "c": 0}
    assert count_classes(annotation, "train") == {"a": 0, "b": 0, "c": 0}
    exact = Annotation("thumos14", (), tuple(Clip(str(i), "train", (), "") for i in range(1010)))
    assert "train: 1,010 (as in the paper) videos" in describe_counts(
        Annotation("thumos14", ("a",), exact.clips)
    )
    assert describe_counts(Annotation("videos", ("a",), ())) == [
        "train: 0 videos",
        "val: 0 videos",
        "1 classes",
    ]


def test_a_json_value_says_where_it_stands(tmp_path):
    video = {"subset": "training", "annotations": [{"label": "a", "segment": [0, "x"]}]}
    text = json.dumps({"database": {"a\nb": video}})
    (path,) = write_files(tmp_path, {"a.json": text})
    refuse("activitynet", [path], r"a.json: database.a\nb: 'a\nb' is not a video id")
    (path,) = write_files(tmp_path, {"a.json": text.replace(r"a\nb", "ab")})
    refuse(
        "activitynet",
        [path],
        "a.json: database.ab.annotations[0].segment[1]: 'x' instead of a numb",
    )
