"""Which values the fields of a configuration may have."""

import difflib
import functools
import math
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from configs.default import create_default
from sofnet_jax.backbones.spec import SHIFTS
from sofnet_jax.host.errors import UserError
from sofnet_jax.host.files import read_json

CRITERIA = ("top1", "top5", "map")  # metrics by which one checkpoint can be better than another
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
CHOICES: dict[str, Collection[str]] = {
    "data.source": ("videos", "prepared", "synthetic"),
    "eval.checkpoint": ("last", "best"),
    "eval.metric": CRITERIA,
    "model.shift": SHIFTS,
    "train.dtype": DTYPES,
}


class Rule(NamedTuple):
    """What must hold of some fields; NaN breaks every rule."""

    allows: Callable[[Any], bool]
    text: str
    fields: tuple[str, ...]


def _above(x: int | float) -> int | float:
    """What a number of this type must stay below."""
    return 2**63 if isinstance(x, int) else math.inf


RULES = (
    Rule(
        lambda x: 1 <= x < _above(x),
        "a number from 1 up",
        (
            "data.num_frames",
            "data.size",
            "eval.batch_size",
            "eval.every_epochs",
            "model.hidden",
            "train.log_every",
        ),
    ),
    Rule(
        lambda x: 0 <= x < _above(x),
        "a number from 0 up",
        (
            "data.num_workers",
            "data.short_side",
            "eval.min_frames",
            "loss.reference_gflops",
            "model.width",
            "optimizer.learning_rate",
            "optimizer.policy_rate",
            "optimizer.weight_decay",
            "released.clip_norm",
            "seed",
            "temperature.decay",
            "train.joint_epochs",
            "train.warmup_epochs",
        ),
    ),
    Rule(lambda x: all(e >= 0 for e in x), "epochs from 0 up", ("optimizer.drop_epochs",)),
    Rule(lambda x: 0 <= x <= 1, "from 0 to 1", ("eval.threshold", "loss.alpha", "loss.beta")),
    Rule(lambda x: 0 <= x < 1, "from 0 to below 1", ("model.dropout", "optimizer.momentum")),
    Rule(lambda x: x > 0, "above 0", ("temperature.initial",)),
    Rule(
        lambda x: len(x) > 0 and all(0 < scale <= 1 for scale in x),
        "one or more numbers above 0 and up to 1",
        ("data.scales",),
    ),
)


def check_fields(fields: Mapping[str, Any]) -> None:
    """Refuses fields, by their dotted names, of a configuration that comes with a run.

    Unlike those of `check_values`, they may be of any type.

    Raises:
        UserError: naming the field.
    """
    for name, default in flatten_dict(create_default().to_dict(), sep=".").items():
        if name in fields and not _is_like(fields[name], default):
            raise UserError(f"{name} is {_show(fields[name])}")
    for rule in RULES:
        for name in rule.fields:
            if name in fields and not rule.allows(fields[name]):
                raise UserError(f"{name} is {_show(fields[name])}; it must be {rule.text}")
    for name, choices in CHOICES.items():
        if name in fields:
            _check_choice(name, fields[name], choices)


def _is_like(value: Any, default: Any) -> bool:
    """Whether a value from JSON can be that of a field with this default."""
    if isinstance(default, tuple):
        return isinstance(value, list) and all(_is_like(item, default[0]) for item in value)
    if isinstance(default, float):
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value) is type(default)


def _show(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 80 else text[:77] + "…"


def check_values(config: ConfigDict) -> None:
    """Refuses values that would fail later and less clearly.

    Raises:
        UserError: naming the field, its value, and what it must be.
    """
    _check_batch_size(config.train.batch_size, config.train.accumulate)
    for rule in RULES:
        for name in rule.fields:
            value = _get(config, name)
            if not rule.allows(value):
                raise UserError(f"{name} is {value}; it must be {rule.text}")
    for name, choices in CHOICES.items():
        _check_choice(name, _get(config, name), choices)


def _get(config: ConfigDict, name: str) -> Any:
    return functools.reduce(getattr, name.split("."), config)


def _check_batch_size(batch: int, parts: int) -> None:
    devices = jax.device_count()
    if batch < 1 or parts < 1 or batch % (devices * parts):
        raise UserError(
            f"train.batch_size is {batch}; it must be a multiple of {devices} device(s) × "
            f"{parts} micro-batch(es) (train.accumulate)"
        )


def _check_choice(name: str, value: str, choices: Collection[str]) -> None:
    if value not in choices:
        names = ", ".join(choice or "''" for choice in choices)
        close = difflib.get_close_matches(str(value), choices, 1, 0)
        raise UserError(
            f"{name} is '{value}'; choose one of {names}"
            + (f" (did you mean {close[0]}?)" if close else "")
        )


# Where and how fast a run is computed, which changes nothing of what comes out.
INDIFFERENT = {
    "data.keep",
    "data.num_workers",
    "data.synthetic.root",
    "eval.batch_size",
    "parallel.coordinator",
    "parallel.num_processes",
    "parallel.process_id",
    "train.log_every",
    "train.remat",
}


def read_fields(path: Path) -> dict[str, Any]:
    """The fields of a config.json by dotted names; of older ones that lack some, the defaults.

    Raises:
        UserError: there is none, or it is damaged.
    """
    defaults = flatten_fields(create_default().to_dict())
    given = read_given_fields(path)
    return defaults | {name: value for name, value in given.items() if name in defaults}


def read_given_fields(path: Path) -> dict[str, Any]:
    """All that stands in a config.json, by dotted names, with values that fields can have.

    Raises:
        UserError: there is none, or it is damaged.
    """
    content = read_json(path)
    try:
        given = flatten_fields(content)
        check_fields(given)
    except (RecursionError, UserError) as error:
        raise UserError(f"{path} is damaged: {error}") from error
    return given


def flatten_fields(config: dict[str, Any]) -> dict[str, Any]:
    """The values of a configuration by their dotted names."""
    return flatten_dict(config, sep=".")
