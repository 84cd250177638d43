"""The files that people have, read; without the material, skipped.

The numbers were counted by other code than the readers'; `-s` prints them beside the paper's.
"""

import multiprocessing
import os
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from sofnet_jax.data.annotations.benchmark import (
    count_classes,
    describe_counts,
    read_annotation,
)
from sofnet_jax.host.errors import UserError

MATERIAL = Path(os.environ.get("SOFNET_MATERIAL", Path(__file__).parents[4] / "shared" / "data"))
FILES = MATERIAL / "annotations"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not FILES.is_dir(), reason="SOFNET_MATERIAL names no folder with annotations/"
    ),
]


@pytest.fixture(scope="module")
def read():
    """Reads files in a process of its own, where types are not checked a million times."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:

        @cache
        def read(name, *files):
            paths = [FILES / file for file in files]
            annotation = pool.submit(read_annotation, name, paths).result()
            print("", *describe_counts(annotation), *annotation.notes, sep="\n  ")
            return annotation

        yield read


def _count(annotation):
    return Counter(clip.split for clip in annotation.clips)


def _notes(annotation):
    """The number in each note by its kind."""
    kinds = (line.rpartition(", first ")[0].rpartition(": ") for line in annotation.notes)
    return {kind: int(number.replace(",", "")) for kind, _, number in kinds if kind}


def _sum_up(annotation, split):
    counts = count_classes(annotation, split)
    return len(counts), min(counts.values()), max(counts.values()), sum(counts.values())


def test_activitynet(read):
    annotation = read("activitynet", "activitynet")
    assert _count(annotation) == {"train": 10_024, "val": 4_926}
    assert _sum_up(annotation, "train") == (200, 28, 87, 10_030)  # six have two classes
    assert _sum_up(annotation, "val") == (200, 9, 42, 4_933)  # seven
    assert count_classes(annotation, "train")["Playing congas"] == 87
    assert count_classes(annotation, "val")["Spread mulch"] == 9
    clips = {clip.id: clip for clip in annotation.clips}
    lost = "v_Vg4a8igc0 tnXjdv_GM9g v_UmAH95xls ZjuM-Xv_jqY 9ku5v_hSVMw a_v_1fL2VyM ykov_joUUTk"
    assert set((lost + " F9Wv_Lxe_QM noKDv_a8u-Y tnt6Wpv_kHc Uv_6SJlvCl0").split()) <= clips.keys()
    assert {len(clip.id) for clip in annotation.clips} == {9, 11}
    assert len(clips["EjUMR98Pg"].names) == 11
    assert sum(clip.segments is None for clip in annotation.clips) == 573 + 10
    place = f"{FILES}/activitynet/bsn_action_name.csv"
    assert _notes(annotation) == {
        "segments cut to their video": 215,
        "duplicate segments left out": 45,
        "segments left out: they contain nothing of their video": 12,
        "test videos, whose labels are not public: left out": 4_851,
        "ids that lost a 'v_', repaired from another file": 11,
        "ids of 9 characters, which lost a 'v_': searched for under all possible ids": 1,
        f"{place}: a different class order, not used": 4,
        "videos that only some of the lists of their split have": 10 + 5,
        "videos with different frame counts: the first counts": 1_548,
        "videos of lists that no other file describes": 573,
    }


def test_activitynet_by_a_class_index_of_another_order(read):
    """The names in BSN's order do not fit the lists: 39 of 9,640 videos agree."""
    files = ["bsn_anet_anno_action.json", "bsn_video_info_new.csv", "bsn_action_name.csv"]
    with pytest.raises(UserError, match="only 39 of 9,640 videos"):
        read(
            "activitynet", *(f"activitynet/{f}" for f in (*files, "sofnet_actnet_train_split.txt"))
        )


def test_activitynet_of_the_authors(read):
    files = ["sofnet_actnet_train_split.txt", "sofnet_actnet_val_split.txt", "sofnet_classInd.txt"]
    annotation = read("activitynet", *(f"activitynet/{file}" for file in files))
    assert _count(annotation) == {"train": 10_014, "val": 4_921} and annotation.notes == ()
    annotation = read(
        "activitynet",
        *(f"activitynet/{f}" for f in ("bsn_anet_anno_action.json", "bsn_video_info_new.csv")),
    )
    assert _count(annotation) == {"train": 9_649, "val": 4_728}
    assert len(annotation.classes) == 200


def test_mini_kinetics(read):
    annotation = read("mini_kinetics", "mini_kinetics")
    assert _count(annotation) == {"val": 9_867}
    assert _sum_up(annotation, "val") == (200, 39, 50, 9_867)
    assert count_classes(annotation, "val")["shooting goal (soccer)"] == 39
    assert all(clip.end - clip.start == 10 and clip.num_frames for clip in annotation.clips)
    assert "yoga" in annotation.classes
    other = (
        "another Mini-Kinetics-200 (80,000 and 5,000 clips) than the paper's (121,215 and 9,867)"
    )
    assert _notes(annotation) == {
        f"files left out, which are of {other}": 3,
        "rows of Kinetics' CSV with other classes: left out": 9_959,
        "videos in no list of their split: left out": 80,
    }


@pytest.mark.parametrize("names", ["adafuse_minik_classInd.txt", "ibm_mini_kinetics400.txt"])
def test_mini_kinetics_from_the_official_csv(names, read):
    annotation = read(
        "mini_kinetics", "mini_kinetics/kinetics-400_val.csv", f"mini_kinetics/{names}"
    )
    assert _count(annotation) == {"val": 9_947} and "yoga" in annotation.classes


def test_mini_kinetics_from_the_list_alone(read):
    listed = read("mini_kinetics", "mini_kinetics/adafuse_mini_val_videofolder.txt")
    both = read("mini_kinetics", "mini_kinetics")
    assert [(c.id, c.labels) for c in listed.clips] == [(c.id, c.labels) for c in both.clips]


def test_the_other_mini_kinetics(read):
    files = ["s9xie_val_k200.csv", "s9xie_val_ytid_list.txt", "s9xie_train_ytid_list.txt"]
    annotation = read("mini_kinetics", *(f"mini_kinetics/{file}" for file in files))
    assert _count(annotation) == {"val": 5_000}
    assert _sum_up(annotation, "val") == (200, 25, 25, 5_000)
    assert "do not compare with the paper's numbers" in annotation.notes[0]
    paper = read("mini_kinetics", "mini_kinetics")
    assert len(set(annotation.classes) & set(paper.classes)) == 102
    for file in files:
        with pytest.raises(UserError, match=f"{file}: of another Mini-Kinetics-200"):
            read(
                "mini_kinetics",
                f"mini_kinetics/{file}",
                "mini_kinetics/adafuse_minik_classInd.txt",
                "mini_kinetics/kinetics-400_val.csv",
            )


def test_thumos14(read):
    annotation = read("thumos14", "thumos14")
    assert _count(annotation) == {"train": 1_010, "val": 1_574}
    assert _sum_up(annotation, "train") == (101, 10, 57, 1_164)
    assert _sum_up(annotation, "val") == (101, 10, 54, 1_772)
    assert sum(clip.background for clip in annotation.clips if clip.split == "val") == 480
    assert sum(clip.background for clip in annotation.clips) == 480
    localised = Counter(c.split for c in annotation.clips if c.segments is not None)
    assert localised == {"train": 200 - 15, "val": 210 - 16}
    assert _notes(annotation) == {
        "rows with 0 frames: taken as unknown": 2 * 819,
        "labels that lost the comma between them, repaired from another file": 171,
        "videos with other classes by number than by name: names win": 23 + 16 + 23,
        "segments that are ambiguous or to avoid: left out": 89 + 99 + 30 + 120,
        "segments left out: they contain nothing of their video": 4 + 4,
        "videos with segments of only some of their classes: taken as not localised": 15 + 16,
        "background videos, which only resemble their class: kept, as the paper counts them": 480,
    }


def test_thumos14_from_lists_and_from_metadata(read):
    lists = [f"thumos14/sunutf_thumos_{split}_split.txt" for split in ("train", "val", "test")]
    names = "thumos14/sunutf_classInd.txt"
    by_list = read("thumos14", *lists[:2], names)
    by_metadata = read("thumos14", "thumos14/validation_set.mat", "thumos14/test_set.mat")
    assert _count(by_list) == _count(by_metadata) == {"train": 1_010, "val": 1_574}
    labels = {clip.id: set(clip.labels) for clip in by_metadata.clips}
    fewer = Counter(c.split for c in by_list.clips if set(c.labels) < labels[c.id])
    assert fewer == {"train": 16, "val": 23}  # lists have one secondary action at most
    assert all(set(clip.labels) <= labels[clip.id] for clip in by_list.clips)
    with pytest.raises(UserError, match="test_split.txt:2: label 4241 is none of 101 classes"):
        read("thumos14", lists[0], lists[2], names)
    mended = read("thumos14", *lists, names)
    assert _count(mended) == _count(by_list)
    assert {c.id: set(c.labels) for c in mended.clips} == {
        c.id: set(c.labels) for c in by_list.clips
    }


def test_thumos14_is_what_scipy_reads(read):
    annotation = read("thumos14", "thumos14/validation_set.mat", "thumos14/test_set.mat")
    expected = []
    for name in ("validation", "test"):
        file = FILES / "thumos14" / f"{name}_set.mat"
        for video in scipy.io.loadmat(file, squeeze_me=True)[f"{name}_videos"]:
            secondary = np.atleast_1d(video["secondary_actions"]).tolist()
            background = "background_video" in video.dtype.names and video["background_video"]
            expected.append(
                (
                    video["video_name"],
                    (video["primary_action"], *secondary),
                    float(video["video_duration_seconds"]),
                    background == "YES",
                )
            )
    assert expected == [(c.id, c.labels, c.duration, c.background) for c in annotation.clips]


def test_mini_sports1m(read):
    annotation = read("mini_sports1m", "sports1m")
    assert _count(annotation) == {"train": 19_459, "val": 4_870}
    assert _sum_up(annotation, "train") == (487, 34, 40, 19_459)
    assert _sum_up(annotation, "val") == (487, 10, 10, 4_870)
    assert list(count_classes(annotation, "train").values()).count(40) == 479
