"""The methods of the paper's tables and figures, as changes of a base configuration."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from ml_collections import ConfigDict

from sofnet_jax.run.config import VARIANTS

PAPER_SIZE = 168  # side of the paper's frames in pixels
SIZE_STEP = 8


@dataclass(frozen=True)
class Method:
    """What is trained for a row of a table.

    Attributes:
        name: its folder, and its name on the command line.
        title: as in the paper's rows.
        changes: values of configuration fields by their dotted names.
        tables: the tables and figures that show it.
        size: the frame size, where `PAPER_SIZE` stands for the base configuration's.
    """

    name: str
    title: str
    changes: Mapping[str, object]
    tables: tuple[str, ...]
    size: int = PAPER_SIZE


# What every method has unless it changes it; all other fields are the base configuration's.
COMMON: dict[str, object] = {
    "model.system": "sofnet",
    "model.temporal": True,
    "loss.guidance": True,
    "model.shift": "",
}
_UNGUIDED: dict[str, object] = {"loss.guidance": False}
_FC: dict[str, object] = {"model.temporal": False}
_TSN: dict[str, object] = {"model.system": "tsn"}
_ONLINE, _OFFLINE = ({"model.shift": shift} for shift in ("online", "offline"))
_ALPHA_1: dict[str, object] = {"loss.alpha": 1.0}
_4, _A, _D, _SIZES = ("table4",), ("tableA",), ("tableD",), ("table3", "table5")
_TABLES = "table1 table2 table3 table4 table5 figure3 figure4 tableA tableB tableC tableD"

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method("tsn", "TSN", _TSN, ("table2", "table3", "table4", "tableA", "tableB")),
        Method("sofnet", "SoF-Net", {}, tuple(_TABLES.split())),
        Method(
            "fc_unguided", "SoF-Net, fully connected gates, without guidance", _FC | _UNGUIDED, _4
        ),
        Method("unguided", "SoF-Net, without guidance", _UNGUIDED, _4 + _D),
        Method("fc", "SoF-Net, fully connected gates", _FC, _4),
        Method("sofnet_192", "SoF-Net, 192×192", {}, _SIZES, size=192),
        Method("sofnet_224", "SoF-Net, 224×224", {}, _SIZES, size=224),
        Method("tsm", "TSM", _TSN | _OFFLINE, _A),
        Method("tsm_online", "TSM, online", _TSN | _ONLINE, _A),
        Method("sofnet_tsm", "SoF-Net with TSM", _ONLINE, _A),
        Method("sofnet_tsm_offline", "SoF-Net with TSM, offline", _OFFLINE, _A),
        Method("alpha1_unguided", "SoF-Net, α = 1, without guidance", _UNGUIDED | _ALPHA_1, _D),
        Method("alpha1_beta0", "SoF-Net, α = 1, β = 0", _ALPHA_1 | {"loss.beta": 0.0}, _D),
        Method("alpha1_beta05", "SoF-Net, α = 1, β = 0.5", _ALPHA_1 | {"loss.beta": 0.5}, _D),
        Method("alpha1_beta1", "SoF-Net, α = 1, β = 1", _ALPHA_1 | {"loss.beta": 1.0}, _D),
        Method("beta05", "SoF-Net, β = 0.5", {"loss.beta": 0.5}, _D),
        Method("frameexit", "FrameExit", VARIANTS["frameexit"], ("table1",)),
        Method("frameexit_online", "FrameExit, online", VARIANTS["frameexit_online"], ("table1",)),
    )
}


class Side(NamedTuple):
    """A method, with or without early exit, beside another one."""

    method: str
    early: bool = False


TSN, SOFNET, EARLY = Side("tsn"), Side("sofnet"), Side("sofnet", early=True)
# Its first exit is a threshold of confidence, as the early exit is.
FRAMEEXIT, FRAMEEXIT_ONLINE = (Side(name, early=True) for name in ("frameexit", "frameexit_online"))


def create_config(base: ConfigDict, method: Method, seed: int) -> ConfigDict:
    """Copy the base configuration with the method's changes and the seed.

    Raises:
        AttributeError, KeyError: the base lacks a field that the method changes.
    """
    config = copy.deepcopy(base).lock()  # otherwise a missing field would be created
    config.update_from_flattened_dict(dict(method.changes) | {"seed": seed})
    config.data.size = scale_size(base.data.size, method.size)
    return config


def find_contradiction(config: Mapping[str, object], method: Method) -> str | None:
    """How a configuration, by dotted names, contradicts a method; None if it does not."""
    for field, value in {**COMMON, **method.changes}.items():
        released = (value, config[field]) == ("sofnet", "sofnet_released")  # of every method
        if config[field] != value and not released:
            return f"{field} is {config[field]!r}, but {value!r} in {method.name}"
    return None


def scale_size(base: int, size: int) -> int:
    """Scale `base` by `size` / `PAPER_SIZE` and, unless that is 1, round to a multiple of 8."""
    if size == PAPER_SIZE:
        return base
    return SIZE_STEP * round(base * size / (PAPER_SIZE * SIZE_STEP))
