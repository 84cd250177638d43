"""Numbers that the paper and its supplement report, none of them measured here.

Seon, Hwang, Mun and Han, "Stop or Forward: Dynamic Layer Skipping for Efficient Action
Recognition", WACV 2023: Tables 1 to 5 and the text on Figure 3; the supplement: Tables A to D.
Accuracies are in percent, costs in GFLOPs. Numbers of other systems are as the paper quotes them,
mostly from OCSampler (CVPR 2022).
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from sofnet_jax.report.ablations import EARLY, FRAMEEXIT, FRAMEEXIT_ONLINE, SOFNET, TSN, Side

ACTIVITYNET, KINETICS, THUMOS, SPORTS = "activitynet", "mini_kinetics", "thumos14", "mini_sports1m"
DATASETS = {
    ACTIVITYNET: "ActivityNet-v1.3",
    KINETICS: "Mini-Kinetics",
    THUMOS: "THUMOS'14",
    SPORTS: "mini-Sports1M",
    "synthetic": "the embedded videos",
    "videos": "own videos",
}
TOP1_DATASETS = (KINETICS, SPORTS)  # reported in top-1, all others in mAP
TSN_GFLOPS = 40.3  # a video of 16 frames of 168×168 (Table 4)
ALPHA = 0.9  # of the loss, unless Table D says otherwise


class Line(NamedTuple):
    """A row of a table of methods: what is reported, and which of our methods it is.

    Attributes:
        label: `{size}` and `{alpha}` are the places of our values, where they are not the paper's.
        side: ours; None for systems that are not implemented here.
        numbers: `accuracy` (mAP or top-1, percent), `per_frame` and `per_video` (GFLOPs), `usage`
            (percent of the frames used for the prediction), `runtime` (milliseconds per video) and
            `total` (seconds for all videos), as far as they are reported.
    """

    label: str
    side: Side | None
    numbers: Mapping[str, float]


def _create_lines(columns: str, *rows: tuple[Any, ...]) -> tuple[Line, ...]:
    """Lines from their label, side and numbers; those of the last columns may be missing."""
    return tuple(
        Line(label, side, dict(zip(columns.split(), numbers, strict=False)))
        for label, side, *numbers in rows
    )


# On ActivityNet, then on Mini-Kinetics. † marks what the authors of SoF-Net reproduced.
_SYSTEMS = (
    ("AdaFrame (offline, MV2+R101, 224, T = 25)", None, (71.5, 3.16, 79.0), ()),
    ("ListenToLook (offline, MV2+R152, 224, T = 16)", None, (72.3, 5.09, 81.4), ()),
    ("SCSampler (offline, MV2+R50, 224, T = 16)", None, (72.9, 2.62, 42.0), (70.8, 2.62, 42.0)),
    ("FrameExit (offline, R50, 224, T = 10)", FRAMEEXIT, (76.1, 2.61, 26.1), (72.8, 1.97, 19.7)),
    ("FrameExit† (offline, R50, 224, T = 16)", None, (76.1, 2.19, 35.1), ()),
    ("OCSampler (offline, MV2+R50, 224, T = 10)", None, (77.2, 2.58, 25.8), (73.7, 2.16, 21.6)),
    ("LiteEval (online, MV2+R101, 224, T = 25)", None, (72.7, 3.80, 95.1), (61.0, 3.96, 99.0)),
    (
        *("AR-Net (online, MV2+R50/R32/R18, 224/168/112, T = 16)", None),
        *((73.8, 2.09, 33.5), (71.7, 2.00, 32.0)),
    ),
    ("FrameExit, online† (online, R50, 224, T = 10)", FRAMEEXIT_ONLINE, (73.7, 2.76, 27.6), ()),
    ("AdaFocus (online, MV2+R50, 128, T = 16)", None, (75.0, 1.66, 26.6), (72.2, 1.64, 26.3)),
    ("SoF-Net (online)", EARLY, (75.3, 1.71, 27.4), (72.8, 1.75, 28.0)),
)
TABLE_1 = {
    dataset: _create_lines(
        "accuracy per_frame per_video",
        *((label, side, *numbers[i]) for label, side, *numbers in _SYSTEMS),
    )
    for i, dataset in enumerate((ACTIVITYNET, KINETICS))
}

TABLE_2 = _create_lines(
    "accuracy per_frame per_video",
    ("TSN", TSN, 46.6, 4.12, 65.9),
    ("AR-Net", None, 47.4, 1.67, 26.7),
    ("SoF-Net", EARLY, 47.8, 1.60, 25.6),
)

TABLE_3 = _create_lines(
    "runtime total usage",
    ("TSN", TSN, 110.5, 543.6, 100.0),
    ("AR-Net", None, 120.8, 594.6, 70.1),
    ("AdaFocus", None, 165.1, 812.3, 100.0),
    ("SoF-Net (168)", EARLY, 74.6, 367.2, 54.3),
    ("SoF-Net (192)", Side("sofnet_192", early=True), 82.0, 403.4, 61.0),
    ("SoF-Net (224)", Side("sofnet_224", early=True), 83.9, 412.8, 59.0),
    ("SoF-Net with TSM", Side("sofnet_tsm", early=True)),
)

TABLE_4 = _create_lines(
    "accuracy per_video",
    ("none (TSN)", TSN, 73.7, 40.3),
    ("policy", Side("fc_unguided"), 74.3, 32.2),
    ("policy + temporal", Side("unguided"), 75.0, 31.6),
    ("policy + guidance", Side("fc"), 74.7, 32.6),
    ("policy + temporal + guidance", SOFNET, 75.6, 31.7),
    ("policy + temporal + guidance + early exit", EARLY, 75.3, 27.4),
)

TABLE_5 = _create_lines(
    "accuracy per_frame per_video",
    ("168×168{size}", SOFNET, 75.6, 1.98, 31.7),
    ("168×168{size}, early exit", EARLY, 75.3, 1.71, 27.4),
    ("192×192{size}", Side("sofnet_192"), 76.4, 2.73, 43.7),
    ("192×192{size}, early exit", Side("sofnet_192", early=True), 76.3, 2.34, 37.4),
    ("224×224{size}", Side("sofnet_224"), 77.1, 3.48, 55.7),
    ("224×224{size}, early exit", Side("sofnet_224", early=True), 76.9, 3.04, 48.6),
)

# Percent of the frames. How the stopped ones spread over the gates is drawn, not written.
FIGURE_3 = {"used": 54.3, "stopped": 32.3, "exit": 13.4}

TABLE_A = _create_lines(
    "accuracy per_video usage",
    ("TSM", Side("tsm"), 73.0, 40.3, 100.0),
    ("TSM, online", Side("tsm_online")),
    ("SoF-Net with TSM, without early exit", Side("sofnet_tsm"), 74.1, 26.7, 49.6),
    ("SoF-Net with TSM", Side("sofnet_tsm", early=True), 73.9, 22.4, 44.1),
    ("SoF-Net with offline TSM, without early exit", Side("sofnet_tsm_offline")),
    ("for comparison: TSN", TSN, 73.7, 40.3),
    ("for comparison: SoF-Net, without early exit", SOFNET, 75.6, 31.7),
)

TABLE_B = _create_lines(
    "accuracy per_video usage",
    ("TSN", TSN, 39.2, 40.3, 100.0),
    ("AR-Net", None, 39.1, 41.2, 73.0),
    ("SoF-Net", EARLY, 41.2, 29.0, 53.2),
)

# ρ, T_min: mAP and GFLOPs per frame.
TABLE_C = {
    (0.95, 2): (72.3, 1.34),
    (0.95, 3): (73.5, 1.40),
    (0.95, 4): (74.2, 1.46),
    (0.95, 5): (74.6, 1.52),
    (0.99, 2): (74.1, 1.54),
    (0.99, 3): (74.6, 1.59),
    (0.99, 4): (75.0, 1.62),
    (0.99, 5): (75.0, 1.67),
    (0.999, 2): (74.9, 1.68),
    (0.999, 3): (75.3, 1.71),
    (0.999, 4): (75.3, 1.74),
    (0.999, 5): (75.2, 1.77),
}

TABLE_D = _create_lines(  # without early exit
    "accuracy per_video",
    ("α = 1.0, without L_pg", Side("alpha1_unguided"), 75.5, 37.6),
    ("α = 0.9, without L_pg{alpha}", Side("unguided"), 75.0, 31.6),
    ("α = 1.0, β = 0.0", Side("alpha1_beta0"), 75.2, 37.6),
    ("α = 1.0, β = 0.5", Side("alpha1_beta05"), 75.9, 38.9),
    ("α = 1.0, β = 1.0", Side("alpha1_beta1"), 74.7, 35.1),
    ("α = 0.9, β = 0.5{alpha}", Side("beta05"), 75.3, 31.5),
    ("as in Table 4 (α = β = 0.9 in the paper)", SOFNET, 75.6, 31.7),
)
