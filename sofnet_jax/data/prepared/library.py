"""The video files on a disk, and those that hold a benchmark's clips."""

import csv
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sofnet_jax.data.annotations.clip import Annotation, Clip
from sofnet_jax.data.annotations.files import Notes, find_files
from sofnet_jax.data.annotations.names import compose, is_video
from sofnet_jax.data.prepared.record import Task
from sofnet_jax.host.errors import UserError, explain_unreadable
from sofnet_jax.host.files import write_whole
from sofnet_jax.host.paths import find_spelling

# Names given by downloaders: "Title [ID].mp4", "ID_anything.mp4"; but not "ID_000010_000020.mp4",
# which is a section of a video.
_DOWNLOADED = re.compile(r"(?:.*\[(?P<last>[\w-]{11})\]|(?:v_)?(?P<first>[\w-]{11})[_ ].*)")
_TRIMMED = re.compile(r".*_\d{6}_\d{6}")


@dataclass(frozen=True)
class Found:
    """The file of a clip, whether it is `trimmed` to the clip, and other candidates."""

    path: Path
    trimmed: bool
    others: tuple[Path, ...] = ()


class Library:
    """All files below a folder, by name in the form NFC.

    A prefix `v_` and the extension are ignored, though those of videos are preferred. Raises
    UserError if the folder does not exist or is empty.
    """

    @explain_unreadable()
    def __init__(self, root: Path):
        if not root.is_dir():
            raise UserError(f"{root}: no such folder; give the folder of the videos")
        self.root = root
        self._exact: dict[str, list[Path]] = defaultdict(list)
        self._downloaded: dict[str, list[Path]] = defaultdict(list)
        files = find_files(root)
        if not files:
            raise UserError(f"{root}: no files in this folder of videos")
        for file in files:
            self._exact[compose(file.stem)].append(file)
            match = _DOWNLOADED.fullmatch(file.stem)
            if match and not _TRIMMED.fullmatch(file.stem):
                self._downloaded[match["last"] or match["first"]].append(file)

    def find(self, clip: Clip) -> Found | None:
        """Find the file of a clip: a trimmed one if possible, else that of the whole video."""
        for trimmed, files in (
            (False, self._at(clip.path)),
            (True, self._named(clip.trimmed)),
            (False, self._named(clip.names)),
        ):
            if best := _choose(files):
                return Found(best[0], trimmed, tuple(best[1:]))
        return None

    def _at(self, path: str | None) -> list[Path]:
        """The file at a path below the root; the extension may be missing."""
        if path is None:
            return []
        whole = Path(find_spelling(str(self.root / path)))
        if whole.is_file():
            return [whole]
        files = self._exact.get(compose(whole.name), ())
        return [file for file in files if file.parent == whole.parent]

    def _named(self, names: Sequence[str]) -> list[Path]:
        """The files with any of the names."""
        spellings = [s for name in names for s in _spell(name)]
        files = [file for s in spellings for file in self._exact.get(compose(s), ())]
        if not any(is_video(file.name) for file in files):
            files += [f for name in names for f in self._downloaded.get(name, ()) if f not in files]
        return files


def _choose(files: Sequence[Path]) -> list[Path]:
    """Keep the files named as videos, if any is; links to one file count once."""
    videos = [file for file in files if is_video(file.name)]
    distinct = {os.path.realpath(file): file for file in reversed(videos or files)}
    return list(distinct.values())[::-1]


def _spell(name: str) -> Iterable[str]:
    """Possible file names; an id of YouTube may itself begin with v_."""
    return (name, f"v_{name}", *((name[2:],) if name.startswith("v_") else ()))


@explain_unreadable()
def find_tasks(annotation: Annotation, library: Library) -> dict[str, list[Task]]:
    """Create the tasks of each split, with the files found."""
    index = {name: i for i, name in enumerate(annotation.classes)}
    tasks: dict[str, list[Task]] = {}
    for clip in annotation.clips:
        found = library.find(clip)
        trimmed = found is not None and found.trimmed
        task = Task(
            id=clip.id,
            labels=tuple(index[label] for label in clip.labels),
            path=str(found.path) if found else None,
            start=None if trimmed else clip.start,
            end=None if trimmed else clip.end,
            segments=clip.segments,
            duration=clip.duration if clip.end is None else clip.end - (clip.start or 0.0),
            others=tuple(map(str, found.others)) if found else (),
        )
        tasks.setdefault(clip.split, []).append(task)
    return tasks


def write_listing(path: Path, tasks: Sequence[Task], classes: Sequence[str], notes: Notes) -> int:
    """Write a CSV of the videos found, with a row for each segment; return their number.

    Paths are absolute, since `create_source` takes others as relative to the CSV. Raises OSError.
    """
    there = [task for task in tasks if _can_be_written(task, notes)]
    columns = max((len(task.labels) for task in there), default=1)
    with write_whole(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        times = ("start", "end", "relevant_start", "relevant_end")
        writer.writerow(["path", *["label"] * columns, *times])
        for task in there:
            labels = [classes[label] for label in task.labels]
            labels += [""] * (columns - len(labels))
            for segment in task.segments or [(None, None)]:
                place = os.path.abspath(task.path or "")
                writer.writerow([place, *labels, task.start, task.end, *segment])
    return len(there)


def _can_be_written(task: Task, notes: Notes) -> bool:
    """Whether the video was found, under a name that is valid UTF-8."""
    if task.path is None:
        return False
    try:
        task.path.encode()
    except UnicodeEncodeError:
        notes.add("files with names that are not UTF-8: left out", ascii(task.path))
        return False
    return True
