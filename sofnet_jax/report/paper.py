"""Numbers that the paper and its supplement report, none of them measured here.

Seon, Hwang, Mun and Han, "Stop or Forward: Dynamic Layer Skipping for Efficient Action
Recognition", WACV 2023: Tables 1 to 5 and the text on Figure 3; the supplement: Tables A to D.
Accuracies are in percent, costs in GFLOPs. Numbers of other systems are as the paper quotes them,
mostly from OCSampler (CVPR 2022).
"""

from dataclasses import dataclass

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
TSN_GFLOPS_224 = 65.9  # of 224×224 (Table 2)


@dataclass(frozen=True)
class Published:
    """Reported numbers of a method; None for those that are missing.

    Attributes:
        accuracy: mAP or top-1, percent.
        per_frame, per_video: GFLOPs.
        usage: percent of the frames used for the prediction.
        runtime: milliseconds per video.
        total: seconds for all videos.
    """

    accuracy: float | None = None
    per_frame: float | None = None
    per_video: float | None = None
    usage: float | None = None
    runtime: float | None = None
    total: float | None = None


@dataclass(frozen=True)
class System:
    """A row of Table 1, with accuracy and GFLOPs per frame and per video on both data sets.

    † marks what the authors reproduced.
    """

    name: str
    kind: str
    backbone: str
    resolution: str
    num_frames: int
    activitynet: tuple[float, float, float]
    kinetics: tuple[float, float, float] | None = None

    @property
    def reported(self) -> dict[str, Published]:
        """Its numbers by data set."""
        reported = {ACTIVITYNET: Published(*self.activitynet)}
        return reported | ({KINETICS: Published(*self.kinetics)} if self.kinetics else {})


SOFNET_TABLE_1 = System(
    *("SoF-Net", "online", "R50", "168", 16), (75.3, 1.71, 27.4), (72.8, 1.75, 28.0)
)
SYSTEMS = (
    System("AdaFrame", "offline", "MV2+R101", "224", 25, (71.5, 3.16, 79.0)),
    System("ListenToLook", "offline", "MV2+R152", "224", 16, (72.3, 5.09, 81.4)),
    System("SCSampler", "offline", "MV2+R50", "224", 16, (72.9, 2.62, 42.0), (70.8, 2.62, 42.0)),
    System("FrameExit", "offline", "R50", "224", 10, (76.1, 2.61, 26.1), (72.8, 1.97, 19.7)),
    System("FrameExit†", "offline", "R50", "224", 16, (76.1, 2.19, 35.1)),
    System("OCSampler", "offline", "MV2+R50", "224", 10, (77.2, 2.58, 25.8), (73.7, 2.16, 21.6)),
    System("LiteEval", "online", "MV2+R101", "224", 25, (72.7, 3.80, 95.1), (61.0, 3.96, 99.0)),
    System(
        *("AR-Net", "online", "MV2+R50/R32/R18", "224/168/112", 16),
        *((73.8, 2.09, 33.5), (71.7, 2.00, 32.0)),
    ),
    System("FrameExit, online†", "online", "R50", "224", 10, (73.7, 2.76, 27.6)),
    System("AdaFocus", "online", "MV2+R50", "128", 16, (75.0, 1.66, 26.6), (72.2, 1.64, 26.3)),
)

TABLE_2 = {
    "TSN": Published(46.6, 4.12, 65.9),
    "AR-Net": Published(47.4, 1.67, 26.7),
    "SoF-Net": Published(47.8, 1.60, 25.6),
}

TABLE_3 = {
    "TSN": Published(runtime=110.5, total=543.6, usage=100.0),
    "AR-Net": Published(runtime=120.8, total=594.6, usage=70.1),
    "AdaFocus": Published(runtime=165.1, total=812.3, usage=100.0),
    "SoF-Net (168)": Published(runtime=74.6, total=367.2, usage=54.3),
    "SoF-Net (192)": Published(runtime=82.0, total=403.4, usage=61.0),
    "SoF-Net (224)": Published(runtime=83.9, total=412.8, usage=59.0),
}

# Policy module, temporal modelling, policy guidance, early termination.
TABLE_4 = {
    (False, False, False, False): Published(73.7, per_video=40.3),
    (True, False, False, False): Published(74.3, per_video=32.2),
    (True, True, False, False): Published(75.0, per_video=31.6),
    (True, False, True, False): Published(74.7, per_video=32.6),
    (True, True, True, False): Published(75.6, per_video=31.7),
    (True, True, True, True): Published(75.3, per_video=27.4),
}

# Frame size: without and with early termination.
TABLE_5 = {
    168: (Published(75.6, 1.98, 31.7), Published(75.3, 1.71, 27.4)),
    192: (Published(76.4, 2.73, 43.7), Published(76.3, 2.34, 37.4)),
    224: (Published(77.1, 3.48, 55.7), Published(76.9, 3.04, 48.6)),
}

# Percent of the frames. How the stopped ones spread over the gates is drawn, not written.
FIGURE_3 = {"used": 54.3, "stopped": 32.3, "exit": 13.4}

TABLE_A = {
    "TSM": Published(73.0, per_video=40.3, usage=100.0),
    "SoF-Net with TSM, without early termination": Published(74.1, per_video=26.7, usage=49.6),
    "SoF-Net with TSM": Published(73.9, per_video=22.4, usage=44.1),
}

TABLE_B = {
    "TSN": Published(39.2, per_video=40.3, usage=100.0),
    "AR-Net": Published(39.1, per_video=41.2, usage=73.0),
    "SoF-Net": Published(41.2, per_video=29.0, usage=53.2),
}

# ρ, T_min: mAP and GFLOPs per frame.
TABLE_C = {
    (0.95, 2): Published(72.3, 1.34),
    (0.95, 3): Published(73.5, 1.40),
    (0.95, 4): Published(74.2, 1.46),
    (0.95, 5): Published(74.6, 1.52),
    (0.99, 2): Published(74.1, 1.54),
    (0.99, 3): Published(74.6, 1.59),
    (0.99, 4): Published(75.0, 1.62),
    (0.99, 5): Published(75.0, 1.67),
    (0.999, 2): Published(74.9, 1.68),
    (0.999, 3): Published(75.3, 1.71),
    (0.999, 4): Published(75.3, 1.74),
    (0.999, 5): Published(75.2, 1.77),
}

# α, and β or None without L_pg; without early termination.
TABLE_D = {
    (1.0, None): Published(75.5, per_video=37.6),
    (0.9, None): Published(75.0, per_video=31.6),
    (1.0, 0.0): Published(75.2, per_video=37.6),
    (1.0, 0.5): Published(75.9, per_video=38.9),
    (1.0, 1.0): Published(74.7, per_video=35.1),
    (0.9, 0.5): Published(75.3, per_video=31.5),
}
