"""An archive of generated clips through worker processes, of which one is killed, and the command.

    make archive

Of every 100 videos one is damaged, one is not there, and one stands in the manifest twice.
Afterwards every row is accounted for, and results are compared with those of one video at a time.
"""

import csv
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import av
import numpy as np
from gated_network import create_network
from run_folder import GATED, write_run

ROOT = Path(__file__).parents[1]
CLIPS = int(os.environ.get("CLIPS", "10000"))
COMPARED = 200


def main() -> None:
    """Prints what happens, with its times, and the account; fails if anything is not as it is."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        say(f"{CLIPS:,} clips are generated")
        manifest, expected = generate(folder)
        _, _, variables = create_network()
        run = write_run(folder / "run", variables, ["run", "jump", "swim", "dive", "fall"], GATED)
        out = folder / "out"

        say("a worker process is killed when a third is done, the whole command at two thirds")
        command = start(manifest, out, run)
        wait_for(command, out, 1 / 3)
        first = find_workers(command)
        os.kill(first[0], signal.SIGKILL)
        say(f"killed a worker, one of {len(first)}, with {count_done(out)} shards done")
        wait_for_worker(command, first)
        say("another one is at work")
        wait_for(command, out, 2 / 3)
        command.send_signal(signal.SIGKILL)
        print("  it said:", *command.communicate()[1].splitlines(), sep="\n    ", flush=True)
        before = {path.name: path.stat().st_mtime_ns for path in out.glob("done-*")}
        say(f"killed the command, with {len(before)} shards done; the same command again")
        command = start(manifest, out, run)
        printed, err = command.communicate()
        print("  it said:", *(printed + err).splitlines(), sep="\n    ", flush=True)
        assert command.returncode == 1  # for there are dead letters
        redone = [n for n, at in before.items() if (out / n).stat().st_mtime_ns != at]
        say(f"{len(redone)} of {len(before)} shards that were done were done again")
        assert not redone
        check(manifest, out, expected)
        compare(manifest, out, run)


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def generate(folder: Path) -> tuple[Path, dict[str, bool]]:
    """The manifest, and of each path in it whether it can be recognised."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (64, 48, 64, 3))
    expected: dict[str, bool] = {}
    rows: list[str] = []
    for i in range(CLIPS):
        path = folder / "clips" / f"{i // 1000}" / f"{i}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        if i % 100 == 1:
            path.write_bytes(os.urandom(1000))
        elif i % 100 != 2:
            write_clip(path, noise, rng)
        relative = str(path.relative_to(folder))
        expected[relative] = i % 100 not in (1, 2)
        rows += [relative] * (1 + (i % 100 == 3))
    manifest = folder / "all.csv"
    manifest.write_text("".join(f"{row}\n" for row in ["path", *rows]))
    return manifest, expected


def write_clip(path: Path, noise: np.ndarray, rng: np.random.Generator) -> None:
    """Twelve frames of noise in different brightness."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=12)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(12):
            pixels = noise[rng.integers(len(noise))] * rng.random(3)
            frame = av.VideoFrame.from_ndarray(pixels.astype(np.uint8), "rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def start(manifest: Path, out: Path, run: Path) -> subprocess.Popen:
    """The command as its user gives it, with two worker processes."""
    command = [sys.executable, "-m", "sofnet_jax.predict", f"--manifest={manifest}"]
    command += [f"--output={out}", f"--checkpoint={run}", "--num_threads=1"]
    return subprocess.Popen(
        [*command, "--beam=--direct_num_workers=2"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def count_done(out: Path) -> int:
    return len(list(out.glob("done-*")))


def wait_for(command: subprocess.Popen, out: Path, share: float) -> None:
    """Until so many shards are done."""
    while count_done(out) < share * CLIPS / 100:
        assert command.poll() is None, command.communicate()
        time.sleep(0.05)


def find_workers(command: subprocess.Popen) -> list[int]:
    """Ids of the processes that compute: children of the command that have children of none."""
    children = Path(f"/proc/{command.pid}/task").glob("*/children")
    found = [int(child) for path in children for child in path.read_text().split()]
    return [c for c in found if b"spawn_main" in Path(f"/proc/{c}/cmdline").read_bytes()]


def wait_for_worker(command: subprocess.Popen, before: list[int]) -> None:
    """Until there is one that was not there."""
    while set(find_workers(command)) <= set(before):
        assert command.poll() is None, command.communicate()
        time.sleep(0.05)


def check(manifest: Path, out: Path, expected: dict[str, bool]) -> None:
    """Accounts for every row, from the files alone."""
    results = Counter(row["video"] for row in read_results(out))
    with (out / "dead_letters.csv").open(newline="") as file:
        paths = [Path(row["path"]) for row in csv.DictReader(file)]
    dead = Counter(str(path.relative_to(manifest.parent)) for path in paths)
    rows = len(manifest.read_text().splitlines()) - 1
    repeated = rows - len(expected)
    say(
        f"{rows:,} rows = {results.total():,} results + {dead.total():,} dead letters + "
        f"{repeated:,} repeated; {len(results):,} different videos have a result, "
        f"{len(dead):,} a dead letter, {len(results & dead):,} both"
    )
    assert results == Counter(path for path, sound in expected.items() if sound)
    assert dead == Counter(path for path, sound in expected.items() if not sound)
    assert json.loads((out / "summary.json").read_text())["rows"] == rows


def read_results(out: Path) -> list[dict]:
    return [
        json.loads(line) for path in out.glob("results-*") for line in path.read_text().splitlines()
    ]


def compare(manifest: Path, out: Path, run: Path) -> None:
    """Results of some videos with what they are by themselves."""
    import sofnet_jax

    model = sofnet_jax.load(run)
    rows = sorted(read_results(out), key=lambda row: row["video"])[:: CLIPS // COMPARED or 1]
    furthest = 0.0
    for row in rows:
        alone = model.predict(manifest.parent / row["video"]).to_json()
        assert alone["frames"] == row["frames"] and alone["gflops"] == row["gflops"], row["video"]
        pairs = zip(alone["classes"], row["classes"], strict=True)
        furthest = max(furthest, *(abs(a["probability"] - b["probability"]) for a, b in pairs))
    say(
        f"{len(rows)} compared with one at a time: same frames, probabilities within {furthest:.1g}"
    )
    assert furthest < 1e-4


if __name__ == "__main__":
    main()
