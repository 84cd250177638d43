"""What is written of a chunk of an archive: predictions, dead letters, and that it is done."""

import csv
import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from sofnet_jax.archive.manifest import Entry
from sofnet_jax.archive.recognition import Outcome
from sofnet_jax.archive.store import join, list_files, read_file, write_file
from sofnet_jax.host.errors import UserError
from sofnet_jax.host.files import format_json
from sofnet_jax.host.workers import Failure
from sofnet_jax.inference.prediction import Prediction

FORMATS = ("jsonl", "parquet")
DEAD_COLUMNS = ("path", "start", "end", "kind", "error")
_RESULTS, _DEAD, _DONE = "results-", "dead-", "done-"


@dataclass(frozen=True)
class Tally:
    """What became of some videos. GFLOPs are as the paper counts them.

    Attributes:
        results: predictions.
        dead: videos without one.
        spent, plain: GFLOPs of the predictions, and those of the plain backbone.
    """

    results: int = 0
    dead: int = 0
    spent: float = 0.0
    plain: float = 0.0

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(
            self.results + other.results,
            self.dead + other.dead,
            self.spent + other.spent,
            self.plain + other.plain,
        )


@dataclass(frozen=True)
class Shards:
    """The shards of a folder, of which each holds a chunk of the manifest.

    A shard is written as a whole: its results and its dead letters, and when both are there, that
    it is done, and how many they are. So a video is in one shard and there once, whatever died
    before; a shard that is not done is written again.

    Attributes:
        folder: also an address such as gs://….
        count: of shards.
        form: of `FORMATS`.
    """

    folder: str
    count: int
    form: str

    def write(
        self,
        number: int,
        videos: Sequence[Entry],
        places: Sequence[str],
        outcomes: Sequence[Outcome],
    ) -> Tally:
        """Writes a shard. Raises UserError.

        Results have the videos' paths as the manifest does; dead letters, which are a manifest
        themselves, their `places`, which are the same from any folder.
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
                tally += _count(outcome)
        write_file(self._path(_RESULTS, number, self.form), _encode(results, self.form))
        write_file(self._path(_DEAD, number, "csv"), _write_csv(dead))
        content = format_json(vars(tally)) + "\n"
        write_file(self._path(_DONE, number, "json"), content.encode())
        return tally

    def _path(self, kind: str, number: int, suffix: str) -> str:
        return join(self.folder, f"{kind}{number:05}-of-{self.count:05}.{suffix}")

    def find_done(self) -> set[int]:
        """Which shards are done, and there. Raises UserError."""
        found = [self._find(*kind) for kind in ((_RESULTS, self.form), (_DEAD, "csv"))]
        return self._find(_DONE, "json").intersection(*found)

    def _find(self, kind: str, suffix: str) -> set[int]:
        name = re.compile(rf"{kind}(\d{{5,}})-of-{self.count:05}\.{suffix}")
        matches = map(name.fullmatch, list_files(self.folder, kind))
        return {int(match[1]) for match in matches if match}

    def read_tally(self, number: int) -> Tally:
        """What a shard that is done holds. Raises UserError."""
        path = self._path(_DONE, number, "json")
        try:
            return Tally(**json.loads(read_file(path)))
        except (ValueError, TypeError) as error:
            raise UserError(f"{path} is damaged; delete it, and the shard is made anew") from error

    def read_dead_letters(self, number: int) -> bytes:
        """The dead letters of a shard, as CSV without a header. Raises UserError."""
        return read_file(self._path(_DEAD, number, "csv"))


def write_dead_letters(path: str, parts: Sequence[bytes]) -> None:
    """Writes all dead letters as a CSV, which is a manifest of them. Raises UserError."""
    write_file(path, _write_csv([DEAD_COLUMNS]) + b"".join(parts))


def _count(prediction: Prediction) -> Tally:
    return Tally(results=1, spent=prediction.spent.paper, plain=prediction.plain.paper)


def _encode(rows: Sequence[dict[str, Any]], form: str) -> bytes:
    if form == "jsonl":
        return "".join(format_json(row) + "\n" for row in rows).encode()
    import pyarrow as pa  # comes with Apache Beam
    from pyarrow import parquet

    buffer = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist([_to_text(r) for r in rows], _schema()), buffer)
    return buffer.getvalue()


def _schema() -> Any:
    """Columns of Parquet, nested as the JSON is; the stops are a list, for gates have any names."""
    import pyarrow as pa

    gflops = pa.struct([("spent", pa.float64()), ("plain", pa.float64())])
    return pa.schema(
        {
            "video": pa.string(),
            "start": pa.float64(),
            "end": pa.float64(),
            "classes": pa.list_(pa.struct([("name", pa.string()), ("probability", pa.float64())])),
            "frames": pa.struct(
                [
                    ("chosen", pa.int32()),
                    ("looked_at", pa.int32()),
                    ("kept", pa.int32()),
                    ("times", pa.list_(pa.float64())),
                    ("stop", pa.list_(pa.string())),
                ]
            ),
            "gflops": gflops,
            "gflops_full": gflops,
        }
    )


def _to_text(value: Any) -> Any:
    """With names that are no text, of files or classes, in what can stand for them in Parquet."""
    if isinstance(value, dict):
        return {key: _to_text(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_to_text(inner) for inner in value]
    return value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value


def _write_csv(rows: Sequence[Sequence[Any]]) -> bytes:
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows(rows)
    return file.getvalue().encode(errors="surrogateescape")
