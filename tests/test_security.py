"""Files of strangers: nothing in them is run, written elsewhere, or taken at its word for memory.

What else is tested of it: weights in test_weight_file and test_hub, stored predictions in
test_prediction_file, damaged videos in test_fuzz, annotations in test_annotations*, the names in a
report in test_page.
"""

import contextlib
import functools
import http.server
import json
import os
import socket
import sys
import threading
import types

import numpy as np
import pytest
import tensorflow_datasets as tfds
import tensorstore as ts
from array_record.python.array_record_module import ArrayRecordWriter
from PIL import Image
from sweep_folder import create_base, write_method

import sofnet_jax
from sofnet_jax.data.prepared.dataset import list_videos
from sofnet_jax.data.prepared.record import create_features, serialise
from sofnet_jax.data.video import canvas, container, jpeg, live
from sofnet_jax.data.video.container import VideoError
from sofnet_jax.data.video.decode import read_frames
from sofnet_jax.data.video.jpeg import JpegError, decode_jpegs, encode_jpeg, to_rgb
from sofnet_jax.data.video.reader import VideoReader
from sofnet_jax.data.views import centre_view, regular_indices
from sofnet_jax.evaluation.strip import write_picture
from sofnet_jax.host import command_line
from sofnet_jax.host import files as array_file
from sofnet_jax.host.errors import UserError
from sofnet_jax.host.files import check_size, write_whole
from sofnet_jax.host.lock import lock_folder
from sofnet_jax.report.__main__ import SECTIONS, create_sections
from sofnet_jax.report.collection import choose_collection, load_collections
from sofnet_jax.report.runtime import FILE
from sofnet_jax.run.checkpoint import Checkpoints
from sofnet_jax.run.result import write_config
from sofnet_jax.weights.files import read_tensors
from sofnet_jax.weights.load import load_weights

DEEP = "[" * 200_000
SHARD = "videos-train.array_record-00000-of-00001"
ESCAPE = "\x1b[2J"  # clears a terminal


def refuse(function, *arguments, **options) -> str:
    """The line that it is refused with."""
    with pytest.raises((UserError, VideoError)) as caught:
        function(*arguments, **options)
    assert len(str(caught.value).splitlines()) == 1 and ESCAPE not in str(caught.value)
    return str(caught.value)


# Videos that are lists of other files.


@pytest.fixture
def server():
    """To which nobody connects."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server
        with pytest.raises(BlockingIOError):
            server.accept()
        with socket.create_connection(server.getsockname()):
            server.accept()[0].close()  # so it would have been noticed


def create_lists(targets: list[str]) -> dict[str, str]:
    """Files that FFmpeg would take for lists of others."""
    segments = "".join(f"#EXTINF:1,\n{target}\n" for target in targets)
    port = next((t.split(":")[2].split("/")[0] for t in targets if "://127" in t), "5004")
    return {
        "HLS": f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n{segments}#EXT-X-ENDLIST\n",
        "concat": "ffconcat version 1.0\n" + "".join(f"file '{target}'\n" for target in targets),
        "DASH": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
        'mediaPresentationDuration="PT1S"><Period><AdaptationSet mimeType="video/mp2t">'
        '<Representation id="1" bandwidth="1"><BaseURL>'
        f"{targets[0]}</BaseURL></Representation></AdaptationSet></Period></MPD>",
        "SDP": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
        f"m=video {port} RTP/AVP 96\na=rtpmap:96 H264/90000\n",
        "RTSP": f"rtsptext\n{targets[0].replace('http', 'rtsp')}\n",
    }


@pytest.fixture
def other(write_video, tmp_path):
    return write_video(tmp_path / "other.ts", range(8), codec="mpeg2video")


def test_a_video_that_is_a_list_opens_no_file_and_no_connection(server, other, tmp_path):
    port = server.getsockname()[1]
    assert len(read_frames(other, np.arange)[0]) == 8  # so there is something to open
    for target in (f"http://127.0.0.1:{port}/a.ts", str(other), "other.ts", f"file://{other}"):
        for kind, text in create_lists([target]).items():
            for suffix in (".mp4", ".m3u8", ".ts"):
                path = tmp_path / f"{kind}{suffix}"
                path.write_text(text)
                assert refuse(read_frames, path, np.arange).startswith(f"{path}: not a readable")


def test_an_mp4_whose_data_are_in_another_file(write_video, tmp_path):
    data = write_video(tmp_path / "other.mp4", range(8)).read_bytes()
    own = (12).to_bytes(4, "big") + b"url " + (1).to_bytes(4, "big")  # ISO 14496-12, 8.7.2
    assert data.count(own) == 1
    # QuickTime's alias of a file in the same folder.
    alias = bytes(134) + b"\0\1\0\1" + bytes(16) + b"\0\2\0\x0a/other.mp4\xff\xff\0\0"
    entry = (len(alias) + 8).to_bytes(4, "big") + b"alis" + alias
    moved = data
    for box in (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref"):
        at = moved.index(box) - 4
        size = int.from_bytes(moved[at : at + 4], "big") + len(entry) - len(own)
        moved = moved[:at] + size.to_bytes(4, "big") + moved[at + 4 :]
    start = moved.index(b"mdat") + 4
    end = moved.index(b"moov") - 4
    path = tmp_path / "a.mp4"
    path.write_bytes((moved[:start] + bytes(end - start) + moved[end:]).replace(own, entry))
    assert refuse(read_frames, path, np.arange) == f"{path}: no frame can be decoded"


@contextlib.contextmanager
def serve(content: bytes):
    """An address at which this is."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=functools.partial(server.serve_forever, 0.01), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/live.m3u8"
        server.shutdown()


def test_a_stream_that_is_a_list_opens_no_file(server, other, tmp_path, monkeypatch):
    port = server.getsockname()[1]
    monkeypatch.chdir(tmp_path)
    with serve(other.read_bytes()) as address:
        connections = live.connect(address, say=print)  # closes the stream when it is forgotten
        assert len(list(next(connections))) == 8
    for kind in ("HLS", "concat"):
        for target in (f"file://{other}", f"crypto+file://{other}", f"concat:{other}"):
            text = create_lists([target])[kind].encode()
            with serve(text) as address:
                refuse(next, live.connect(address, say=print))
        for target in ("other.ts", f"http://127.0.0.1:{port}/a.ts"):  # nor does what is piped in
            (tmp_path / "piped").write_text(create_lists([target])[kind])
            with (tmp_path / "piped").open() as file:
                monkeypatch.setattr(sys, "stdin", file)
                refuse(next, live.connect("-", say=print))


# Videos and pictures that are larger than they look.


def test_an_index_whose_parts_promise_more_than_the_file_holds(write_video, tmp_path):
    options = {"movflags": "frag_keyframe+empty_moov"}
    data = write_video(tmp_path / "a.mp4", range(32), options=options).read_bytes()
    at = data.index(b"trun") - 4
    size = int.from_bytes(data[at : at + 4], "big")
    # 50,000 times as many samples as there are bytes, each like the others (ISO 14496-12, 8.8.8).
    part = b"".join(n.to_bytes(4, "big") for n in (20, 0x7472756E, 1, len(data), 0)) * 50_000
    for box in (b"moof", b"traf"):
        place = data.index(box) - 4
        length = int.from_bytes(data[place : place + 4], "big") + len(part) - size
        data = data[:place] + length.to_bytes(4, "big") + data[place + 4 :]
    path = tmp_path / "b.mp4"
    path.write_bytes(data[:at] + part + data[at + size :])
    message = refuse(read_frames, path, np.arange)
    assert message == f"{path}: its index promises more than the file holds"


def test_more_frames_than_are_counted(write_video, tmp_path, monkeypatch):
    for name in ("a.mp4", "a.ts"):
        path = write_video(tmp_path / name, range(40), codec="mpeg2video")
        monkeypatch.setattr(container, "MAX_FRAMES", 40)
        assert len(read_frames(path, np.arange)[0]) == 40
        monkeypatch.setattr(container, "MAX_FRAMES", 39)
        for read in (functools.partial(read_frames, choose=np.arange), VideoReader):
            assert refuse(read, path) == f"{path}: more than 39 frames; cut it"


def test_more_pixels_than_are_held_at_once(write_video, tmp_path, monkeypatch):
    # A short side of 64 is not scaled down, however long the other one is.
    path = write_video(tmp_path / "a.mp4", range(10), size=(64, 2048))
    monkeypatch.setattr(canvas, "MAX_BYTES", 9 * 3 * 64 * 2048)
    assert read_frames(path, lambda n: np.arange(9), short_side=64)[0].shape == (9, 2048, 64, 3)
    message = refuse(read_frames, path, np.arange, short_side=64)
    assert message.startswith(f"{path}: ") and "10 frames of 64×2048 pixels" in message
    with VideoReader(path, short_side=64) as reader:
        assert "10 frames of" in refuse(list, reader.read(np.arange))
    assert len(read_frames(path, np.arange, short_side=32)[0]) == 10


def test_a_time_stamp_in_the_far_future():
    times = np.array([0.0, 0.04, 0.08, 3e11])
    assert regular_indices(times, 0.0, 4e11, 0.1).tolist() == [2, 3]  # centres: 0.05, 0.15 …


def test_jpegs_in_prepared_videos(monkeypatch):
    small, large = (encode_jpeg(np.zeros((side, side, 3), np.uint8), 90) for side in (48, 64))
    with pytest.raises(JpegError, match="of different sizes"):
        decode_jpegs([small, large])
    assert to_rgb(decode_jpegs([large])).shape == (1, 64, 64, 3)
    monkeypatch.setattr(jpeg, "MAX_PIXELS", 48 * 48)
    with pytest.raises(JpegError, match="damaged"):
        decode_jpegs([large])


@pytest.mark.parametrize("suffix", [".npz", ".pth"])
def test_archives_that_unpack_to_far_more(suffix, tmp_path, monkeypatch):
    import torch

    def write(name, array):
        path = tmp_path / f"{name}{suffix}"
        if suffix == ".npz":
            np.savez_compressed(path, x=array)
            return path
        torch.save({"x": torch.tensor(array)}, path)
        with array_file.zipfile.ZipFile(path) as whole:
            members = {name: whole.read(name) for name in whole.namelist()}
        with array_file.zipfile.ZipFile(path, "w", array_file.zipfile.ZIP_DEFLATED) as packed:
            for name, content in members.items():
                packed.writestr(name, content)
        return path

    monkeypatch.setattr(array_file, "_SMALL", 10_000)
    bomb = write("bomb", np.zeros(10**6, np.float32))
    assert bomb.stat().st_size < 10_000
    assert " bytes declare 4,000," in refuse(read_tensors, bomb)
    sound = write("sound", np.random.default_rng(0).normal(size=10_000).astype(np.float32))
    assert read_tensors(sound)[0]["x"].shape == (10_000,)


def test_the_largest_plausible_content():
    check_size(64 * 2**20, 1)  # little is allowed to anybody
    check_size(50 * 10**9, 10**9)
    with pytest.raises(ValueError, match="1,000 bytes declare 1,000,000,000,000"):
        check_size(10**12, 1000)


@pytest.mark.parametrize("field", ["shape", "chunks"])
def test_a_checkpoint_that_claims_more_than_any_memory(field, run):
    state = run / "checkpoints/7/state"
    store = ts.KvStore.open({"driver": "ocdbt", "base": f"file://{state}/"}).result()
    key = "params.head.kernel/.zarray"
    array = json.loads(store.read(key).result().value)
    store.write(key, json.dumps(array | {field: [10**12, 3]})).result()
    assert "bytes declare 12,000,000,000," in refuse(load_weights, str(run))


@pytest.mark.parametrize("text", [DEEP, "[]", "null", '{"7": 3}', '{"7": {"map": "x"}}', "\0"])
def test_metrics_of_checkpoints_that_are_none(text, run):
    (run / "checkpoints/metrics.json").write_text(text)
    assert "metrics.json is damaged" in refuse(Checkpoints, run / "checkpoints", metric="map")
    assert "metrics.json is damaged" in refuse(load_weights, str(run))


# Code.


@pytest.fixture
def trap(tmp_path, monkeypatch):
    """A module that leaves a mark when it is imported."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules/trap_of_a_stranger.py").write_text(
        f"open({str(tmp_path / 'mark')!r}, 'w').close()\n"
    )
    monkeypatch.syspath_prepend(tmp_path / "modules")
    yield types.SimpleNamespace(name="trap_of_a_stranger", mark=tmp_path / "mark")
    sys.modules.pop("trap_of_a_stranger", None)


def write_prepared(folder):
    """A data set as `prepare` leaves it, but for its shards."""
    folder.mkdir(parents=True)
    info = {
        "name": "videos",
        "version": "1.0.0",
        "fileFormat": "array_record",
        "splits": [
            {
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
                "name": "train",
                "shardLengths": ["1"],
            }
        ],
    }
    (folder / "dataset_info.json").write_text(json.dumps(info))
    create_features(["a", "b"]).save_config(str(folder))
    (folder / "prepared.json").write_text(json.dumps({"classes": ["a", "b"], "shards": {}}))
    sizes = dict.fromkeys(("frames", "available", "duration", "width", "height"), 1)
    video = {"split": "train", "id": "x", "labels": [0], "segments": None} | sizes
    (folder / "videos.jsonl").write_text(json.dumps(video))
    (folder / SHARD).touch()
    return folder


def test_a_prepared_data_set_imports_nothing(trap, tmp_path):
    folder = write_prepared(tmp_path / "videos/1.0.0")
    assert [video.id for video in list_videos(folder, "train")] == ["x"]
    features = json.loads((folder / "features.json").read_text())
    named = features["featuresDict"]["features"]["width"]
    named["pythonClassName"] = f"{trap.name}.Feature"
    (folder / "features.json").write_text(json.dumps(features))
    assert f"{folder}/features.json: not the features" in refuse(list_videos, folder, "train")
    assert not trap.mark.exists()
    with pytest.raises(ValueError):
        tfds.builder_from_directory(str(folder))
    assert trap.mark.exists()  # so it is one


@pytest.mark.parametrize("start", ["../../", "/etc/"])
def test_a_prepared_data_set_leads_to_no_other_folder(start, tmp_path):
    folder = write_prepared(tmp_path / "videos/1.0.0")
    info = (folder / "dataset_info.json").read_text()
    (folder / "dataset_info.json").write_text(info.replace("{DATASET}-", f"{start}{{DATASET}}-"))
    assert "not in the folder of its data set" in refuse(list_videos, folder, "train")


def test_records_of_a_prepared_data_set(tmp_path):
    record = {
        "id": "x",
        "labels": [0],
        "frames": [encode_jpeg(np.zeros((32, 32, 3), np.uint8), 90)] * 2,
        "times": np.zeros(2, np.float32),
        "segments": np.zeros((0, 2), np.float32),
        "localised": False,
        **dict.fromkeys(("available", "duration", "width", "height"), 1),
    }
    contents = {
        "sound": serialise(record, ("a", "b")),
        "garbage": b"\xff" * 50,
        "empty": b"",
        "fewer times": serialise(record | {"times": np.zeros(1, np.float32)}, ("a", "b")),
        "no frames": serialise(record | {"frames": []}, ("a", "b")),
        "another": serialise(record | {"id": ESCAPE}, ("a", "b")),
    }
    for kind, content in contents.items():
        folder = write_prepared(tmp_path / kind)
        with contextlib.closing(ArrayRecordWriter(str(folder / SHARD), "group_size:1")) as writer:
            writer.write(content)
        [video] = list_videos(folder, "train")
        read = functools.partial(video.read, np.arange, lambda h, w: centre_view(h, w, 16))
        if kind == "sound":
            assert read()[0].shape == (2, 16, 16, 3)
        else:
            assert refuse(read).startswith(f"{folder}: ")


def write_checkpoint(folder, classes):
    """A run whose checkpoint has a classifier of three outputs, and nothing else."""
    folder.mkdir()
    write_config(create_base(), folder)
    checkpoints = Checkpoints(folder / "checkpoints", metric="map")
    head = {"kernel": np.ones((4, 3), np.float32), "bias": np.ones(3, np.float32)}
    state = {"params": {"head": head}, "batch_stats": {}}
    checkpoints.save(7, state, {"identity": {"classes": classes}})
    checkpoints.close()
    return folder


@pytest.fixture
def run(tmp_path):
    return write_checkpoint(tmp_path / "run", ["a", "b", "c"])


def edit_json(path, change):
    content = json.loads(path.read_text())
    path.write_text(json.dumps(change(content) or content))


def test_a_checkpoint_imports_nothing(run, trap):
    assert load_weights(str(run)).classes == ("a", "b", "c")
    handlers = {name: f"{trap.name}.Handler" for name in ("record", "state")}
    edit_json(run / "checkpoints/7/_CHECKPOINT_METADATA", lambda c: c | {"item_handlers": handlers})
    metadata = run / "checkpoints/7/state/_METADATA"

    def name_trap(content):
        for leaf in content["tree_metadata"].values():
            leaf["value_metadata"]["value_type"] = f"{trap.name}.Value"
        return content | {"custom_metadata": {"__class__": f"{trap.name}.Tree"}}

    edit_json(metadata, name_trap)
    with contextlib.suppress(UserError):
        load_weights(str(run))
    metadata.write_text(DEEP)
    assert "is damaged or not whole" in refuse(load_weights, str(run))
    assert not trap.mark.exists()


@pytest.mark.parametrize(
    "classes", ["abc", ["a", "b"], [1, 2, 3], [["a"], ["b"], ["c"]], None, {"a": 0, "b": 1, "c": 2}]
)
def test_a_checkpoint_whose_classes_are_no_names(classes, tmp_path):
    """With checksums that match: whoever writes a file can compute them."""
    run = write_checkpoint(tmp_path / "run", classes)
    assert "classes" in refuse(load_weights, str(run))


@pytest.mark.parametrize(
    ("group", "field", "value"),
    [
        ("data", "num_frames", 10**12),
        ("data", "num_frames", "8"),
        ("data", "size", 10**9),
        ("data", "size", -1),
        ("data", "short_side", -1),
        ("data", "source", {"__class__": "os.system"}),
        ("eval", "threshold", float("nan")),
        ("eval", "threshold", 10**400),
        ("eval", "min_frames", "__import__('os').abort()"),
        ("model", "shift", ["online"]),
        ("optimizer", "clip_norm", "20"),
    ],
)
def test_a_configuration_of_a_run_is_data(group, field, value, run):
    edit_json(run / "config.json", lambda c: c | {group: c[group] | {field: value}})
    message = refuse(sofnet_jax.load, run)
    assert field in message and len(message) < 250


def test_what_a_configuration_of_a_run_may_not_be(run):
    for text in (DEEP, '{"a":' * 900 + "1" + "}" * 900, "[]", "3", "\0", '{"data": {}}'):
        (run / "config.json").write_text(text)
        assert "config.json" in refuse(sofnet_jax.load, run)
    with_both = {"size": 4096, "num_frames": 10_000}  # each of which is allowed
    write_config(create_base(**{f"data.{k}": v for k, v in with_both.items()}), run)
    assert "more than 8 GB" in refuse(sofnet_jax.load, run)


# Writing elsewhere.


@pytest.fixture
def precious(tmp_path):
    """A folder of somebody's, and what is in it."""
    folder = tmp_path / "precious"
    (folder / "3").mkdir(parents=True)
    (folder / "diary").write_text("dear diary")
    (folder / "3/photo").write_text("smile")
    yield folder
    assert (folder / "diary").read_text() == "dear diary"
    assert {p.name for p in folder.rglob("*")} == {"diary", "3", "photo"}


@pytest.mark.parametrize(
    ("name", "target"),
    [
        (".lock", "diary"),
        ("metrics.jsonl", "diary"),
        ("log.txt", "new"),
        ("checkpoints", "."),
        ("checkpoints/3", "3"),
        ("tensorboard", "."),
    ],
)
def test_a_folder_with_links_is_not_written_to(name, target, precious, tmp_path):
    link = tmp_path / "run" / name
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(precious / target)
    with (
        pytest.raises(UserError, match="is a link to .*precious"),
        lock_folder(tmp_path / "run", "x"),
    ):
        pass
    link.unlink()
    (tmp_path / "link").symlink_to(tmp_path / "run")
    with lock_folder(tmp_path / "link", "x"):  # which is the user's own
        pass


def test_a_lock_that_would_be_waited_for(tmp_path):
    os.mkfifo(tmp_path / ".lock")
    with pytest.raises(UserError, match="is not a regular file"), lock_folder(tmp_path, "x"):
        pass


def test_links_where_files_are_written(precious, tmp_path):
    for name in ("x.png", "x.png.partial-0"):
        (tmp_path / name).symlink_to(precious / "diary")
    write_picture(tmp_path / "x.png", Image.new("RGB", (4, 4)))
    with Image.open(tmp_path / "x.png") as image:
        assert image.size == (4, 4)
    (tmp_path / "x.json.partial-0").symlink_to(precious / "diary")
    with write_whole(tmp_path / "x.json") as partial:
        partial.write_text("{}")
    assert (tmp_path / "x.json").read_text() == "{}"


def test_a_report_writes_no_videos_where_a_run_says(tmp_path, monkeypatch):
    fields = {"data.source": "synthetic", "data.synthetic.root": str(tmp_path / "elsewhere")}
    write_method(tmp_path / "runs", "sofnet", base=create_base(**fields))
    [run] = choose_collection(load_collections(tmp_path / "runs")).find("sofnet")
    assert run.restore_config().data.synthetic.root == ""
    (tmp_path / "elsewhere").mkdir()
    assert run.restore_config().data.synthetic.root == ""
    (tmp_path / "elsewhere/meta.json").touch()  # there is nothing left to be written
    assert run.restore_config().data.synthetic.root == str(tmp_path / "elsewhere")


# Reports, and what is printed.


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("result.json", lambda c: c["eval"].update(top1=10**400)),
        ("config.json", lambda c: c["model"].update(gates=[1, 1, 1])),
        ("config.json", lambda c: c["model"].update(backbone="os")),
        ("config.json", lambda c: c["data"].update(size=2**64)),
        ("result.json", lambda c: DEEP),
    ],
)
def test_runs_of_strangers_are_left_out_of_a_report(file, change, tmp_path):
    folder = write_method(tmp_path, "sofnet")
    write_method(tmp_path, "tsn")
    content = json.loads((folder / file).read_text())
    text = change(content) or json.dumps(content)
    (folder / file).write_text(text)
    collection = choose_collection(load_collections(tmp_path))
    assert set(collection.runs) == {"tsn"} and len(collection.notes) == 1


def test_logs_and_times_of_strangers(tmp_path):
    folder = write_method(tmp_path, "sofnet")
    write_method(tmp_path, "tsn")
    (folder / "metrics.jsonl").write_text(
        f'{DEEP}\n{{"step": 1e999, "train/epoch": 1}}\n{{"step": 1, "train/epoch": 1e999}}\n'
    )
    (tmp_path / FILE).write_text(DEEP)
    sections, failures = create_sections(
        load_collections(tmp_path), "", [name for name in SECTIONS if name != "figure4"]
    )
    assert set(failures) == {"table3"} and f"{tmp_path / FILE} is damaged" in failures["table3"]
    assert len(sections) == len(SECTIONS) - 2


def test_errors_do_not_move_the_cursor(capsys):
    with pytest.raises(SystemExit):
        command_line._exit(f"error: {ESCAPE}\nall is well", 1)
    assert capsys.readouterr().err == "error: \\x1b[2J\\nall is well\n"
