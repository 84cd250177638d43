"""The TFDS builder of prepared videos, and what it says of each data set."""

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import tensorflow_datasets as tfds

from sofnet_jax.data.prepared.manifest import write_manifest
from sofnet_jax.data.prepared.record import Format, create_features
from sofnet_jax.data.prepared.shards import Shard, ShardSummary, write_shards


class About(NamedTuple):
    """What TFDS stores about a data set."""

    description: str
    homepage: str | None = None
    citation: str | None = None


DATA_SETS = {
    "activitynet": About(
        "ActivityNet-v1.3: untrimmed videos of 200 activities, as JPEG frames.",
        "http://activity-net.org",
        "F. Caba Heilbron, V. Escorcia, B. Ghanem, J. C. Niebles: ActivityNet: a large-scale video "
        "benchmark for human activity understanding. CVPR 2015.",
    ),
    "mini_kinetics": About(
        "Mini-Kinetics: clips of ten seconds of 200 classes of Kinetics, as JPEG frames.",
        "https://www.deepmind.com/open-source/kinetics",
        "Y. Meng et al.: AR-Net: adaptive frame resolution for efficient action recognition. ECCV "
        "2020 (the 200 classes). J. Carreira, A. Zisserman: Quo vadis, action recognition? CVPR "
        "2017 (Kinetics).",
    ),
    # The split `train` is the benchmark's validation set, `val` its test set: the challenge's own
    # training set is the trimmed clips of UCF101, which the paper does not use.
    "thumos14": About(
        "THUMOS'14: untrimmed videos of 101 actions, as JPEG frames.",
        "http://crcv.ucf.edu/THUMOS14",
        "Y.-G. Jiang et al.: THUMOS challenge: action recognition with many classes. 2014.",
    ),
    "mini_sports1m": About(
        "Mini-Sports1M: a subset of Sports-1M, 487 sports, as JPEG frames.",
        "https://github.com/gtoderici/sports-1m-dataset",
        "A. Karpathy et al.: Large-scale video classification with convolutional neural networks. "
        "CVPR 2014.",
    ),
    "videos": About("Videos as JPEG frames."),
}


@dataclass(frozen=True)
class Plan:
    """What to prepare: the shards of each split.

    `on_video` is called with the number of videos just done (`shards.write_shards`).
    """

    classes: tuple[str, ...]
    form: Format
    shards: Mapping[str, Sequence[Shard]]
    missing: Mapping[str, Sequence[str]]  # ids of the videos of each split without a file
    num_workers: int
    time_limit: float  # seconds for a video
    on_video: Callable[[int], None] = field(default=lambda count: None, compare=False)

    @property
    def all_shards(self) -> list[Shard]:
        """The shards of all splits."""
        return [shard for shards in self.shards.values() for shard in shards]

    @property
    def shard_names(self) -> dict[str, list[str]]:
        """The names of each split's shards, which distinguish one plan from another."""
        return {
            split: [shard.summary_path.stem for shard in part]
            for split, part in self.shards.items()
        }


# TFDS's stubs do not know the argument: its registry is not for builders that need a plan.
class FrameBuilder(tfds.core.ShardBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Videos as JPEG frames in ArrayRecord shards, with the features of `record.create_features`.

    `download_and_prepare` writes what the plan says with `write_shards`, which can be killed and
    resumed, or, given a Beam runner, with TFDS's own engine; beside the shards it leaves a
    manifest. Without a plan the builder reads what is there, as do TFDS's `builder` and
    `builder_from_directory` without this code.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "The first."}
    url_infos: Mapping[str, Any] = {}  # nothing is downloaded; TFDS would look for a list of URLs

    def __init__(self, name: str, *, plan: Plan | None = None, **kwargs: Any):
        self.name, self._plan = name, plan
        super().__init__(file_format="array_record", **kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        features = create_features(self._plan.classes if self._plan else None)
        about = DATA_SETS[self.name]._asdict()
        return tfds.core.DatasetInfo(builder=self, features=features, **about)

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
        with_beam = download_config is not None and download_config.beam_runner is not None
        if with_beam:
            super()._download_and_prepare(dl_manager, download_config)
        else:
            write_shards(
                plan.all_shards,
                plan.classes,
                num_workers=plan.num_workers,
                time_limit=plan.time_limit,
                on_video=plan.on_video,
            )
        summaries = {
            split: [ShardSummary.read(shard.summary_path) for shard in shards]
            for split, shards in plan.shards.items()
        }
        if not with_beam:
            infos = [
                self._collect(plan.shards[split], split, summaries[split]) for split in summaries
            ]
            self.info.set_splits(tfds.core.SplitDict([i for i in infos if i.num_examples]))
        write_manifest(
            Path(self.data_dir), plan.form, plan.classes, plan.shard_names, summaries, plan.missing
        )

    def _collect(
        self, shards: Sequence[Shard], split: str, summaries: Sequence[ShardSummary]
    ) -> Any:
        """Link the finished shards to their final places; return TFDS's info on the split."""
        template = self._get_filename_template(split)
        for i, shard in enumerate(shards):
            target = template.sharded_filepath(shard_index=i, num_shards=len(shards))
            try:
                os.link(shard.data_path, target)
            except OSError:  # a file system without links
                shutil.copyfile(shard.data_path, target)
        return tfds.core.SplitInfo(
            name=split,
            shard_lengths=[len(summary.videos) for summary in summaries],
            num_bytes=sum(shard.data_path.stat().st_size for shard in shards),
            filename_template=template,
        )
