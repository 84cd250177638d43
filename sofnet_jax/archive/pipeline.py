"""Prediction of an archive with Apache Beam, on one machine or many."""

import contextlib
import json
import logging
import os
import re
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import DirectOptions
from apache_beam.runners import DirectRunner
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from tqdm import tqdm

from sofnet_jax.archive.manifest import Chunk, Manifest, scan_manifest
from sofnet_jax.archive.recognition import Settings, Worker
from sofnet_jax.archive.results import Shards, Tally
from sofnet_jax.archive.store import is_remote, join, list_files, read_file, write_file
from sofnet_jax.host.beam import create_runner, quietly
from sofnet_jax.host.errors import INTERRUPTED, UserError
from sofnet_jax.host.files import format_json
from sofnet_jax.host.lock import lock_folder

PLAN, SUMMARY, DEAD_LETTERS = "plan.json", "summary.json", "dead_letters.csv"


@dataclass(frozen=True)
class Account:
    """Counts of a manifest's rows: `rows` = results + dead letters + repeated.

    `new` counts the videos processed by this call, in `seconds`.
    """

    tally: Tally
    repeated: int
    seconds: float
    new: int

    @property
    def rows(self) -> int:
        """Number of rows of the manifest."""
        return self.tally.results + self.tally.dead + self.repeated

    def describe(self, folder: str) -> list[str]:
        """Lines to print, for results in `folder`."""
        t = self.tally
        lines = [
            f"{self.rows:,} rows = {t.results:,} results + {t.dead:,} dead letters + "
            f"{self.repeated:,} repeated"
        ]
        if t.results:
            share = 100 * t.spent / t.plain
            lines.append(f"GFLOPs: {share:.1f} % of the plain backbone's {t.plain:,.4g}")
        if self.new:
            rate = self.new / max(self.seconds, 1e-9)
            lines.append(f"{self.new:,} videos in {self.seconds:.1f} s, {rate:.1f} per second")
        if t.dead:
            lines.append(f"dead letters, a manifest to retry: {join(folder, DEAD_LETTERS)}")
        return lines


def process_archive(
    manifest_path: str,
    folder: str,
    settings: Settings,
    *,
    form: str,
    shard_size: int,
    beam_options: str,
) -> Account:
    """Predict the videos of a manifest that `folder` has no results of yet.

    `folder` is a path or an address such as gs://…, `form` is jsonl or parquet, `beam_options` are
    such as "--runner=DataflowRunner". When a machine dies, at most the work on `shard_size` videos
    is lost. Raises UserError if the manifest, folder, network or runner cannot be used.
    """
    begin = time.monotonic()
    runner, options = _choose_runner(beam_options)
    manifest = scan_manifest(manifest_path, shard_size)
    shards = Shards(folder, len(manifest.chunks), form)
    local = not is_remote(folder)
    with lock_folder(Path(folder), "command") if local else contextlib.nullcontext():
        _check_plan(manifest, settings, shards)
        done = shards.find_done()
        left = [chunk for chunk in manifest.chunks if chunk.number not in done]
        if left:
            predict = _Predict(manifest, settings, shards, local=isinstance(runner, FnApiRunner))
            with _show_progress(manifest, shards, done):
                _run(predict, left, runner, options)
        if missing := len(manifest.chunks) - len(shards.find_done()):
            raise UserError(f"{missing} shards of {folder} are missing; run the command again")
        tally = sum(map(shards.read_tally, range(shards.count)), Tally())
        shards.write_dead_letters(join(folder, DEAD_LETTERS))
        new, seconds = sum(chunk.num_videos for chunk in left), time.monotonic() - begin
        repeated = sum(len(chunk.repeated) for chunk in manifest.chunks)
        account = Account(tally, repeated, seconds, new)
        summary = {"rows": account.rows, **vars(tally), "repeated": account.repeated}
        write_file(join(folder, SUMMARY), (format_json(summary, indent=2) + "\n").encode())
        return account


def _check_plan(manifest: Manifest, settings: Settings, shards: Shards) -> None:
    """Write plan.json; raise UserError if the folder holds results of another plan."""
    names = ("size", "num_frames", "variant", "dtype", "top_k", "early")
    plan = {
        "manifest": manifest.digest,
        "shards (--shard_size)": shards.count,
        "format": shards.form,
        "weights": settings.digest,
        **{name: getattr(settings, name) for name in names},
    }
    path = join(shards.folder, PLAN)
    if not list_files(shards.folder, PLAN):
        write_file(path, (format_json(plan, indent=2) + "\n").encode())
        return
    try:
        before = json.loads(read_file(path))
        unlike = [name for name in plan if before[name] != plan[name]]
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path} is damaged; give another --output") from error
    for name in unlike:
        raise UserError(
            f"{shards.folder} holds results with {name} {before[name]}, not {plan[name]}; "
            "give another --output"
        )


@contextlib.contextmanager
def _show_progress(manifest: Manifest, shards: Shards, done: set[int]) -> Iterator[None]:
    """Show a progress bar of the videos in complete shards, whichever machine wrote them."""
    sizes = {chunk.number: chunk.num_videos for chunk in manifest.chunks}
    stop = threading.Event()
    first = sum(sizes[number] for number in done)
    with tqdm(
        total=sum(sizes.values()), initial=first, desc="predict", unit="video", disable=None
    ) as bar:

        def watch() -> None:
            while not (bar.disable or stop.wait(2.0)):
                bar.update(sum(sizes[number] for number in shards.find_done()) - bar.n)

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


def _choose_runner(options: str) -> tuple[Any, Any]:
    """The runner and its options. A local runner uses threads, each with its own child process.

    Beam's own processes are avoided: when one dies, Beam waits for it forever. Raises UserError.
    """
    runner, parsed = create_runner(options)
    if not isinstance(runner, DirectRunner | FnApiRunner):
        return runner, parsed
    unknown = parsed.get_all_options(retain_unknown_options=True).keys() - parsed.get_all_options()
    if unknown:
        raise UserError(f"--beam: a local runner has no option --{min(unknown)}")
    direct = parsed.view_as(DirectOptions)
    if direct.direct_running_mode == "multi_processing":
        raise UserError(
            "--beam: omit --direct_running_mode; each of the --direct_num_workers workers has a "
            "process of its own"
        )
    direct.direct_running_mode = "multi_threading"
    return FnApiRunner(), parsed  # DirectRunner may download another one


def _run(predict: "_Predict", chunks: Sequence[Chunk], runner: Any, options: Any) -> None:
    """Process chunks. Raises UserError."""
    pipeline = beam.Pipeline(runner=runner, options=options)
    _ = (
        pipeline
        | "chunks" >> beam.Create(list(chunks))
        | "distribute" >> beam.Reshuffle()
        | "predict" >> beam.ParDo(predict)
    )
    try:
        with quietly(logging.ERROR), _ending_at_once():
            pipeline.run().wait_until_finish()
    except Exception as error:  # Beam wraps what a worker raises
        found = re.search(r"(?:UserError|LostError): (.+?)(?: \[while running|$)", str(error), re.M)
        raise (UserError(found[1]) if found else error) from error
    for failure in _failures.pop(predict.shards.folder, []):
        raise failure


@contextlib.contextmanager
def _ending_at_once() -> Iterator[None]:
    """Make Ctrl-C end this process and its children at once, without Beam's slow shutdown.

    No data is lost, since files are written atomically.
    """

    def end(signum: int, _: Any) -> None:
        os.write(2, b"interrupted; run the same command to resume\n")
        os._exit(INTERRUPTED)

    before = signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


# Errors of this process's workers by output folder; Beam would print pages if they were raised.
_failures: defaultdict[str, list[UserError]] = defaultdict(list)


class _Predict(beam.DoFn):
    """Process chunks one after another with one network."""

    def __init__(self, manifest: Manifest, settings: Settings, shards: Shards, local: bool):
        # Without the chunks, which come one by one: runners limit the size of a pickled DoFn.
        self._manifest = replace(manifest, chunks=())
        self._settings, self.shards, self._local = settings, shards, local

    def setup(self) -> None:
        self._worker = Worker(self._settings)

    def process(self, chunk: Chunk) -> None:
        manifest, shards = self._manifest, self.shards
        if self._local and _failures[shards.folder]:
            return  # all chunks would fail likewise
        try:
            videos = manifest.read(chunk)
            places = [manifest.locate(video) for video in videos]
            located = [v._replace(path=place) for v, place in zip(videos, places, strict=True)]
            outcomes = self._worker.predict(located)
            shards.write(chunk.number, videos, places, outcomes)
        except UserError as error:
            if not self._local:
                raise  # for the runner to retry
            _failures[shards.folder].append(error)

    def teardown(self) -> None:
        self._worker.close()
