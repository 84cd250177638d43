"""The output of an archive: predictions, dead letters and a completion mark for every chunk."""

import csv
import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from sofnet_jax.archive.manifest import Entry
from sofnet_jax.archive.store import join, list_files, read_file, write_file
from sofnet_jax.host.errors import UserError
from sofnet_jax.host.files import format_json
from sofnet_jax.host.workers import Failure
from sofnet_jax.inference.prediction import Prediction

DEAD_COLUMNS = ("path", "start", "end", "kind", "error")
_RESULTS, _DEAD, _DONE = "results-", "dead-", "done-"


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

    Attributes:
        folder: a path or an address such as gs://….
        count: number of shards.
        form: jsonl or parquet.
    """

    folder: str
    count: int
    form: str

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
        write_file(self._path(_RESULTS, number, self.form), _encode(results, self.form))
        write_file(self._path(_DEAD, number, "csv"), _format_csv(dead))
        mark = format_json(vars(tally)) + "\n"
        write_file(self._path(_DONE, number, "json"), mark.encode())
        return tally

    def _path(self, kind: str, number: int, suffix: str) -> str:
        return join(self.folder, f"{kind}{number:05}-of-{self.count:05}.{suffix}")

    def find_done(self) -> set[int]:
        """Numbers of the complete shards. Raises UserError."""
        kinds = ((_RESULTS, self.form), (_DEAD, "csv"), (_DONE, "json"))
        return set(range(self.count)).intersection(*(self._find(*kind) for kind in kinds))

    def _find(self, kind: str, suffix: str) -> set[int]:
        name = re.compile(rf"{kind}(\d{{5,}})-of-{self.count:05}\.{suffix}")
        matches = map(name.fullmatch, list_files(self.folder, kind))
        return {int(match[1]) for match in matches if match}

    def read_tally(self, number: int) -> Tally:
        """The tally of a complete shard. Raises UserError."""
        path = self._path(_DONE, number, "json")
        try:
            return Tally(**json.loads(read_file(path)))
        except (ValueError, TypeError) as error:
            raise UserError(f"{path} is damaged; delete it to have the shard redone") from error

    def write_dead_letters(self, path: str) -> None:
        """Collect the dead letters of all shards in a CSV, itself a manifest. Raises UserError."""
        parts = [read_file(self._path(_DEAD, number, "csv")) for number in range(self.count)]
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

    real, text = pa.float64(), pa.string()
    gflops = pa.struct([("spent", real), ("plain", real)])
    frames = [
        *((name, pa.int32()) for name in ("chosen", "looked_at", "kept")),
        ("times", pa.list_(real)),
        ("stop", pa.list_(text)),
    ]
    return pa.schema(
        {
            "video": text,
            "start": real,
            "end": real,
            "classes": pa.list_(pa.struct([("name", text), ("probability", real)])),
            "frames": pa.struct(frames),
            "gflops": gflops,
            "gflops_full": gflops,
        }
    )


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
