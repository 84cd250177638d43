"""Every field of a configuration, with the paper's values as defaults."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any, Literal, NamedTuple

from sofnet_jax.backbones.spec import BACKBONES, SHIFTS
from sofnet_jax.host.errors import UserError, shorten

CRITERIA = ("top1", "top5", "map")  # metrics by which checkpoints are compared
LARGEST_SIZE, MOST_FRAMES = 4096, 10_000  # pixels a side, frames of a video
PRECISIONS = ("float32", "bfloat16")
INFERENCE_PRECISIONS = (*PRECISIONS, "int8")
# What a field means to a run that was stored:
#   identity     a checkpoint must agree on it
#   schedule     a resumed training must agree on it
#   outcome      it may change when a training resumes, but it changes the outcome
#   indifferent  it says where and how fast a run is computed, and changes no result
Role = Literal["identity", "schedule", "identity and schedule", "outcome", "indifferent"]


class Range(NamedTuple):
    """Values that a field may have. NaN is in no range but `ANY`."""

    contains: Callable[[Any], bool]
    text: str


def _limit(x: int | float) -> int | float:
    """What a number of this type must stay below."""
    return 2**63 if isinstance(x, int) else math.inf


ANY = Range(lambda x: True, "anything")
FROM_0 = Range(lambda x: 0 <= x < _limit(x), "a number from 0 up")
FROM_1 = Range(lambda x: 1 <= x < _limit(x), "a number from 1 up")
POSITIVE = Range(lambda x: 0 < x < math.inf, "a number above 0")
FINITE = Range(lambda x: abs(x) < math.inf, "a finite number")
FRAMES = Range(lambda x: 1 <= x <= MOST_FRAMES, f"from 1 to {MOST_FRAMES}")
SIZES = Range(lambda x: 1 <= x <= LARGEST_SIZE, f"from 1 to {LARGEST_SIZE}")
UNIT = Range(lambda x: 0 <= x <= 1, "from 0 to 1")
BELOW_1 = Range(lambda x: 0 <= x < 1, "from 0 to below 1")
EPOCHS = Range(lambda x: all(epoch >= 0 for epoch in x), "epochs from 0 up")
LAYERS = Range(lambda x: len(x) == 2 and min(x) > 0, "two numbers from 1 up")
SCALES = Range(
    lambda x: len(x) > 0 and all(0 < scale <= 1 for scale in x),
    "one or more numbers above 0 and up to 1",
)


@dataclass(frozen=True)
class Field:
    """One field."""

    name: str  # dotted, as in `--config.data.size`
    default: Any  # the paper's value; other values have its type
    role: Role
    allowed: Range | tuple[str, ...]  # a range, or the choices
    comment: str  # meaning and unit
    later: bool = False  # added since 0.1.0, whose runs did what the default says
    source: str = ""  # the `data.source` that reads this field; "" if all do
    systems: tuple[str, ...] = ()  # the systems that read it; () if all do

    def applies(self, source: str, system: str) -> bool:
        """Whether a configuration with this data source and system reads the field."""
        return self.source in ("", source) and (not self.systems or system in self.systems)

    def check(self, value: Any) -> None:
        """Raise UserError unless the field can have this value, which may come from JSON."""
        if not _is_like(value, self.default):
            raise UserError(
                f"{self.name} is {shorten(repr(value), 80)}; give a value such as {self.default!r}"
            )
        if isinstance(self.allowed, Range):
            if not self.allowed.contains(value):
                raise UserError(
                    f"{self.name} is {shorten(repr(value), 80)}; it must be {self.allowed.text}"
                )
        elif value not in self.allowed:
            names = ", ".join(choice or "''" for choice in self.allowed)
            close = get_close_matches(value, self.allowed, 1, 0)
            hint = f" (did you mean {close[0]}?)" if close else ""
            raise UserError(f"{self.name} is '{value}'; choose one of {names}{hint}")


def _is_like(value: Any, default: Any) -> bool:
    """Whether a field with this default can have the value."""
    if isinstance(default, tuple):
        return isinstance(value, list | tuple) and all(_is_like(x, default[0]) for x in value)
    if isinstance(default, float):
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value) is type(default)


def _add(*arguments: Any) -> Field:
    """A field that runs of version 0.1.0 lack."""
    return replace(Field(*arguments), later=True)


def _read_by(systems: tuple[str, ...], *fields: Field) -> tuple[Field, ...]:
    """Fields that only some systems read."""
    return tuple(replace(field, systems=systems) for field in fields)


SOFNETS = ("sofnet", "sofnet_released")
FIELDS = (
    Field("seed", 0, "schedule", FROM_0, "seed of weights, order, crops, dropout and gates"),
    Field("init_from", "", "schedule", ANY, "weights: a file, a run's folder, or hub:owner/name"),
    # Data. Videos are files ("videos"), what sofnet_jax.prepare wrote ("prepared"), or generated
    # ("synthetic"). data.train and data.val each are a folder with one sub-folder per class, or a
    # CSV of path,label[,label…].
    Field("data.name", "videos", "outcome", ANY, "data set under which results are reported"),
    Field("data.source", "videos", "outcome", ("videos", "prepared", "synthetic"), "see above"),
    Field("data.train", "", "outcome", ANY, "training videos", source="videos"),
    Field("data.val", "", "outcome", ANY, "validation videos", source="videos"),
    Field(
        *("data.short_side", 256, "schedule", FROM_0),
        "pixels to which larger videos are scaled down before they are cropped; 0: never",
        source="videos",
    ),
    Field("data.keep", False, "indifferent", ANY, "keep decoded videos in each process's memory"),
    Field("data.prepared", "", "outcome", ANY, "folder of the data set", source="prepared"),
    Field("data.num_frames", 16, "schedule", FRAMES, "frames per video, T"),
    Field("data.size", 168, "schedule", SIZES, "side of a frame in pixels"),
    Field("data.scales", (1.0, 0.875, 0.75, 0.66), "schedule", SCALES, "of the multi-scale crop"),
    Field("data.flip", True, "schedule", ANY, "flip training videos at random"),
    Field("data.num_workers", 2, "indifferent", FROM_0, "decoding processes; 0: threads instead"),
    # "" is a folder in ~/.cache/sofnet_jax/synthetic.
    Field("data.synthetic.root", "", "indifferent", ANY, "folder to write to", source="synthetic"),
    Field("data.synthetic.num_classes", 10, "schedule", ANY, "classes", source="synthetic"),
    Field("data.synthetic.train_videos", 50, "schedule", ANY, "per class", source="synthetic"),
    Field("data.synthetic.val_videos", 80, "schedule", ANY, "per class", source="synthetic"),
    Field("data.synthetic.seed", 0, "schedule", ANY, "seed of the videos", source="synthetic"),
    # Network. `systems/registry.py` lists the systems.
    Field("model.system", "sofnet", "identity", ANY, "how a video is looked at"),
    Field("model.backbone", "resnet50", "identity", tuple(BACKBONES), "network without gates"),
    Field("model.width", 0, "identity", FROM_0, "channels of res1; 0: the backbone's own"),
    Field("model.shift", "", "identity", SHIFTS, "temporal shift of TSM; '': none"),
    Field("model.dropout", 0.5, "identity", BELOW_1, "rate before the final classifier"),
    *_read_by(
        SOFNETS,
        Field("model.gates", (1, 2, 3, 4, 5), "identity", ANY, "stages with a gate"),
        Field("model.hidden", 512, "identity", FROM_1, "units of each LSTM"),
        Field("model.temporal", True, "identity", ANY, "False: a linear layer, no LSTM (Table 4)"),
        Field("model.forward_bias", 0.0, "identity", FINITE, "initial bias of W_q for 'forward'"),
    ),
    *_read_by(
        ("frameexit",),
        Field(
            "frameexit.online", False, "identity", ANY, "frames as they come, not coarse to fine"
        ),
        Field("frameexit.features", 4096, "identity", FROM_1, "units after the backbone"),
        Field("frameexit.gate_features", (128, 64), "identity", LAYERS, "units of a gate's layers"),
        Field("frameexit.beta", 1e-4, "schedule", POSITIVE, "the larger, the sooner gates exit"),
        Field("frameexit.gate_epochs", 10, "outcome", FROM_0, "epochs of the gates, at the end"),
        Field("frameexit.held_out", 0.1, "schedule", BELOW_1, "share of videos for the gates"),
    ),
    # Training. Batches are counted over all devices and processes. The warm-up forwards every
    # frame, freezes the gates, and minimises L_cls alone.
    Field("train.batch_size", 24, "schedule", ANY, "videos per step"),
    Field("train.accumulate", 1, "outcome", ANY, "micro-batches per step on each device"),
    Field("train.warmup_epochs", 15, "schedule", FROM_0, "epochs of the warm-up"),
    Field("train.joint_epochs", 60, "outcome", FROM_0, "epochs of the joint training"),
    _add(
        *("train.least_steps", 0, "schedule", FROM_0),
        "steps of the first phase, whose epochs are added to until it has as many",
    ),
    Field("train.dtype", "float32", "outcome", PRECISIONS, "precision of the backbone"),
    Field("train.remat", False, "indifferent", ANY, "recompute activations to save memory"),
    Field("train.sync_batchnorm", False, "outcome", ANY, "share statistics among all devices"),
    Field("train.log_every", 10, "indifferent", FROM_1, "steps between two lines of the log"),
    # With few videos, the joint training is too short for gates. With gate_steps it trains the
    # network alone, as TSN; then the gates learn from its features, which no longer change. Of
    # FrameExit they replace gate_epochs.
    *_read_by(
        (*SOFNETS, "frameexit"),
        _add("train.gate_steps", 0, "schedule", FROM_0, "steps of the gates alone, at the end"),
        _add(
            *("train.feature_epochs", 8, "schedule", FROM_1),
            "passes over the videos whose features these steps draw from",
        ),
        _add(
            *("train.feature_noise", 0.0, "schedule", FROM_0),
            "noise on these features, as a multiple of their standard deviation",
        ),
    ),
    *_read_by(
        SOFNETS,
        _add(
            *("optimizer.classifier_rate", 0.0, "schedule", FROM_0),
            "the classifier's rate in these steps, as a multiple of the gates'",
        ),
    ),
    # SoF-Net's losses. Tiny backbones need the GFLOPs of a ResNet-50 at 168×168, 2.52, for L_eff to
    # matter.
    *_read_by(
        SOFNETS,
        Field(
            "loss.alpha", 0.9, "schedule", UNIT, "weight of accuracy; cost has 1 - alpha (Eq. 8)"
        ),
        Field(
            "loss.beta", 0.9, "schedule", UNIT, "weight of L_inner; L_self has 1 - beta (Eq. 12)"
        ),
        Field("loss.guidance", True, "schedule", ANY, "False leaves L_pg out (Tables 4 and D)"),
        _add(
            *("loss.floor", 0.0, "schedule", BELOW_1),
            "share of L_eff's largest value below which it pushes a video no further",
        ),
        Field("loss.reference_gflops", 0.0, "schedule", FROM_0, "a frame's in L_eff; 0: real ones"),
    ),
    Field("optimizer.name", "sgd", "identity and schedule", ("sgd", "adam"), "optimizer"),
    _add(
        *("optimizer.policy_name", "", "identity and schedule", ("", "sgd", "adam")),
        "optimizer of the gates; '': the same",
    ),
    Field("optimizer.learning_rate", 0.001, "schedule", FROM_0, "of everything but the gates"),
    Field("optimizer.policy_rate", 1.0, "schedule", FROM_0, "the gates' rate, as a multiple"),
    # "cosine" leads it to 0 in every phase, however long that is.
    _add("optimizer.schedule", "drops", "schedule", ("drops", "cosine"), "of the learning rate"),
    Field(
        "optimizer.drop_epochs", (30,), "schedule", EPOCHS, "epochs after which it falls to 1/10"
    ),
    Field("optimizer.momentum", 0.9, "schedule", BELOW_1, "of SGD; b1 of Adam"),
    Field("optimizer.weight_decay", 1e-5, "schedule", FROM_0, "coupled, as in torch.optim.SGD"),
    Field("optimizer.clip_norm", 0.0, "schedule", FROM_0, "largest norm of the gradient; 0: any"),
    # Temperature of the Gumbel-softmax: initial · exp(-decay · joint epoch).
    Field("temperature.initial", 5.0, "schedule", POSITIVE, "temperature at the first joint epoch"),
    Field("temperature.decay", 0.045, "schedule", FROM_0, "exponent per joint epoch"),
    _add(
        *("temperature.final", 0.0, "schedule", FROM_0),
        "at the end, reached exponentially however long the phase is; 0: as decay says",
    ),
    # Evaluation. "last" or "best" checkpoint: for --mode evaluate, the final table and init_from.
    Field("eval.batch_size", 24, "indifferent", FROM_1, "videos per step, over all devices"),
    Field("eval.every_epochs", 1, "outcome", FROM_1, "epochs between evaluations, each saved"),
    Field("eval.metric", "map", "outcome", CRITERIA, "metric of the best checkpoint"),
    Field("eval.checkpoint", "last", "outcome", ("last", "best"), "see above"),
    Field("eval.threshold", 0.999, "outcome", UNIT, "ρ of early exit (Eq. 7)"),
    Field("eval.min_frames", 3, "outcome", FROM_0, "T_min of early exit (Eq. 7)"),
    # Several processes. By default the environment tells (Slurm, TPU pods, …).
    Field("parallel.coordinator", "", "indifferent", ANY, "host:port of process 0"),
    Field("parallel.num_processes", 0, "indifferent", ANY, "processes; 0: ask the environment"),
    Field("parallel.process_id", -1, "indifferent", ANY, "this process; -1: ask the environment"),
)
LATER = {field.name: field.default for field in FIELDS if field.later}
INDIFFERENT = {field.name for field in FIELDS if field.role == "indifferent"}


def list_foreign(system: str) -> set[str]:
    """The names of the fields that a system does not read."""
    return {field.name for field in FIELDS if field.systems and system not in field.systems}
