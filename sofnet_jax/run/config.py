"""Configurations: creating, varying, checking and reading them. `fields` lists what is in them."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from ml_collections import ConfigDict

from sofnet_jax.host.errors import UserError
from sofnet_jax.host.files import read_json
from sofnet_jax.parallel.devices import require_devices
from sofnet_jax.run.fields import FIELDS, LATER, PRECISIONS, list_foreign

DTYPES = {name: getattr(jnp, name) for name in PRECISIONS}
# What the words after the colon of `--config configs/X.py:tsn,192` change; a number is data.size.
# θ₁ of its released code for ActivityNet, after the first frame.
_FRAMEEXIT = {
    "model.system": "frameexit",
    "eval.threshold": 0.99,
    "eval.min_frames": 0,
    "frameexit.online": False,
}
VARIANTS: dict[str, dict[str, Any]] = {
    "tsn": {"model.system": "tsn"},
    "fc": {"model.temporal": False},
    "tsm_online": {"model.shift": "online"},
    "tsm_offline": {"model.shift": "offline"},
    "release": {
        "model.system": "sofnet_released",
        "optimizer.clip_norm": 20.0,
        "optimizer.weight_decay": 1e-4,
        "eval.min_frames": 4,  # it can end a video at the fifth frame, not at the fourth
    },
    "sync_bn": {"train.sync_batchnorm": True},
    "bfloat16": {"train.dtype": "bfloat16"},
    "frameexit": _FRAMEEXIT,
    "frameexit_online": _FRAMEEXIT | {"frameexit.online": True},
}


def get_config(variant: str = "") -> ConfigDict:
    """Create the default configuration, with a variant such as "tsn,192"."""
    return apply_variant(create_default(), variant)


def create_default() -> ConfigDict:
    """Create the paper's experiment on ActivityNet-v1.3, without a data set."""
    fields = {field.name: field.default for field in FIELDS}
    return ConfigDict(unflatten_dict(fields, sep=".")).lock()  # so that it refuses mistyped fields


def apply_variant(config: ConfigDict, variant: str) -> ConfigDict:
    """Apply the words of a variant, separated by commas, in place.

    Raises:
        ValueError: an unknown word, or two that contradict each other.
    """
    changed: dict[str, tuple[str, Any]] = {}
    for word in filter(None, variant.split(",")):
        if word not in VARIANTS and not word.isdecimal():
            known = f"{', '.join(VARIANTS)} or a resolution such as 192"
            raise ValueError(f"no variant '{word}' of this configuration; known: {known}")
        changes = VARIANTS[word] if word in VARIANTS else {"data.size": int(word)}
        for field, value in changes.items():
            other, there = changed.setdefault(field, (word, value))
            if there != value:
                raise ValueError(
                    f"variants '{other}' and '{word}' differ in {field}; leave one out"
                )
        config.update_from_flattened_dict(changes)
    foreign = list_foreign(config.model.system)
    for field, (word, _) in changed.items():
        if field in foreign:
            raise ValueError(
                f"variant '{word}' changes {field}, which the system {config.model.system} does "
                "not read; leave it out"
            )
    return config


def require_fields(config: ConfigDict) -> ConfigDict:
    """Return the configuration. Raises UserError if it lacks a field."""
    found = flatten_fields(config.to_dict())
    if missing := [field.name for field in FIELDS if field.name not in found]:
        raise UserError(f"--config: no field {missing[0]}; begin with create_default()")
    return config


def check_config(config: ConfigDict) -> None:
    """Reject values that would fail later and less clearly.

    Raises:
        UserError: naming the field, its value, and what it must be; or the device is missing.
    """
    check_fields(flatten_fields(require_fields(config).to_dict()))
    require_devices()
    batch, parts, devices = config.train.batch_size, config.train.accumulate, jax.device_count()
    if batch < 1 or parts < 1 or batch % (devices * parts):
        raise UserError(
            f"train.batch_size is {batch}; it must be a positive multiple of {devices} device(s) × "
            f"{parts} micro-batch(es) (train.accumulate)"
        )


def refuse_foreign(config: ConfigDict, given: Collection[str]) -> None:
    """Refuse fields, given by dotted names, that the configuration's system does not read.

    Raises:
        UserError: naming the field and the systems that read it.
    """
    system = config.model.system
    for field in FIELDS:
        if field.name in given and field.systems and system not in field.systems:
            readers = " and ".join(field.systems)
            raise UserError(f"{field.name} is a field of {readers}, but model.system is {system}")


def check_fields(fields: Mapping[str, Any]) -> None:
    """Reject fields, by dotted names, of a wrong type or value. Raises UserError."""
    for field in FIELDS:
        if field.name in fields:
            field.check(fields[field.name])


def read_fields(path: Path) -> dict[str, Any]:
    """Read all fields of a config.json by dotted names.

    Raises:
        UserError: the file is missing, damaged, or from an older version.
    """
    content = read_json(path)
    try:
        given = flatten_fields(content)
        _convert_older(given)
        check_fields(given)
    except (RecursionError, UserError) as error:
        raise UserError(f"{path} is damaged: {error}") from error
    # A system that is not the run's may be newer than the run.
    foreign = list_foreign(given.get("model.system", ""))
    refuse_older(path, [f.name for f in FIELDS if f.name not in foreign], given)
    return {field.name: given.get(field.name, field.default) for field in FIELDS}


def _convert_older(given: dict[str, Any]) -> None:
    """Complete the fields of a run of version 0.1.0, in place, if a system does the same."""
    given |= LATER | given
    if "model.gates" in given:  # there were two systems
        given.setdefault("model.system", "sofnet" if given["model.gates"] else "tsn")
    if "released.clip_norm" in given:  # and a switch for every difference of sofnet_released
        clip_norm = {"optimizer.clip_norm": given.pop("released.clip_norm")}
        switches = [on for name, on in given.items() if name.startswith("released.")]
        if not any(switches):
            given |= clip_norm
        elif all(switches) and given.get("model.system") == "sofnet":
            given |= clip_norm | {"model.system": "sofnet_released"}


def complete(saved: Mapping[str, Any], asked: Collection[str]) -> dict[str, Any]:
    """Fields that a run stored, with those that it lacks because it is of version 0.1.0."""
    return {name: value for name, value in LATER.items() if name in asked} | dict(saved)


def refuse_older(path: Path, expected: Collection[str], found: Collection[str]) -> None:
    """Raises UserError if a file or folder of a run lacks fields that this version writes."""
    if missing := sorted(set(expected) - set(found)):
        raise UserError(
            f"{path} was written by an older version, without {missing[0]}; train again, or "
            "use that version"
        )


def select_fields(config: ConfigDict, role: str) -> dict[str, Any]:
    """Return the fields of a role that the configuration's system and data source read."""
    values = flatten_fields(config.to_dict())
    reader = config.data.source, config.model.system
    return {f.name: values[f.name] for f in FIELDS if role in f.role and f.applies(*reader)}


def flatten_fields(config: dict[str, Any]) -> dict[str, Any]:
    """Return the values of a configuration by their dotted names."""
    return flatten_dict(config, sep=".")
