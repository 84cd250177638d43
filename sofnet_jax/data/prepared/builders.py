"""What the builders of all data sets have in common."""

import csv
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from sofnet_jax.data.prepared.record import Format, create_features
from sofnet_jax.data.prepared.shards import Report, Shard, data_path, write_shards

VIDEOS, PROBLEMS, ABOUT = "videos.jsonl", "problems.csv", "prepared.json"
PROBLEM_COLUMNS = ("split", "kind", "id", "detail")


@dataclass(frozen=True)
class Plan:
    """What is to be prepared: the shards of each split, and by whom.

    `on_video` is told how many videos are done (see `engine.write_shards`).
    """

    classes: tuple[str, ...]
    form: Format
    shards: Mapping[str, Sequence[Shard]]
    missing: Mapping[str, Sequence[str]]  # ids of the videos of each split that no file is of
    num_workers: int
    time_limit: float  # seconds for a video
    on_video: Callable[[int], None] = field(default=lambda count: None, compare=False)

    @property
    def all_shards(self) -> list[Shard]:
        """The shards of all splits."""
        return [shard for shards in self.shards.values() for shard in shards]


# TFDS's stubs do not know of the argument: its registry is not for what needs a plan.
class FrameBuilder(tfds.core.ShardBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Videos as JPEG frames in ArrayRecord shards, with the features of `features`.

    `download_and_prepare` writes what the plan says, with `engine`, which can be killed and go on;
    or, given a Beam runner, with TFDS's own engine. Beside the shards it leaves `videos.jsonl`
    (what each record is of, in order), `problems.csv` and `prepared.json`. Without a plan the
    builder reads what is there, and so do TFDS's `builder` and `builder_from_directory` in code
    that knows nothing of this one.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "The first."}
    description: str
    homepage: str | None = None
    citation: str | None = None
    url_infos: Mapping[str, Any] = {}  # nothing is downloaded; TFDS looks for a file that tells

    def __init__(self, *, plan: Plan | None = None, **kwargs: Any):
        self._plan = plan
        super().__init__(file_format="array_record", **kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.description,
            features=create_features(self._plan.classes if self._plan else None),
            homepage=self.homepage,
            citation=self.citation,
        )

    def _split_generators(self, dl_manager: Any, pipeline: Any = None) -> Any:
        raise NotImplementedError("shards are planned; see _shard_iterators_per_split")

    def _generate_examples(self, **kwargs: Any) -> Any:
        raise NotImplementedError("shards are planned; see _shard_iterators_per_split")

    def _shard_iterators_per_split(self, dl_manager: Any) -> Mapping[str, Sequence[Shard]]:
        return self._require_plan().shards

    def _require_plan(self) -> Plan:
        if self._plan is None:
            raise ValueError("nothing to prepare from; use python -m sofnet_jax.prepare")
        return self._plan

    def _download_and_prepare(self, dl_manager: Any, download_config: Any = None) -> None:
        plan = self._require_plan()
        if download_config is not None and download_config.beam_runner is not None:
            super()._download_and_prepare(dl_manager, download_config)
        else:
            write_shards(
                plan.all_shards,
                plan.classes,
                num_workers=plan.num_workers,
                time_limit=plan.time_limit,
                on_video=plan.on_video,
            )
            infos = [self._gather(split, shards) for split, shards in plan.shards.items()]
            self.info.set_splits(tfds.core.SplitDict([i for i in infos if i.num_examples]))
        _describe(Path(self.data_dir), plan)

    def _gather(self, split: str, shards: Sequence[Shard]) -> Any:
        """Links the finished shards to their places, and says how long they are."""
        template = self._get_filename_template(split)
        paths = [data_path(shard) for shard in shards]
        for i, path in enumerate(paths):
            target = template.sharded_filepath(shard_index=i, num_shards=len(paths))
            _link(path, Path(target))
        return tfds.core.SplitInfo(
            name=split,
            shard_lengths=[len(_read_report(shard).videos) for shard in shards],
            num_bytes=sum(path.stat().st_size for path in paths),
            filename_template=template,
        )


def _link(path: Path, target: Path) -> None:
    """A second name for a file, or a copy where the file system has no such thing."""
    try:
        os.link(path, target)
    except OSError:
        shutil.copyfile(path, target)


def _read_report(shard: Shard) -> Report:
    return Report.read(Path(shard.report_path))


def _describe(folder: Path, plan: Plan) -> None:
    """Writes what became of every video."""
    reports = {split: [_read_report(s) for s in shards] for split, shards in plan.shards.items()}
    videos = [
        {"split": split} | asdict(video)
        for split, parts in reports.items()
        for part in parts
        for video in part.videos
    ]
    (folder / VIDEOS).write_text("".join(json.dumps(video) + "\n" for video in videos))
    rows = [
        (split, p.kind, p.id, p.detail)
        for split, parts in reports.items()
        for part in parts
        for p in part.problems
    ]
    rows += [(split, "missing", id, "") for split, ids in plan.missing.items() for id in ids]
    _write_csv(folder / PROBLEMS, PROBLEM_COLUMNS, sorted(rows))
    about = {"format": asdict(plan.form), "classes": plan.classes, "shards": names(plan)}
    (folder / ABOUT).write_text(json.dumps(about, indent=2) + "\n")


def names(plan: Plan) -> dict[str, list[str]]:
    """The names of the shards, which tell one plan from another."""
    return {split: [Path(s.report_path).stem for s in part] for split, part in plan.shards.items()}


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])


class ActivityNet(FrameBuilder):
    """Untrimmed videos of 200 activities, with the segments of these where they are given."""

    name = "activitynet"
    description = "ActivityNet-v1.3: untrimmed videos of 200 activities, as JPEG frames."
    homepage = "http://activity-net.org"
    citation = (
        "F. Caba Heilbron, V. Escorcia, B. Ghanem, J. C. Niebles: ActivityNet: a large-scale video "
        "benchmark for human activity understanding. CVPR 2015."
    )


class MiniKinetics(FrameBuilder):
    """Ten seconds each of 200 of the 400 actions of Kinetics."""

    name = "mini_kinetics"
    description = "Mini-Kinetics: clips of ten seconds of 200 classes of Kinetics, as JPEG frames."
    homepage = "https://www.deepmind.com/open-source/kinetics"
    citation = (
        "Y. Meng et al.: AR-Net: adaptive frame resolution for efficient action recognition. ECCV "
        "2020 (the 200 classes). J. Carreira, A. Zisserman: Quo vadis, action recognition? CVPR "
        "2017 (Kinetics)."
    )


class MiniSports1M(FrameBuilder):
    """A subset of the 487 sports of Sports-1M; which one, the list that is given says."""

    name = "mini_sports1m"
    description = "Mini-Sports1M: a subset of Sports-1M, 487 sports, as JPEG frames."
    homepage = "https://github.com/gtoderici/sports-1m-dataset"
    citation = (
        "A. Karpathy et al.: Large-scale video classification with convolutional neural networks. "
        "CVPR 2014."
    )


class Thumos14(FrameBuilder):
    """Untrimmed videos of 101 sports and actions; 20 of these with their segments.

    The split `train` is the benchmark's validation set, `val` its test set: the challenge's own
    training set are the trimmed clips of UCF101, which the paper does not use.
    """

    name = "thumos14"
    description = "THUMOS'14: untrimmed videos of 101 actions, as JPEG frames."
    homepage = "http://crcv.ucf.edu/THUMOS14"
    citation = "Y.-G. Jiang et al.: THUMOS challenge: action recognition with many classes. 2014."


class Videos(FrameBuilder):
    """Videos from a folder per class, a CSV or a JSON file."""

    name = "videos"
    description = "Videos as JPEG frames."
