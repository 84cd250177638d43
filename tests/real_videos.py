"""Write annotations of real videos for `sofnet_jax.prepare`, and composites made of them.

    python tests/real_videos.py composites 0 /tmp/real
    python -m sofnet_jax.prepare videos --annotations=/tmp/real/composites_0.json \
        --videos=/tmp/real/composites --num_frames=16 --short_side=128 --out=/tmp/real/fold0

The sets are jhmdb21, ucf101_10, ut_interaction, weizmann and composites. After the set comes the
part to validate with: a fold, UCF101's split, UT-Interaction's set, or Weizmann's persons, as
daria+denis+eli.
`SOFNET_MATERIAL` names the folder that has them in `videos/`; none of it enters the repository.
"""

import csv
import json
import os
import sys
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import groupby
from pathlib import Path
from typing import Any

import av
import numpy as np
from tqdm import tqdm

VIDEOS = Path(os.environ.get("SOFNET_MATERIAL", "../shared/data")) / "videos"
FPS = 4  # of the composites; 16 frames are four seconds
Row = dict[str, str]


def main(name: str, part: str, out: str) -> None:
    """Write `out`/`name`_`part`.json; of composites, first the videos, once."""
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    if name == "composites":
        entries = [*list_composites(int(part))]
        write_composites(folder / "composites")
    else:
        entries = [*list_clips(name, part)]
    path = folder / f"{name}_{part}.json"
    path.write_text(json.dumps(entries, indent=0) + "\n")
    counts = {split: sum(e["split"] == split for e in entries) for split in ("train", "val")}
    print(f"{path}: {counts}")


# Of each set: the folder of its files, and whether a row is of the part that is validated.
SETS: dict[str, tuple[str, Callable[[Row, str], bool]]] = {
    "jhmdb21": ("jhmdb21/videos", lambda row, part: row["fold5"] == part),
    "ucf101_10": ("ucf101_10/videos", lambda row, part: row[f"ucf101_split{part}"] == "test"),
    "ut_interaction": ("", lambda row, part: (row["group"] > "seq10") == (part == "2")),
    "weizmann": ("", lambda row, part: row["group"] in part.split("+")),
}


def list_clips(name: str, part: str) -> Iterator[dict[str, Any]]:
    """What `prepare` reads of a set of whole clips."""
    prefix, is_validated = SETS[name]
    own = VIDEOS / name / "labels.csv"
    rows = read_rows(own if own.exists() else VIDEOS / "labels.csv")
    if not own.exists():
        rows = [row for row in rows if row["dataset"] == name and row["label"] != "background"]
    for row in rows:
        split = "val" if is_validated(row, part) else "train"
        yield {
            "path": str(Path(prefix, row["file"])),
            "labels": [row["label"]],
            "split": split,
        }


def list_composites(fold: int) -> Iterator[dict[str, Any]]:
    """What `prepare` reads of the composites, with the seconds of the relevant frames."""
    for i, row in enumerate(read_rows(VIDEOS / "ucf101_10/untrimmed_manifest.csv")):
        segments, start = [], 0
        for relevant, run in groupby(row["relevant_mask"]):
            end = start + len([*run])
            segments += [[start / FPS, end / FPS]] if relevant == "1" else []
            start = end
        split = "val" if int(row["fold5"]) == fold else "train"
        yield {
            "path": name_composite(i),
            "labels": [row["label"]],
            "split": split,
            "segments": segments,
        }


def name_composite(i: int) -> str:
    return f"composite_{i:03d}.mp4"


def write_composites(folder: Path) -> None:
    """Encode the composites as H.264, with FPS frames a second, nearly without loss."""
    folder.mkdir(exist_ok=True)
    for i, row in enumerate(tqdm(read_rows(VIDEOS / "ucf101_10/untrimmed_manifest.csv"))):
        if not (path := folder / name_composite(i)).exists():
            write_video(path.with_suffix(".partial"), read_frames(row["frames"].split(";")))
            path.with_suffix(".partial").rename(path)


def read_frames(places: list[str]) -> list[np.ndarray]:
    """The frames PATH#INDEX, each file decoded once."""
    wanted = [place.rsplit("#", 1) for place in places]
    decoded = {}
    for path in {path for path, _ in wanted}:
        with av.open(str(VIDEOS / path)) as container:
            decoded[path] = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
    return [decoded[path][int(index)] for path, index in wanted]


def write_video(path: Path, frames: list[np.ndarray]) -> None:
    """All frames as keyframes; sizes differ by nothing in this material."""
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": "12", "bf": "0"})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.gop_size = 1
        stream.codec_context.time_base = Fraction(1, FPS)
        for frame in frames:
            assert frame.shape == frames[0].shape, path
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def read_rows(path: Path) -> list[Row]:
    with path.open(newline="") as file:
        return [*csv.DictReader(file)]


if __name__ == "__main__":
    main(*sys.argv[1:])
