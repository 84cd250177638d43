"""The output of an archive: predictions, dead letters and a completion mark for every chunk."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sofnet_jax.archive.manifest import Entry
from sofnet_jax.archive.store import join, list_files, read_file, write_file
from sofnet_jax.host.errors import UserError
from sofnet_jax.host.files import format_json
from sofnet_jax.host.workers import Failure
from sofnet_jax.inference.prediction import Prediction

DEAD_COLUMNS = ("path", "start", "end", "kind", "error")


@dataclass(frozen=True)
class Tally:
    """Numbers of predictions and of dead letters, and the predictions' GFLOPs (paper's count).

    `spent` are the GFLOPs of the system, `plain` those of its backbone without gates.
    """

    results: int = 0
    dead: int = 0
    spent: float = 0.0
    plain: float = 0.0

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(**{name: value + getattr(other, name) for name, value in vars(self).items()})


@dataclass(frozen=True)
class Shards:
    """Output files in a folder, one shard per chunk of the manifest.

    A shard is its results, its dead letters, and then a completion mark with their numbers, each
    written atomically. So every video is in exactly one shard, once, no matter which process dies;
    a shard without its mark is written again.
    """

    folder: str  # a path or an address such as gs://…
    count: int
    form: str  # jsonl or parquet

    def write(
        self,
        number: int,
        videos: Sequence[Entry],
        places: Sequence[str],
        outcomes: Sequence[Prediction | Failure],
    ) -> Tally:
        """Write a shard. Raises UserError.

        Results name a video as the manifest does. Dead letters, a manifest themselves, name its
        place, which is valid from any folder.
        """
        results: list[dict[str, Any]] = []
        dead: list[tuple] = []
        tally = Tally()
        for video, place, outcome in zip(videos, places, outcomes, strict=True):
            if isinstance(outcome, Failure):
                dead.append((place, video.start, video.end, *outcome))
                tally += Tally(dead=1)
            else:
                results.append(replace(outcome, video=video.path).to_json())
                tally += Tally(1, 0, outcome.spent.paper, outcome.plain.paper)
        contents = _encode(results, self.form), _format_csv(dead), _encode([vars(tally)], "jsonl")
        for name, content in zip(self._names(number), contents, strict=True):
            write_file(join(self.folder, name), content)
        return tally

    def _names(self, number: int) -> tuple[str, str, str]:
        """The files of a shard, in the order of writing."""
        place = f"{number:05}-of-{self.count:05}"
        return f"results-{place}.{self.form}", f"dead-{place}.csv", f"done-{place}.json"

    def find_done(self) -> set[int]:
        """Numbers of the complete shards. Raises UserError."""
        files = set(list_files(self.folder, ""))
        return {number for number in range(self.count) if files.issuperset(self._names(number))}

    def read_tally(self, number: int) -> Tally:
        """The tally of a complete shard. Raises UserError."""
        path = join(self.folder, self._names(number)[2])
        try:
            return Tally(**json.loads(read_file(path)))
        except (ValueError, TypeError) as error:
            raise UserError(f"{path} is damaged; delete it to have the shard redone") from error

    def write_dead_letters(self, path: str) -> None:
        """Collect the dead letters of all shards in a CSV, itself a manifest. Raises UserError."""
        names = [self._names(number)[1] for number in range(self.count)]
        parts = [read_file(join(self.folder, name)) for name in names]
        write_file(path, _format_csv([DEAD_COLUMNS]) + b"".join(parts))


def _encode(rows: Sequence[dict[str, Any]], form: str) -> bytes:
    if form == "jsonl":
        return "".join(format_json(row) + "\n" for row in rows).encode()
    import pyarrow as pa  # comes with Apache Beam
    from pyarrow import parquet

    buffer = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist([_to_text(r) for r in rows], _schema()), buffer)
    return buffer.getvalue()


def _schema() -> Any:
    """Parquet columns, nested like the JSON; stops are a list, since gates may have any names."""
    import pyarrow as pa

    count, gflops = np.int32(0), {"spent": 0.0, "plain": 0.0}
    frames = {"chosen": count, "looked_at": count, "kept": count, "times": [0.0], "stop": [""]}
    example = {
        **{"video": "", "start": 0.0, "end": 0.0},
        **{"classes": [{"name": "", "probability": 0.0}], "frames": frames},
        **{"gflops": gflops, "gflops_full": gflops},
    }
    return pa.Table.from_pylist([example]).schema


def _to_text(value: Any) -> Any:
    """Escape names of files and classes that are not valid Unicode, which Parquet requires."""
    if isinstance(value, dict):
        return {key: _to_text(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_to_text(inner) for inner in value]
    return value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value


def _format_csv(rows: Sequence[Sequence[Any]]) -> bytes:
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows(rows)
    return file.getvalue().encode(errors="surrogateescape")
