"""Disturbs trainings in every way at hand, and compares what they come to with undisturbed ones.

make chaos, or python tests/chaos.py [--seed=N] [--folder=EMPTY] [SCENARIO…]

Each training is a real process on a tiny network and generated videos. A scenario holds if in the
end every array of the last checkpoint, every logged number but times and memory, all predictions
and the result are those of the undisturbed run, bit for bit, or if the training stops with one
line that says why and leaves the last good checkpoint whole. The moments are drawn from the seed.
"""

import argparse
import contextlib
import json
import logging
import os
import platform
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import program
from program import find_steps
from scene_video import write_scene

from sofnet_jax.host.errors import LOST, UserError
from sofnet_jax.run.checkpoint import Checkpoints

KILLS = 20
FILLINGS = 6
# 6 steps an epoch, 66 in all, a checkpoint and an evaluation after each epoch.
FIELDS = {"train.batch_size": 2, "train.joint_epochs": 10}
STEPS = 66
WORKER_EVERY = 4  # each fourth start reads the videos in a process of its own, which takes longer
GIVEN_BY_TIME = {"finished", "seconds", "commit"}  # of a result
TIMEOUT = 900.0  # seconds for a training of a minute, on a machine that may have more to do


class BrokenLaw(Exception):
    """A training did what it must not."""


class Skipped(Exception):
    """What a scenario needs is not there."""


@dataclass
class Ended:
    """How a process ended."""

    code: int
    out: str
    err: str

    @property
    def first_step(self) -> int | None:
        """The step from which the training went on; None if it did not come so far."""
        for line in self.out.splitlines():
            if line.startswith("  workdir "):
                return int(line.rpartition(" ")[2]) if ", at step " in line else 0
        return None


@dataclass
class Count:
    """What came of a scenario: how often it came to the same bits, and how often it stopped."""

    name: str
    disturbed: int = 0
    same: int = 0
    stopped: int = 0
    remarks: list[str] = field(default_factory=list)
    failed: str = ""
    skipped: str = ""

    @property
    def line(self) -> str:
        verdict = self.failed and "FAILED" or self.skipped and "skipped" or "holds"
        numbers = f"{self.disturbed:>9}  {self.same:>9}  {self.stopped:>11}"
        remark = self.failed or self.skipped or "; ".join(self.remarks)
        return f"{self.name:<22}{numbers}  {verdict:<8} {remark}"


class Chaos:
    """The scenarios, each a method that counts what it does."""

    def __init__(self, folder: Path, rng: random.Random):
        self.folder, self.rng = folder, rng
        self.videos = program.write_videos(folder / "videos", write_scene)
        self.environment = program.create_environment()
        self.seconds = {0: 0.0, 1: 0.0}  # that an undisturbed training takes, by its workers
        self.starts = 0

    def start(self, workdir: Path, fields: dict | None = None, *flags: str) -> subprocess.Popen:
        data = {f"data.{name}": path for name, path in self.videos.items()}
        command = program.create_command(workdir, FIELDS | data | (fields or {}), *flags)
        return program.start(command, self.environment)

    def run(self, workdir: Path, fields: dict | None = None, *flags: str) -> Ended:
        return finish(self.start(workdir, fields, *flags))

    def choose_workers(self) -> int:
        self.starts += 1
        return int(self.starts % WORKER_EVERY == 0)

    # The undisturbed runs.

    def undisturbed(self, count: Count) -> None:
        """With a worker process as without: the same bits."""
        for workers in (0, 0, 1):  # the first one also compiles
            workdir = self.folder / f"undisturbed{workers}"
            shutil.rmtree(workdir, ignore_errors=True)
            start = time.monotonic()
            expect(self.run(workdir, {"data.num_workers": workers}), 0)
            self.seconds[workers] = time.monotonic() - start
            say(f"undisturbed, {workers} workers: {self.seconds[workers]:.1f} s")
        require_same(self.folder / "undisturbed1", self.reference)
        count.same += 1

    @property
    def reference(self) -> Path:
        return self.folder / "undisturbed0"

    # The scenarios.

    def kill(self, count: Count) -> None:
        """SIGKILL at moments uniform over the time that a training takes, from its first one on."""
        phases = {"start-up": 0, "checkpoint": 0, "steps or evaluation": 0}
        training, last = 0, None
        while count.disturbed < KILLS:
            workdir = self.folder / f"killed{training}"
            workers = self.choose_workers()
            moment = self.rng.uniform(0, self.seconds[workers])
            logged = count_lines(workdir)
            process = self.start(workdir, {"data.num_workers": workers})
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(moment)
            if process.poll() is None:
                process.kill()
                steps = find_steps(workdir)
                writing = list((workdir / "checkpoints").glob("*tmp*"))
                phase = "start-up" if count_lines(workdir) <= logged else "steps or evaluation"
                phases["checkpoint" if writing else phase] += 1
                ended = finish(process)
                require_resumed(ended, last)
                last = steps[-1] if steps else 0
                count.disturbed += 1
                say(
                    f"kill {count.disturbed}/{KILLS} after {moment:.1f} s, at step "
                    f"{find_last_step(workdir)}, {'checkpoint' if writing else phase}, {workers} "
                    f"workers → to go on at {last}"
                )
            else:
                ended = expect(finish(process), 0)
                require_resumed(ended, last)
                self._conclude(workdir, count, f"over before {moment:.1f} s: ")
                training, last = training + 1, None
        if last is not None:
            require_resumed(expect(self.run(workdir), 0), last)
            self._conclude(workdir, count)
        count.remarks.append(", ".join(f"{n} in {phase}" for phase, n in phases.items()))

    def full_disk(self, count: Count) -> None:
        """A disk of its own, filled at a random step but for less than a checkpoint needs."""
        with create_disk(self.folder, "48m") as disk:
            workdir, ballast = disk / "run", disk / "ballast"
            size = measure(self.reference / "checkpoints" / str(STEPS))
            for filling in range(FILLINGS):
                steps = find_steps(workdir)
                last = steps[-1] if steps else 0
                step = self.rng.randint(last + 1, last + (STEPS - last) // 2 + 1)
                room = 0 if filling % 3 == 0 else self.rng.randrange(size)
                process = self.start(workdir)
                program.wait_for_step(process, workdir, min(step, STEPS))
                fill(ballast, room)
                expect(finish(process), 1, "cannot write to ", "No space left on device")
                count.disturbed, count.stopped = count.disturbed + 1, count.stopped + 1
                ballast.unlink()
                good = require_whole(workdir)
                say(f"full at step {step} but for {room:,} bytes → stopped; step {good} is whole")
            expect(self.run(workdir), 0)
            self._conclude(workdir, count)

    def full_from_the_start(self, count: Count) -> None:
        """No room for config.json, a log or the results of a training that is done."""
        with create_disk(self.folder, "48m") as disk:
            workdir, ballast = disk / "run", disk / "ballast"
            workdir.mkdir()
            fill(ballast, 0)
            expect(self.run(workdir), 1, "cannot write to ", "No space left on device")
            ballast.unlink()
            expect(self.run(workdir), 0)
            for name in ("result.json", "predictions.npz", "decisions.png"):
                (workdir / name).unlink()
            fill(ballast, 0)
            expect(self.run(workdir), 1, "cannot write to ", "No space left on device")
            count.disturbed, count.stopped = 2, 2
            require(not (workdir / "result.json").exists(), "half a result")
            ballast.unlink()
            expect(self.run(workdir), 0)
            self._conclude(workdir, count)

    def damage(self, count: Count) -> None:
        """The newest checkpoint of a training that was killed in its second half."""
        killed = self.folder / "to_damage"
        process = self.start(killed)
        program.wait_for_step(process, killed, self.rng.randint(STEPS // 2, STEPS - 6))
        process.kill()
        finish(process)
        before, newest = find_steps(killed)[-2:]
        for kind, change in DAMAGES.items():
            workdir = shutil.copytree(killed, self.folder / f"damaged {kind}")
            change(workdir / "checkpoints" / str(newest), self.rng)
            said = f"checkpoints/{newest} is damaged or not whole"
            if kind == "flipped":
                expect(self.run(workdir, None, "--mode=evaluate"), 1, said)
                require(find_steps(workdir)[-1] == newest, "evaluation set a checkpoint aside")
            ended = expect(self.run(workdir), 0)
            require(said in ended.err and ended.err.count("\n") == 1, ended.err)
            require_resumed(ended, before)
            count.disturbed += 1
            self._conclude(workdir, count, f"{kind}: {ended.err.strip().rpartition('; ')[2]}; ")
        workdir = shutil.copytree(killed, self.folder / "damaged all")
        steps = find_steps(workdir)
        for step in steps:
            DAMAGES["flipped"](workdir / "checkpoints" / str(step), self.rng)
        expect(self.run(workdir), 1, "no checkpoint in ", " is whole")
        require(find_steps(workdir) == steps, "damaged checkpoints were touched")
        count.disturbed, count.stopped = count.disturbed + 1, count.stopped + 1
        say(f"all of {steps} flipped → stopped, and left as they are")

    def shard(self, count: Count) -> None:
        """A shard of prepared data that is gone before the start, and in the middle."""
        prepared = self.folder / "prepared"
        command = [sys.executable, "-m", "sofnet_jax.prepare", "videos", "--workers=1"]
        videos = self.videos["train"].parent
        command += [f"--annotations={videos}", f"--videos={videos}", f"--out={prepared}"]
        expect(finish(program.start(command, self.environment)), 0)
        fields = {"data.source": "prepared", "data.prepared": prepared / "videos"}
        reference = self.folder / "undisturbed_prepared"
        expect(self.run(reference, fields), 0)
        (path,) = prepared.rglob("*-train.array_record-*")
        away = self.folder / path.name
        workdir = self.folder / "shard"
        for workers in (0, 1):
            steps = find_steps(workdir)
            last = steps[-1] if steps else 0
            process = self.start(workdir, fields | {"data.num_workers": workers})
            step = self.rng.randint(last + 1, last + 20)
            program.wait_for_step(process, workdir, step)
            process.kill()
            finish(process)
            path.rename(away)
            said = f"{path}: missing"
            expect(self.run(workdir, fields | {"data.num_workers": workers}), 1, said)
            good = require_whole(workdir)
            away.rename(path)
            count.disturbed, count.stopped = count.disturbed + 1, count.stopped + 1
            left = "no checkpoint was there" if good is None else f"step {good} is whole"
            say(f"shard gone before a start → stopped; {left}")
        # What is open can be read until it is closed, so either is right.
        process = self.start(workdir, fields)
        program.wait_for_step(process, workdir, max(find_steps(workdir), default=0) + 2)
        path.rename(away)
        ended = finish(process)
        away.rename(path)
        count.disturbed += 1
        if ended.code:
            expect(ended, 1, said)
            count.stopped += 1
            expect(self.run(workdir, fields), 0)
        require_same(workdir, reference)
        count.same += 1
        say(f"shard gone in the middle → {'stopped, then ' if ended.code else ''}the same bits")

    def nan(self, count: Count) -> None:
        """A loss that becomes NaN, and weights to start from that hold one."""
        workdir = self.folder / "nan"
        expect(self.run(workdir, {"temperature.initial": 1e-45}), 1, "the loss is nan at step 7")
        require(require_whole(workdir) == 6, "no checkpoint of step 6")
        require(all(np.isfinite(x).all() for x in program.read_state(workdir).values()), "NaN")
        weights = self.folder / "nan.npz"
        self._write_nan(weights)
        for flags in ((), ("--mode=evaluate",)):
            workdir = self.folder / "from_nan"
            expect(self.run(workdir, {"init_from": weights}, *flags), 1, "NaN or infinity")
            require(not find_steps(workdir), "a checkpoint of NaN")
        count.disturbed = count.stopped = 3
        say(
            "the loss is NaN → stopped, step 6 is whole; weights with NaN → neither trained on "
            "nor evaluated"
        )

    def _write_nan(self, path: Path) -> None:
        """The weights of the undisturbed run, with one NaN."""
        whole = self.folder / "whole.npz"
        command = [sys.executable, "-m", "sofnet_jax.convert", str(self.reference), str(whole)]
        expect(finish(program.start(command, self.environment)), 0)
        arrays = dict(np.load(whole))
        name = self.rng.choice(sorted(n for n, x in arrays.items() if x.dtype == np.float32))
        arrays[name].flat[self.rng.randrange(arrays[name].size)] = np.nan
        np.savez(path, **arrays)

    def two_processes(self, count: Count) -> None:
        """One of two processes killed, at a random step, then a checkpoint damaged."""
        for name in ("undisturbed_two", "two"):
            workdir = self.folder / name
            for victim in (1, 0) if name == "two" else ():
                steps = find_steps(workdir)
                last = steps[-1] if steps else 0
                processes = self._start_two(workdir)
                step = self.rng.randint(last + 7, last + 25)
                program.wait_for_step(processes[0], workdir, step)
                start = time.monotonic()
                processes[victim].kill()
                ended = [finish(process) for process in processes]
                other = ended[1 - victim]
                took = time.monotonic() - start
                require(other.code == LOST and " died; " in other.err, f"{other.code} {other.err}")
                require(took < 60, f"the other process ended after {took:.0f} s")
                count.disturbed += 1
                say(f"process {victim} killed at step {step} → the other ended in {took:.1f} s")
            if name == "two":
                newest = workdir / "checkpoints" / str(find_steps(workdir)[-1])
                flip(newest, self.rng)
            ended = [expect(finish(process), 0) for process in self._start_two(workdir)]
        said = [f"{newest} is damaged" in each.err for each in ended]
        require(said == [True, False], ended[0].err)
        count.disturbed += 1
        require_same(self.folder / "two", self.folder / "undisturbed_two")
        count.same += 1
        say(
            f"the newest checkpoint, {newest.name}, flipped → both go on from the one before; "
            "the same bits"
        )

    def _start_two(self, workdir: Path) -> list[subprocess.Popen]:
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        joined = {"parallel.coordinator": f"127.0.0.1:{port}", "parallel.num_processes": 2}
        return [self.start(workdir, joined | {"parallel.process_id": i}) for i in range(2)]

    def _conclude(self, workdir: Path, count: Count, what: str = "") -> None:
        require_same(workdir, self.reference)
        count.same += 1
        say(f"{what}finished → the same bits")
        shutil.rmtree(workdir)


def find_numbers(folder: Path) -> Path:
    """The file of a checkpoint that holds its arrays."""
    return max(folder.glob("state/ocdbt*/d/*"), key=lambda path: path.stat().st_size)


def cut(folder: Path, rng: random.Random) -> None:
    path = find_numbers(folder)
    os.truncate(path, rng.randrange(path.stat().st_size))


def flip(folder: Path, rng: random.Random) -> None:
    """One bit in each of four bytes of the middle half of the file, where few bytes are unused."""
    path = find_numbers(folder)
    content = bytearray(path.read_bytes())
    for _ in range(4):
        content[rng.randrange(len(content) // 4, 3 * len(content) // 4)] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def empty(folder: Path, rng: random.Random) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


DAMAGES: dict[str, Callable[[Path, random.Random], None]] = {
    "cut short": cut,
    "flipped": flip,
    "file deleted": lambda folder, rng: find_numbers(folder).unlink(),
    "emptied": empty,
    "no JSON": lambda folder, rng: os.truncate(folder / "record" / "metadata", 100),
}


@contextlib.contextmanager
def create_disk(folder: Path, size: str) -> Iterator[Path]:
    """A small disk of its own, in a user namespace, for which one need not be root."""
    mount = folder / "disk"
    mount.mkdir(exist_ok=True)
    script = 'mount -t tmpfs -o "size=$1" tmpfs "$2" && echo mounted && exec sleep infinity'
    try:
        holder = subprocess.Popen(
            [
                "unshare",
                "--user",
                "--map-root-user",
                "--mount",
                "sh",
                "-c",
                script,
                "sh",
                size,
                mount,
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    except FileNotFoundError as error:
        raise Skipped("there is no unshare") from error
    try:
        assert holder.stdout and holder.stderr
        if holder.stdout.readline() != "mounted\n":
            raise Skipped(f"no disk of its own: {holder.stderr.read().strip()}")
        yield Path(f"/proc/{holder.pid}/root") / mount.relative_to("/")
    finally:
        holder.kill()
        holder.communicate()


def fill(path: Path, room: int) -> None:
    """Writes a file that leaves so many bytes of the disk, about."""
    with path.open("wb", buffering=0) as file:
        with contextlib.suppress(OSError):
            while file.write(bytes(1 << 14)):
                pass
        file.truncate(max(file.tell() - room, 0))


def measure(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def finish(process: subprocess.Popen) -> Ended:
    try:
        out, err = process.communicate(timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise BrokenLaw(f"still there after {TIMEOUT:.0f} s; {err[-500:]}") from None
    return Ended(process.returncode, out, err)


def expect(ended: Ended, code: int, *said: str) -> Ended:
    """Requires an exit code and, of an error, one line with these words."""
    text = f"exit code {ended.code}, standard error: {ended.err[:1500]}"
    require(ended.code == code, text)
    if code:
        lines = [line for line in ended.err.splitlines() if line.strip()]
        require(len(lines) == 1 and all(words in lines[0] for words in said), text)
    return ended


def require(true: object, what: str) -> None:
    if not true:
        raise BrokenLaw(what)


def require_resumed(ended: Ended, step: int | None) -> None:
    """Requires that a training went on at a step, if it came so far before it was killed."""
    if None not in (step, ended.first_step):
        require(ended.first_step == step, f"went on at {ended.first_step} and not at {step}")


def require_whole(workdir: Path) -> int | None:
    """The step of the newest checkpoint, which must be whole; None if there is none."""
    steps = find_steps(workdir)
    if not steps:
        return None
    checkpoints = Checkpoints(workdir / "checkpoints", metric="map", read_only=True)
    try:
        checkpoints.read_variables(steps[-1])
    except UserError as error:
        raise BrokenLaw(str(error)) from error
    finally:
        checkpoints.close()
    return steps[-1]


def require_same(workdir: Path, reference: Path) -> None:
    """Requires of two runs all that must be the same."""
    for name, read in READERS.items():
        a, b = read(workdir), read(reference)
        for key in sorted(a.keys() | b.keys()):
            same = key in a and key in b and is_same(a[key], b[key])
            require(same, f"{workdir}: {name}: {key} is not that of {reference}")


def is_same(a: object, b: object) -> bool:
    """Whether two values are so bit for bit."""
    a, b = np.asarray(a), np.asarray(b)
    return (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())


def read_rows(workdir: Path) -> dict[str, object]:
    """What was logged of each step but times and memory, in order."""
    rows = []
    for row in program.read_metrics(workdir):
        kept = {k: v for k, v in row.items() if not k.startswith(("time/", "memory/"))}
        rows += [json.dumps(kept)] * (len(kept) > 1)
    return {"number of rows": len(rows)} | {f"row {i}": row for i, row in enumerate(rows)}


def read_result(workdir: Path) -> dict[str, object]:
    result = json.loads((workdir / "result.json").read_text())
    return {name: json.dumps(x) for name, x in result.items() if name not in GIVEN_BY_TIME}


READERS: dict[str, Callable[[Path], dict[str, object]]] = {
    "last checkpoint": program.read_state,
    "checkpoints": lambda w: dict.fromkeys(map(str, find_steps(w)), True),
    "metrics.json": lambda w: {"content": (w / "checkpoints" / "metrics.json").read_text()},
    "metrics.jsonl": read_rows,
    "predictions.npz": lambda w: dict(np.load(w / "predictions.npz")),
    "result.json": read_result,
}


def count_lines(workdir: Path) -> int:
    path = workdir / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def find_last_step(workdir: Path) -> int:
    """The last step that was logged whole."""
    path = workdir / "metrics.jsonl"
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    return json.loads(lines[-1])["step"] if lines else 0


def say(text: str) -> None:
    print(f"  {text}", flush=True)


SCENARIOS = ("full_disk", "full_from_the_start", "damage", "nan", "shard", "kill", "two_processes")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("scenarios", nargs="*", choices=[*SCENARIOS, []], default=[])
    parser.add_argument(
        "--seed", type=int, default=int(os.environ.get("SEED") or time.time_ns() % 10**6)
    )
    parser.add_argument("--folder", type=Path, default=None)
    given = parser.parse_args()
    logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax
    print(
        f"seed {given.seed}, Python {platform.python_version()}, {os.cpu_count()} cores", flush=True
    )
    start, counts = time.monotonic(), []
    with contextlib.ExitStack() as stack:
        folder = given.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        chaos = Chaos(folder.absolute(), random.Random(given.seed))
        for name in ("undisturbed", *(given.scenarios or SCENARIOS)):
            print(f"{name.replace('_', ' ')}", flush=True)
            counts.append(count := Count(name.replace("_", " ")))
            try:
                getattr(chaos, name)(count)
            except Skipped as error:
                count.skipped = str(error)
            except (BrokenLaw, AssertionError) as error:
                count.failed = str(error)
                say(f"FAILED: {error}")
                if name == "undisturbed":
                    break
    print(f"\n{'scenario':<22}{'disturbed':>9}  {'same bits':>9}  {'clear stops':>11}")
    print("\n".join(count.line for count in counts))
    print(f"{time.monotonic() - start:.0f} s")
    sys.exit(any(count.failed for count in counts))


if __name__ == "__main__":
    main()
