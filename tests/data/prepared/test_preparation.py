"""Prepared data: the right frames in TFDS's format, whatever happens while they are written."""

import csv
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from numbered_frame import read_numbers

from sofnet_jax.data.pipeline import create_eval_iterator, create_train_iterator
from sofnet_jax.data.prepared.contact_sheet import Sheet
from sofnet_jax.data.prepared.dataset import create_prepared_source, read_record
from sofnet_jax.data.prepared.inspection import inspect_prepared
from sofnet_jax.data.prepared.manifest import find_version, read_summaries
from sofnet_jax.data.prepared.preparation import create_plan, describe_problems, prepare
from sofnet_jax.data.prepared.record import Format, Task, create_record
from sofnet_jax.data.prepared.shards import is_finished, plan_shards, write_shards
from sofnet_jax.data.source import Source, Video
from sofnet_jax.data.video.jpeg import decode_jpegs, to_rgb
from sofnet_jax.data.views import centre_view
from sofnet_jax.host.errors import UserError

FORM = Format(num_frames=48, short_side=256, quality=90)
CLASSES = ("jump", "run")


@pytest.fixture(scope="module")
def videos(tmp_path_factory, write_video):
    """Seven videos: long, short, large, in parts, damaged in two ways."""
    folder = tmp_path_factory.mktemp("videos")
    write_video(folder / "long.mp4", [i % 256 for i in range(500)])
    write_video(folder / "short.mkv", range(20))
    write_video(folder / "large.mp4", range(60), size=(640, 360))
    write_video(folder / "upright.mp4", range(60), size=(360, 640))
    (folder / "text.mp4").write_text("no video\n" * 50)
    (folder / "empty.mp4").write_bytes(b"")
    return folder


def _create_tasks(folder):
    def task(name, labels=(0,), **kwargs):
        return Task(name, labels, str(folder / name), **kwargs)

    train = [
        task("long.mp4", (1, 0), segments=((2.0, 5.0), (10.0, 11.5)), duration=20.0),
        task("short.mkv", duration=10.0),
        task("large.mp4", others=("b/large.mp4", "c/large.mp4")),
        dataclasses.replace(task("long.mp4", start=4.0, end=8.0), id="part"),
        task("text.mp4"),
        task("empty.mp4", segments=()),
        Task("gone.mp4", (1,), None),
    ]
    return {"train": train, "val": [task("upright.mp4", (1,), segments=())]}


def _plan(tasks, out, **kwargs):
    settings = {"num_workers": 2, "time_limit": 60.0} | kwargs
    return create_plan("videos", tasks, CLASSES, FORM, out=out, **settings)


@pytest.fixture(scope="module")
def prepared(videos, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    return prepare("videos", _plan(_create_tasks(videos), out), out)


def _open(folder, split):
    return {video.id: video for video in create_prepared_source(folder, split).videos}


def _read(video):
    """All stored frames as they are, and their times."""
    return to_rgb(decode_jpegs(read_record(video)["frames"])), video.read(np.arange, _look)[1]


def _look(height, width):
    return centre_view(height, width, 96)


def test_frames_are_the_centres_of_equal_parts(prepared):
    video = _open(prepared, "train")["long.mp4"]
    frames, times = _read(video)
    centres = [(2 * i + 1) * 500 // 96 for i in range(48)]  # ⌊(i + 1/2) · 500 / 48⌋
    assert read_numbers(frames) == [i % 256 for i in centres]
    assert np.allclose(times, np.array(centres) / 25, atol=1e-5)
    frames, times = _read(_open(prepared, "train")["part"])
    assert read_numbers(frames) == [100 + (2 * i + 1) * 100 // 96 for i in range(48)]
    assert times[0] == pytest.approx(4.04)  # 101 / 25


def test_short_videos_keep_all_their_frames_and_large_ones_are_scaled_down(prepared):
    frames, _ = _read(_open(prepared, "train")["short.mkv"])
    assert read_numbers(frames) == list(range(20)) and frames.shape == (20, 96, 96, 3)
    frames, _ = _read(_open(prepared, "train")["large.mp4"])
    assert frames.shape[1:3] == (256, 455)
    frames, _ = _read(_open(prepared, "val")["upright.mp4"])
    assert frames.shape[1:3] == (455, 256)


def test_summaries_tell_of_the_files(prepared):
    found = {video.id: video for video in read_summaries(prepared)["train"]}
    assert set(found) == {"long.mp4", "short.mkv", "large.mp4", "part"}
    assert (found["large.mp4"].width, found["large.mp4"].height) == (640, 360)
    assert found["long.mp4"].duration == pytest.approx(20.0)
    assert found["part"].duration == pytest.approx(4.0)
    assert (found["part"].frames, found["part"].available) == (48, 100)
    assert found["long.mp4"].segments == ((2.0, 5.0), (10.0, 11.5))
    assert found["short.mkv"].segments is None


@pytest.mark.parametrize(
    ("segments", "kept", "late"),
    [
        (((5.0, 9.0), (2.0, 6.5)), ((5.0, 7.0), (4.0, 6.5)), True),  # the part is 4 to 7 s
        (((5.0, 7.5),), ((5.0, 7.0),), False),  # less than a second
        (((0.0, 99.0),), ((4.0, 7.0),), True),
        (((8.0, 9.0),), None, True),
        ((), (), False),
        (None, None, False),
    ],
)
def test_segments_are_those_inside_the_part(segments, kept, late, videos):
    task = Task("a", (0,), str(videos / "long.mp4"), start=4.0, end=7.0, segments=segments)
    result = create_record(task, FORM)
    assert result.summary.segments == kept
    assert [problem.kind for problem in result.problems] == ["late"] * late


def test_every_problem_is_told_of(prepared):
    with (prepared / "problems.csv").open(newline="") as file:
        rows = {(row["kind"], row["id"]): row for row in csv.DictReader(file)}
    assert set(rows) == {
        ("unreadable", "text.mp4"),
        ("unreadable", "empty.mp4"),
        ("missing", "gone.mp4"),
        ("short", "short.mkv"),
        ("cut off", "short.mkv"),  # 0.8 of 10 seconds
        ("duplicate", "large.mp4"),
    }
    assert "0.8 s of 10.0 s" in rows["cut off", "short.mkv"]["detail"]
    table = "\n".join(describe_problems(prepared))
    assert "unreadable         2  left out; such as empty.mp4" in table
    assert str(prepared / "problems.csv") in table


_PLAIN = """
import sys, json
import tensorflow_datasets as tfds
builders = [tfds.builder_from_directory({folder!r}), tfds.builder("videos", data_dir={root!r})]
for builder in builders:
    source = builder.as_data_source("train")
    names = builder.info.features["labels"].feature.names
    rows = {{
        r["id"].decode(): [
            [names[i] for i in r["labels"]], r["segments"].tolist(), bool(r["localised"]),
            len(r["frames"]), r["frames"][0][:3].hex(), round(float(r["duration"]), 3),
            round(float(r["times"][-1]), 3), int(r["width"]), int(r["height"])
        ] for r in source
    }}
    print(json.dumps(rows))
assert not [m for m in sys.modules if m.startswith(("tensorflow.", "sofnet_jax"))]
"""


def test_plain_tfds_reads_it_in_a_process_without_us(prepared, tmp_path):
    code = _PLAIN.format(folder=str(prepared), root=str(prepared.parents[1]))
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    first, second = map(json.loads, done.stdout.splitlines())
    assert first == second and set(first) == {"long.mp4", "short.mkv", "large.mp4", "part"}
    segments = [[2.0, 5.0], [10.0, 11.5]]
    last = round(494 / 25, 3)
    assert first["long.mp4"] == [
        ["run", "jump"], segments, True, 48, "ffd8ff", 20.0, last, 96, 96
    ]  # fmt: skip
    assert first["short.mkv"][1:3] == [[], False]


def test_a_video_without_action_differs_from_one_that_is_not_annotated(prepared):
    assert _open(prepared, "val")["upright.mp4"].relevant == ()
    assert _open(prepared, "train")["short.mkv"].relevant is None


@pytest.mark.slow
def test_number_of_workers_does_not_matter(videos, tmp_path):
    contents = []
    for workers in (1, 3):
        out = tmp_path / str(workers)
        plan = _plan(_create_tasks(videos), out, num_workers=workers)
        folder = prepare("videos", plan, out)
        contents.append({p.name: p.read_bytes() for p in folder.iterdir()})
    assert contents[0] == contents[1]


def test_tests_see_the_frames_of_the_files(prepared, videos):
    """16 of 48 stored frames are the 16 of all frames; 48 is 16 times an odd number."""
    task = _create_tasks(videos)["train"][0]
    file = Video(task.id, task.path, task.labels, relevant=task.segments)
    sources = [
        Source([file], CLASSES),
        Source([_open(prepared, "train")["long.mp4"]], CLASSES),
    ]
    batches = [
        next(create_eval_iterator(source, batch_size=1, num_frames=16, size=84))
        for source in sources
    ]
    assert np.array_equal(batches[0]["relevant"], batches[1]["relevant"])
    assert batches[0]["relevant"].sum() > 0
    difference = np.abs(np.subtract(*(batch["frames"].astype(int) for batch in batches)))
    assert 0 < difference.mean() < 3  # JPEG


@pytest.mark.slow
def test_workers_read_it_in_the_same_order(prepared):
    def read(workers):
        batches = create_train_iterator(
            create_prepared_source(prepared, "train"),
            batch_size=2,
            num_frames=4,
            size=32,
            seed=3,
            num_workers=workers,
        )
        try:
            return [next(batches) for _ in range(4)]
        finally:
            batches.close()

    for ours, theirs in zip(read(0), read(2), strict=True):
        assert ours["id"] == theirs["id"]
        assert np.array_equal(ours["frames"], theirs["frames"])


def _write_many(folder, write_video, count):
    path = write_video(folder / "0.mp4", range(24))
    for i in range(1, count):
        shutil.copyfile(path, folder / f"{i}.mp4")
    return {"train": [Task(str(i), (0,), str(folder / f"{i}.mp4")) for i in range(count)]}


_SCRIPT = """
import sys
from test_preparation import _plan, prepare, Task, Path
if __name__ == "__main__":
    folder, out, count = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    tasks = {"train": [Task(str(i), (0,), f"{folder}/{i}.mp4") for i in range(count)]}
    import dataclasses
    plan = dataclasses.replace(_plan(tasks, out), on_video=lambda n: print(n, file=sys.stderr))
    prepare("videos", plan, out)
"""


def _start(tmp_path, code, *arguments):
    script = tmp_path / "script.py"
    script.write_text(code)
    folders = (Path(__file__).parent, Path(__file__).parents[2], os.getcwd())
    paths = os.pathsep.join(map(str, folders))
    return subprocess.Popen(
        [sys.executable, str(script), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": paths},
    )


def _run_script(tmp_path, code, *arguments):
    with _start(tmp_path, code, *arguments) as process:
        stdout, stderr = process.communicate()
    assert process.returncode == 0, stderr
    return stdout


@pytest.mark.slow
def test_killed_and_continued_it_redoes_no_finished_shard(write_video, tmp_path):
    count = 320  # five shards
    tasks = _write_many(tmp_path / "videos", write_video, count)
    out = tmp_path / "out"
    done = 0
    with _start(tmp_path, _SCRIPT, tmp_path / "videos", out, count) as process:
        for line in process.stderr:
            done += int(line)
            if done > 150:
                break
        process.send_signal(signal.SIGKILL)
    plan = _plan(tasks, out)
    finished = [shard for shard in plan.all_shards if is_finished(shard)]
    assert 2 <= len(finished) < 5
    assert not (out / "videos/1.0.0").exists()
    before = {s.summary_path: s.data_path.stat().st_ino for s in finished}
    told = []
    folder = prepare("videos", dataclasses.replace(plan, on_video=told.append), out)
    assert told[0] == 64 * len(finished) and sum(told) == count
    inodes = {p.stat().st_ino for p in folder.glob("*.array_record*")}
    assert set(before.values()) <= inodes
    assert sorted(os.listdir(out / "videos")) == ["1.0.0"]
    other = prepare("videos", _plan(tasks, tmp_path / "other"), tmp_path / "other")
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == {
        p.name: p.read_bytes() for p in other.iterdir()
    }


def test_files_that_come_later_change_their_shards_only(write_video, tmp_path):
    tasks = _write_many(tmp_path / "videos", write_video, 200)["train"]
    missing = [dataclasses.replace(t, path=None) if t.id == "7" else t for t in tasks]
    before, after = (
        {shard.summary_path for shard in plan_shards("train", part, FORM, tmp_path)}
        for part in (missing, tasks)
    )
    assert len(before) == len(after) == 3 and len(before & after) == 2
    os.utime(tmp_path / "videos/9.mp4", ns=(1, 1))  # as another file would have
    changed = {shard.summary_path for shard in plan_shards("train", tasks, FORM, tmp_path)}
    assert len(after & changed) == 2


def test_once_prepared_it_is_left_alone(videos, tmp_path):
    tasks = _create_tasks(videos)
    folder = prepare("videos", _plan(tasks, tmp_path), tmp_path)
    before = {p: p.stat().st_mtime_ns for p in folder.iterdir()}
    assert prepare("videos", _plan(tasks, tmp_path), tmp_path) == folder
    assert before == {p: p.stat().st_mtime_ns for p in folder.iterdir()}
    with pytest.raises(UserError, match="prepared from other files, annotations or settings"):
        prepare("videos", _plan(tasks | {"val": tasks["train"]}, tmp_path), tmp_path)
    (folder / "prepared.json").unlink()
    with pytest.raises(UserError, match="was not prepared here"):
        prepare("videos", _plan(tasks, tmp_path), tmp_path)


def test_what_a_killed_run_left_is_removed_when_all_is_there(videos, tmp_path):
    folder = prepare("videos", _plan(_create_tasks(videos), tmp_path), tmp_path)
    unfinished = folder.parent / ".unfinished"
    unfinished.mkdir()
    (unfinished / "0.array_record").touch()
    prepare("videos", _plan(_create_tasks(videos), tmp_path), tmp_path)
    assert not unfinished.exists()


def _copy(prepared, tmp_path):
    return Path(shutil.copytree(prepared, tmp_path / "videos/1.0.0"))


def _edit(name, before, after):
    def edit(folder):
        text = (folder / name).read_text()
        assert before in text
        (folder / name).write_text(text.replace(before, after, 1))

    return edit


def _write(name, data):
    return lambda folder: (folder / name).write_bytes(data)


def _append(name, data):
    return lambda folder: _write(name, (folder / name).read_bytes() + data)(folder)


def _remove(name):
    return lambda folder: (folder / name).unlink()


_LIST, _ABOUT, _INFO, _FEATURES = (
    "videos.jsonl", "prepared.json", "dataset_info.json", "features.json"
)  # fmt: skip
_LABELS = '"labels": [0], "frames": 20'  # of one video alone
_SHARD = "videos-train.array_record-00000-of-00001"
_ANYWHERE = {
    "no list": (_remove(_LIST), _LIST, "cannot be read"),
    "empty list": (_write(_LIST, b""), "1.0.0", ""),
    "list in no encoding": (_append(_LIST, b"\xff"), f"{_LIST}:6", "not UTF-8"),
    "deep list": (_append(_LIST, b"[" * 100_000), f"{_LIST}:6", "nested"),
    "list cut off": (_append(_LIST, b'{"split": "train", "i'), f"{_LIST}:6", "not JSON"),
    "list of something else": (_append(_LIST, b"[1]"), f"{_LIST}:6", "a list of 1"),
    "one video more": (lambda f: _append(_LIST, (f / _LIST).read_bytes())(f), "1.0.0", _LIST),
    "label too high": (_edit(_LIST, _LABELS, '"labels": [2], "frames": 20'), f"{_LIST}:", "2 is o"),
    "label a word": (_edit(_LIST, _LABELS, '"labels": ["x"], "frames": 20'), f"{_LIST}:", "'x'"),
    "no label": (_edit(_LIST, _LABELS, '"labels": [], "frames": 20'), f"{_LIST}:", "empty"),
    "segment a word": (_edit(_LIST, "[[2.0,", '[["a",'), f"{_LIST}:", "'a'"),
    "duration a word": (
        _edit(_LIST, '"duration": 4', '"duration": null, "x": 4'),
        f"{_LIST}:",
        "duration",
    ),
    "id a number": (_edit(_LIST, '"id": "part"', '"id": 5'), f"{_LIST}:", "instead of text"),
    "nothing about it": (_write(_ABOUT, b"{}"), _ABOUT, "no 'classes'"),
    "text about it": (_write(_ABOUT, b"text"), f"{_ABOUT}:1", "not JSON"),
    "a number of classes": (_edit(_ABOUT, '"classes": [', '"classes": 5, "x": ['), _ABOUT, "'5'"),
    "no info": (_remove(_INFO), _INFO, "cannot be read"),
    "text for info": (_write(_INFO, b"text"), f"{_INFO}:1", "not JSON"),
    "no info in it": (_write(_INFO, b"{}"), "1.0.0", "TFDS cannot read it"),
    "no features": (_remove(_FEATURES), _FEATURES, "cannot be read"),
    "other features": (_write(_FEATURES, b"{}"), _FEATURES, "not the features"),
    "no shard": (_remove(_SHARD), _SHARD, "missing"),
}


def _refuses(expected, function, *arguments):
    """It says in one line which file, what, and what to do."""
    with pytest.raises(UserError) as caught:
        function(*arguments)
    message = str(caught.value)
    assert "\n" not in message and message.endswith(" and prepare it again"), message
    assert all(part in message for part in expected), message


@pytest.mark.parametrize("name", _ANYWHERE)
def test_a_damaged_data_set_is_refused_by_all_who_read_it(name, prepared, videos, tmp_path):
    folder = _copy(prepared, tmp_path)
    damage, *expected = _ANYWHERE[name]
    damage(folder)
    sheet = Sheet(tmp_path / "sheet.png", 84, (1.0,), 0)
    _refuses(expected, create_prepared_source, folder.parent, "train")
    _refuses(expected, inspect_prepared, folder.parent, sheet)
    if "about" not in name and "classes" not in name:
        _refuses(expected, prepare, "videos", _plan(_create_tasks(videos), tmp_path), tmp_path)


_BEFORE_USE = {
    "cut": (lambda folder: os.truncate(folder / _SHARD, 200_000), "damaged"),
    "cut to nothing": (lambda folder: os.truncate(folder / _SHARD, 0), "0 records instead of 4"),
    "of another split": (
        lambda folder: shutil.copy(folder / _SHARD.replace("train", "val"), folder / _SHARD),
        "1 records instead of 4",
    ),
}


@pytest.mark.parametrize("name", _BEFORE_USE)
def test_damaged_shards_are_found_before_they_are_taken_for_done(name, prepared, videos, tmp_path):
    folder = _copy(prepared, tmp_path)
    damage, expected = _BEFORE_USE[name]
    damage(folder)
    sheet = Sheet(tmp_path / "sheet.png", 84, (1.0,), 0)
    _refuses([_SHARD, expected], inspect_prepared, folder, sheet)
    _refuses(
        [_SHARD, expected], prepare, "videos", _plan(_create_tasks(videos), tmp_path), tmp_path
    )
    shutil.rmtree(folder)
    assert prepare("videos", _plan(_create_tasks(videos), tmp_path), tmp_path) == folder


@pytest.mark.parametrize("damage", [_remove("problems.csv"), _write("problems.csv", b"a,b\n1\n")])
def test_damaged_problems_are_told_of(damage, prepared, videos, tmp_path):
    damage(_copy(prepared, tmp_path))
    plan = _plan(_create_tasks(videos), tmp_path)
    _refuses(["problems.csv: "], prepare, "videos", plan, tmp_path)


def test_a_damaged_record_is_named_when_it_is_looked_at(prepared, tmp_path):
    folder = _copy(prepared, tmp_path)
    data = bytearray((folder / _SHARD).read_bytes())
    for i in range(200, 16_000, 100):
        data[i] ^= 0x5A
    (folder / _SHARD).write_bytes(data)
    sheet = Sheet(tmp_path / "sheet.png", 84, (1.0,), 0)
    with pytest.raises(UserError, match=rf"^{folder}: \S+: Corrupted [^\n]+$"):
        inspect_prepared(folder, sheet)


def test_a_list_in_another_order_gives_no_video_the_label_of_another(prepared, tmp_path):
    folder = _copy(prepared, tmp_path)
    first, second, *rest = (folder / _LIST).read_text().splitlines(keepends=True)
    (folder / _LIST).write_text("".join([second, first, *rest]))
    source = create_prepared_source(folder, "train")
    batch = next(create_eval_iterator(source, batch_size=4, num_frames=4, size=32))
    assert batch["valid"].tolist() == [False, False, True, True]
    names = [json.loads(line)["id"] for line in (first, second)]
    for i, (ours, other) in enumerate(zip(names[::-1], names, strict=True)):
        assert f"record {i} of train belongs to {other}, not to {ours}" in batch["errors"][i][ours]


def test_a_folder_beside_the_versions_is_none(prepared, tmp_path):
    folder = _copy(prepared, tmp_path)
    for name in ("1.0.0.old", "copy", "0.9.10"):
        shutil.copytree(folder, folder.parent / name)
    assert find_version(folder.parent) == folder
    shutil.copytree(folder, folder.parent / "1.0.10")
    assert find_version(folder.parent) == folder.parent / "1.0.10"


def test_where_nothing_can_be_written(prepared, videos, tmp_path):
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos/.unfinished").touch()
    with pytest.raises(UserError, match="cannot write to .*: File exists"):
        prepare("videos", _plan(_create_tasks(videos), tmp_path), tmp_path)
    for path in (tmp_path, tmp_path / "videos/.unfinished/sheet.png"):
        with pytest.raises(UserError, match=f"cannot write to {path}: "):
            inspect_prepared(prepared, Sheet(path, 84, (1.0,), 0))


def _cut(path):
    path.write_bytes(path.read_bytes()[:-50_000])


def _without_a_video(path):
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values | {"videos": values["videos"][1:]}))


_DAMAGES = {
    "none": (lambda path: None, ".json", 2),
    "cut": (_cut, ".array_record", 1),
    "no records": (Path.unlink, ".array_record", 1),
    "no report": (Path.unlink, ".json", 1),
    "text for a report": (lambda path: path.write_text("[1, 2"), ".json", 1),
    "another report": (lambda path: path.write_text('{"videos": 3}'), ".json", 1),
    "a report of fewer videos": (_without_a_video, ".json", 1),
}


@pytest.mark.parametrize("name", _DAMAGES)
def test_only_whole_shards_are_taken_for_finished(name, videos, tmp_path):
    damage, suffix, expected = _DAMAGES[name]
    plan = _plan(_create_tasks(videos), tmp_path)
    write_shards(plan.all_shards, CLASSES, num_workers=2, time_limit=60.0, on_video=plan.on_video)
    damage(plan.all_shards[0].summary_path.with_suffix(suffix))
    assert sum(is_finished(shard) for shard in plan.all_shards) == expected


_FULL = """
import resource, signal, sys
from test_preparation import _create_tasks, _plan, prepare, Path, UserError
if __name__ == "__main__":
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))
    videos, out = map(Path, sys.argv[1:])
    try:
        prepare("videos", _plan(_create_tasks(videos), out), out)
    except UserError as error:
        print(error)
"""


@pytest.mark.slow
def test_a_full_disk_is_told_of_and_leaves_nothing_that_reads_as_whole(videos, tmp_path):
    out = tmp_path / "out"
    told = _run_script(tmp_path, _FULL, videos, out)
    assert told == f"cannot write to {out}/videos/.unfinished: File too large\n"
    assert [path for path in out.rglob("*") if path.is_file()] == []
    assert prepare("videos", _plan(_create_tasks(videos), out), out).is_dir()


_BEAM = """
import sys
from test_preparation import _create_tasks, _plan, prepare, Path
from sofnet_jax.data.prepared.preparation import configure_beam
if __name__ == "__main__":
    videos, out = map(Path, sys.argv[1:3])
    beam = configure_beam(" ".join(sys.argv[3:]))
    prepare("videos", _plan(_create_tasks(videos), out), out, beam)
"""


def _read_records(folder, split):
    """Every feature of every record, in order."""
    source = tfds.builder_from_directory(str(folder)).as_data_source(split)
    return [{k: np.asarray(v).tolist() for k, v in record.items()} for record in source]


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [[], ["--direct_num_workers=2", "--direct_running_mode=multi_processing"]]
)
def test_beam_writes_the_same_records(options, prepared, videos, tmp_path):
    pytest.importorskip("apache_beam")
    out = tmp_path / "out"
    _run_script(tmp_path, _BEAM, videos, out, "--runner=DirectRunner", *options)
    folder = out / "videos/1.0.0"
    for split in ("train", "val"):
        assert _read_records(folder, split) == _read_records(prepared, split)
    assert _open(folder, "train").keys() == _open(prepared, "train").keys()
    names = {path.name for path in prepared.iterdir()}
    assert {path.name for path in folder.iterdir()} - names == {
        "videos-train.shard_infos.json",
        "videos-val.shard_infos.json",
    }
    for name in ("problems.csv", "videos.jsonl", "prepared.json", "features.json"):
        assert (folder / name).read_text().replace(str(out), "") == (
            prepared / name
        ).read_text().replace(str(prepared.parents[1]), "")


def test_a_data_set_in_a_folder_that_cannot_be_read(tmp_path, close_folder):
    (tmp_path / "videos/1.0.0").mkdir(parents=True)
    close_folder(tmp_path / "videos")
    with pytest.raises(UserError, match="videos: cannot be read .Permission denied"):
        find_version(tmp_path / "videos")
