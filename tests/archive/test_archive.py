"""Archives: every video has one result or one dead letter, whatever dies on the way."""

import csv
import io
import json
import os
import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from child_work import work
from gated_network import create_network
from run_folder import GATED, write_run
from scene_video import write_scene

import sofnet_jax
from sofnet_jax.archive import gpu
from sofnet_jax.archive.manifest import Entry, scan_manifest
from sofnet_jax.archive.recognition import Settings, Worker
from sofnet_jax.archive.results import Shards
from sofnet_jax.archive.store import fetch, join, list_files, read_file, write_file
from sofnet_jax.host.errors import LostError, UserError
from sofnet_jax.host.workers import Child, ChildDied, Failure
from sofnet_jax.inference.many import predict_videos
from sofnet_jax.inference.prefetch import Ahead, draw_ahead
from sofnet_jax.weights.load import load_weights

CLASSES = ["run", "jump", "swim", "dive", "fall"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    _, _, variables = create_network()
    return write_run(tmp_path_factory.mktemp("run"), variables, CLASSES, GATED)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Eight videos, of which one is none and one is cut short, and one that is not there."""
    root = tmp_path_factory.mktemp("clips")
    for i in range(7):
        write_scene(root / f"{i}.mp4", seed=i)
    (root / "none.mp4").write_bytes(b"no video")
    whole = (root / "6.mp4").read_bytes()
    (root / "6.mp4").write_bytes(whole[:1000])
    return root


@pytest.fixture(scope="module")
def model(run):
    return sofnet_jax.load(run)


# The manifest.


def write_manifest(path, text: str) -> str:
    path.write_text(text, encoding="utf-8", errors="surrogateescape", newline="")
    return str(path)


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_chunks_hold_every_different_row_once_in_order(size, tmp_path):
    rng = random.Random(size)
    names = [rng.choice(["a", 'b "c"', "d,e", "f\nline", "ä", "caf\udce9"]) for _ in range(30)]
    times = [(rng.choice([None, 1.5]), rng.choice([None, 2.0, 3.25])) for _ in names]
    rows = [(f"{name}.mp4", *time) for name, time in zip(names, times, strict=True)]
    file = io.StringIO()
    csv.writer(file, lineterminator="\r\n").writerows(
        [("start", "Path", "colour", "end"), *((b, a, "red", c) for a, b, c in rows)]
    )
    text = "\ufeff" + file.getvalue().replace("red,2.0\r\n", "red,2.0\r\n\r\n , ,, \r\n")
    manifest = scan_manifest(write_manifest(tmp_path / "all.csv", text), size)
    read = [entry for chunk in manifest.chunks for entry in manifest.read(chunk)]
    assert read == list(dict.fromkeys(rows))
    assert sum(chunk.num_videos for chunk in manifest.chunks) == len(read)
    assert sum(len(chunk.repeated) for chunk in manifest.chunks) == 30 - len(read)
    assert [chunk.number for chunk in manifest.chunks] == list(range(-(-30 // size)))


def test_rows_without_a_header_are_paths(tmp_path, monkeypatch):
    manifest = scan_manifest(write_manifest(tmp_path / "all.csv", "a.mp4\n/b.mp4\ngs://c/d\n"), 9)
    entries = manifest.read(manifest.chunks[0])
    assert entries == [Entry(path, None, None) for path in ("a.mp4", "/b.mp4", "gs://c/d")]
    located = [manifest.locate(entry) for entry in entries]
    assert located == [str(tmp_path / "a.mp4"), "/b.mp4", "gs://c/d"]
    (tmp_path / "cafe\u0301.mp4").touch()  # as macOS decomposes accents
    monkeypatch.setenv("HOME", "/home/mine")
    assert manifest.locate(Entry("~/a.mp4", None, None)) == "/home/mine/a.mp4"
    composed = manifest.locate(Entry("caf\u00e9.mp4", None, None))
    assert composed == str(tmp_path / "cafe\u0301.mp4")
    there = replace(manifest, path="gs://bucket/lists/all.csv")
    assert there.locate(entries[0]) == "gs://bucket/lists/a.mp4"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "it lists no videos"),
        ("path\n\n", "it lists no videos"),
        ("a.mp4,0,5\n", "several columns need a header"),
        ("video,label\na.mp4,x\n", "several columns need a header"),
        ("path;start\na.mp4;5\n", "several columns need a header"),
        ("path,path\na,b\n", "two columns 'path'"),
        ("path,end\na.mp4\n", ":2: 1 columns where the header has 2"),
        ("path,end\na.mp4,soon\n", "end: 'soon' instead of a number"),
        ("path,end\na.mp4,inf\n", "end: 'inf' instead of a number"),
        ("path,start,end\na.mp4,3,2\n", "end 2 is not after start 3"),
        ("path,end\n,2\n", "no path"),
        ("path\na\0b\n", "no path"),
        ('path\n"a.mp4\n', "check the quotes"),
    ],
)
def test_a_row_that_makes_no_sense_is_reported_before_anything_begins(text, said, tmp_path):
    with pytest.raises(UserError) as error:
        scan_manifest(write_manifest(tmp_path / "all.csv", text), 10)
    assert said in str(error.value) and "all.csv" in str(error.value)


def test_a_manifest_that_is_missing_or_changes_is_reported(tmp_path):
    with pytest.raises(UserError, match="cannot read .*none.csv: No such file"):
        scan_manifest(str(tmp_path / "none.csv"), 10)
    path = write_manifest(tmp_path / "all.csv", "a\nb\nc\n")
    manifest = scan_manifest(path, 3)
    for other in ("a\nb\n", "a\nc\nb\n", "a\nb\nd\n"):
        write_manifest(tmp_path / "all.csv", other)
        with pytest.raises(UserError, match="changed since the command began"):
            manifest.read(manifest.chunks[0])


# A process for what may crash.


@pytest.fixture
def child():
    child = Child(work)
    yield child
    child.stop()


def test_a_child_streams_and_outlives_what_it_raises_but_not_its_end(child):
    (first,) = child.run(("who", 0), 60.0)
    assert list(child.run(("", 3), 60.0)) == [0, 1, 2]
    with pytest.raises(ValueError, match="no such thing"):
        list(child.run(("raise", 1), 60.0))
    assert list(child.run(("who", 0), 60.0)) == [first]
    with pytest.raises(ChildDied, match="ended by SIGKILL") as died:
        list(child.run(("kill", 2), 60.0))
    assert died.value.failure.kind == "crashed"
    (second,) = child.run(("who", 0), 60.0)
    assert second not in (first, os.getpid())
    got = []
    with pytest.raises(ChildDied, match=r"no progress for 0\.2 s") as died:
        for number in child.run(("sleep", 2), 0.2):
            got.append(number)
    assert died.value.failure.kind == "slow" and got == [0, 1]


class Fragile:
    """In place of a child: dies of some videos, after it has given those before."""

    def __init__(self, deadly: dict[str, int]):
        self.deadly, self.calls = deadly, []

    def run(self, job, time_limit):
        _, videos = job
        self.calls.append([video.path for video in videos])
        if self.deadly.get("loading"):
            raise ChildDied("crashed", "of want of memory")
        yield 0
        for i, video in enumerate(videos):
            if self.deadly.get(video.path, 0):
                self.deadly[video.path] -= 1
                raise ChildDied("crashed", f"of {video.path}")
            yield i, Failure("seen", video.path)


SETTINGS = Settings("", "", "last", None, None, None, "", 5, True, 1, 1.0)
VIDEOS = [Entry(name, None, None) for name in "abcde"]


@pytest.mark.parametrize(
    ("deadly", "lost", "calls"),
    [
        ({}, "", ["abcde"]),
        ({"c": 1}, "", ["abcde", "cde"]),  # killed from outside
        ({"c": 2}, "", ["abcde", "cde", "c", "d", "e"]),
        ({"c": 9}, "c", ["abcde", "cde", "c", "c", "d", "e"]),
        ({"b": 9, "e": 9}, "be", ["abcde", "bcde", "b", "b", "c", "d", "e", "e"]),
    ],
)
def test_only_a_video_that_kills_its_process_by_itself_is_given_up(deadly, lost, calls, capsys):
    work = Worker(SETTINGS)
    work._child = fragile = Fragile(deadly)
    before = sum(deadly.values())
    outcomes = work.predict(VIDEOS)
    assert outcomes == [
        Failure("crashed", f"of {path}") if path in lost else Failure("seen", path)
        for path, *_ in VIDEOS
    ]
    assert ["".join(call) for call in fragile.calls] == calls
    assert capsys.readouterr().err.count("note: of") == before - sum(deadly.values())


def test_a_process_that_ends_before_it_has_the_network_gives_up_no_video():
    work = Worker(SETTINGS)
    work._child = Fragile({"loading": 1})
    with pytest.raises(LostError, match="could not be loaded: of want of memory"):
        work.predict(VIDEOS)


# Recognition.


@pytest.mark.parametrize(("early", "num_threads"), [(True, 1), (True, 3), (False, 2)])
def test_many_in_lockstep_are_as_one_at_a_time(early, num_threads, model, clips):
    videos = [Entry(str(clips / f"{i}.mp4"), None, None) for i in range(7)]
    videos += [Entry(str(clips / "0.mp4"), 0.5, 1.5), Entry(str(clips / "none.mp4"), None, None)]
    videos += [Entry(str(clips / "absent.mp4"), None, None), Entry(videos[1].path, 90.0, None)]
    found = list(predict_videos(model, videos, early=early, num_threads=num_threads, top_k=3))
    assert sorted(number for number, _ in found) == list(range(len(videos)))
    for number, outcome in found:
        video = videos[number]
        if number in (6, 8, 9, 10):
            assert outcome.kind == "unreadable" and video.path in outcome.detail
            continue
        alone = model.predict(video.path, early=early, top_k=3, start=video.start, end=video.end)
        assert (outcome.trace.action == alone.trace.action).all() and outcome.times == alone.times
        np.testing.assert_allclose(outcome.scores, alone.scores, atol=1e-5)
        assert (outcome.start, outcome.end) == (alone.start, alone.end)
        assert outcome.spent == alone.spent and outcome.network_ms is None
        assert [guess.name for guess in outcome.guesses] == [guess.name for guess in alone.guesses]


def test_one_item_is_read_ahead_and_not_two_and_errors_come_with_theirs():
    asked = []

    def items():
        try:
            for i in range(1, 4):
                asked.append(i)
                if i == 3:
                    raise ValueError("third")
                yield i
        finally:
            asked.append("closed")

    with ThreadPoolExecutor(1) as pool:
        ahead = Ahead(items(), pool)
        assert next(ahead) == 1
        pool.submit(int).result()  # what was to be done before is done
        assert asked == [1, 2]
        assert next(ahead) == 2
        with pytest.raises(ValueError, match="third"):
            next(ahead)
        given_up = Ahead(items(), pool)
        given_up.close()
        assert asked[-2:] == [1, "closed"]


def test_items_start_before_they_are_asked_for():
    started = []

    def begin(i):
        started.append(i)
        return i

    items = draw_ahead(map(begin, range(6)), 2)
    assert next(items) == 0 and started == [0, 1, 2]
    assert list(items) == [1, 2, 3, 4, 5]


def test_workers_of_a_machine_take_a_gpu_each(monkeypatch, tmp_path):
    monkeypatch.setattr(gpu.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-5")
    chosen = []
    monkeypatch.setattr(gpu.jax.config, "update", lambda name, value: chosen.append(value))
    workers = []
    for _ in range(2):
        monkeypatch.setattr(gpu, "_held", [])
        gpu.take_gpu()
        gpu.take_gpu()  # has one
        workers.append(gpu._held)
    assert chosen == ["0", "1"]
    monkeypatch.setattr(gpu, "_held", [])
    with pytest.raises(UserError, match="use all 2 GPUs"):
        gpu.take_gpu()
    workers[1][0].close()  # as when that worker ends
    gpu.take_gpu()
    assert chosen == ["0", "1", "1"]
    for held in (workers[0], gpu._held):
        held[0].close()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert gpu.list_gpus() == []


# What is written.


@pytest.fixture(scope="module")
def memory():
    """An object store as Beam knows them, with addresses memory://…."""
    beam = pytest.importorskip("apache_beam")
    from apache_beam.io.filesystem import FileMetadata, FileSystem

    files: dict[str, bytes] = {}

    class Memory(FileSystem):
        """Where renaming is copying, and there are no folders."""

        @classmethod
        def scheme(cls):
            return "memory"

        def create(self, path, mime_type="", compression_type=None):
            class File(io.BytesIO):
                def close(self):
                    files[path] = self.getvalue()
                    super().close()

            return File()

        def open(self, path, mime_type="", compression_type=None):
            if path not in files:
                raise FileNotFoundError(path)
            return io.BytesIO(files[path])

        def rename(self, sources, destinations):
            for source, destination in zip(sources, destinations, strict=True):
                files[destination] = files.pop(source)

        def delete(self, paths):
            for path in paths:
                del files[path]

        def _list(self, prefix):
            for path in files:
                if path.startswith(prefix):
                    yield FileMetadata(path, len(files[path]))

        def exists(self, path):
            return path in files

        def has_dirs(self):
            return False

        join = split = mkdirs = copy = size = last_updated = checksum = metadata = None

    for name in ("join", "split", "mkdirs", "copy", "size", "last_updated", "checksum", "metadata"):
        setattr(Memory, name, lambda self, *args: None)
    Memory.__abstractmethods__ = frozenset()
    assert beam.io.filesystems.FileSystems.get_filesystem("memory://a")
    return files


@pytest.mark.parametrize("place", ["disk", "memory"])
def test_files_are_written_whole_listed_read_and_removed(place, tmp_path, request):
    folder = str(tmp_path / "out")
    if place == "memory":
        request.getfixturevalue("memory")
        folder = "memory://bucket/out"
    assert list_files(folder, "a-") == []
    for name in ("a-2", "a-1", "b-1"):
        write_file(join(folder, name), name.encode())
    write_file(join(folder, "a-1"), b"anew")
    assert list_files(folder, "a-") == ["a-1", "a-2"]
    assert read_file(join(folder, "a-1")) == b"anew"
    with fetch(join(folder, "a-2")) as path:
        assert Path(path).read_bytes() == b"a-2" and "://" not in path
    with pytest.raises(UserError, match="cannot read .*a-3"):
        read_file(join(folder, "a-3"))


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_a_shard_holds_results_dead_letters_and_their_number(form, model, clips, tmp_path):
    videos = [Entry("caf\udce9.mp4", None, None), Entry("b,c.mp4", 0.5, 1.5)]
    prediction = model.predict(str(clips / "0.mp4"), top_k=2)
    shards = Shards(str(tmp_path), 12, form)
    places = ["/videos/caf\udce9.mp4", "/videos/b,c.mp4"]
    tally = shards.write(3, videos, places, [prediction, Failure("crashed", 'of "it"')])
    assert (tally.results, tally.dead) == (1, 1) and tally.spent == prediction.spent.paper
    assert shards.find_done() == {3} and shards.read_tally(3) == tally
    path = tmp_path / f"results-00003-of-00012.{form}"
    if form == "jsonl":
        (row,) = map(json.loads, path.read_text().splitlines())
        assert row == prediction.to_json() | {"video": "caf\udce9.mp4"}
    else:
        from pyarrow import parquet

        (row,) = parquet.read_table(path).to_pylist()
        expected = prediction.to_json() | {"video": "caf\\udce9.mp4"}
        assert row == {name: expected[name] for name in row}
    for other in {*range(12)} - {3}:
        shards.write(other, [], [], [])
    shards.write_dead_letters(str(tmp_path / "dead.csv"))
    again = scan_manifest(str(tmp_path / "dead.csv"), 10)
    assert again.read(again.chunks[0]) == [Entry("/videos/b,c.mp4", 0.5, 1.5)]
    assert 'crashed,"of ""it"""' in (tmp_path / "dead.csv").read_text()


@pytest.mark.slow
def test_an_archive_is_accounted_for_and_taken_up(run, clips, tmp_path):
    pytest.importorskip("apache_beam")
    from sofnet_jax.archive.pipeline import process_archive

    names = [f"{i}.mp4" for i in range(7)] + ["none.mp4", "absent.mp4", "2.mp4", "3.mp4"]
    manifest = write_manifest(clips / "all.csv", "\n".join(["path", *names]))
    settings = Settings(
        str(run), load_weights(str(run)).digest, "last", None, None, None, "", 5, True, 2, 60.0
    )
    options = {"form": "jsonl", "shard_size": 4, "beam_options": ""}
    out = tmp_path / "out"

    def recognize(settings=settings, **changed):
        return process_archive(manifest, str(out), settings, **options | changed)

    account = recognize()
    assert (account.rows, account.tally.results, account.tally.dead) == (11, 6, 3)
    assert account.repeated == 2 and account.new == 9
    rows = [
        json.loads(line)
        for path in sorted(out.glob("results-*"))
        for line in path.read_text().splitlines()
    ]
    dead = list(csv.DictReader((out / "dead_letters.csv").read_text().splitlines()))
    lost = {"6.mp4", "none.mp4", "absent.mp4"}
    assert Counter(row["video"] for row in rows) == Counter(set(names) - lost)
    assert Counter(row["path"] for row in dead) == Counter(str(clips / name) for name in lost)
    # What a killed worker left: a shard without the word that it is done.
    stamps = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    (out / "done-00001-of-00003.json").unlink()
    (out / "results-00002-of-00003.jsonl").unlink()  # as somebody did
    account = recognize()
    assert (account.rows, account.new) == (11, 5)
    anew = {n for n, at in stamps.items() if (out / n).stat().st_mtime_ns != at}
    assert {"results-00001-of-00003.jsonl", "done-00001-of-00003.json"} <= anew
    assert "results-00000-of-00003.jsonl" not in anew
    assert recognize().new == 0
    with pytest.raises(UserError, match=r"holds results with top_k 5, not 1;"):
        recognize(replace(settings, top_k=1))
    with pytest.raises(UserError, match="the weights changed"):
        (out / "done-00001-of-00003.json").unlink()
        (out / "plan.json").unlink()
        recognize(replace(settings, digest="other"))
    for wrong in (
        "--runner=DirctRunner",
        "--direct_running_mode=multi_processing",
        "--direct_num_workers=two",
        "--direct_workers=2",
        "'",
    ):
        with pytest.raises(UserError, match="--beam: "):
            recognize(beam_options=wrong)
