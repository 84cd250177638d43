"""The methods that the paper's tables and figures compare, as changes of a base configuration."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass

from ml_collections import ConfigDict

PAPER_SIZE = 168  # pixels a side of the paper's frames, unless a method says otherwise
SIZE_STEP = 8


@dataclass(frozen=True)
class Method:
    """What is trained for a row of a table.

    Attributes:
        name: of its folder and on the command line.
        title: as in the paper's rows.
        changes: values of fields of the configuration by their dotted names.
        tables: the tables and figures that need it.
        size: side of the frames where `PAPER_SIZE` stands for that of the base.
    """

    name: str
    title: str
    changes: Mapping[str, object]
    tables: tuple[str, ...]
    size: int = PAPER_SIZE


# What every method has unless it changes it; further fields are the base's own.
COMMON: dict[str, object] = {"model.temporal": True, "loss.guidance": True, "model.shift": ""}
_UNGUIDED: dict[str, object] = {"loss.guidance": False}
_FULLY_CONNECTED: dict[str, object] = {"model.temporal": False}
_TSN: dict[str, object] = {"model.gates": ()}

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method("tsn", "TSN", _TSN, ("table2", "table3", "table4", "tableA", "tableB")),
        Method(
            "sofnet",
            "SoF-Net",
            {},
            (
                *("table1", "table2", "table3", "table4", "table5", "figure3", "figure4"),
                *("tableA", "tableB", "tableC", "tableD"),
            ),
        ),
        Method(
            "fc_unguided",
            "SoF-Net, fully connected gates, without guidance",
            _FULLY_CONNECTED | _UNGUIDED,
            ("table4",),
        ),
        Method("unguided", "SoF-Net, without guidance", _UNGUIDED, ("table4", "tableD")),
        Method("fc", "SoF-Net, fully connected gates", _FULLY_CONNECTED, ("table4",)),
        Method("sofnet_192", "SoF-Net, 192×192", {}, ("table3", "table5"), size=192),
        Method("sofnet_224", "SoF-Net, 224×224", {}, ("table3", "table5"), size=224),
        Method("tsm", "TSM", _TSN | {"model.shift": "offline"}, ("tableA",)),
        Method("tsm_online", "TSM, online", _TSN | {"model.shift": "online"}, ("tableA",)),
        Method("sofnet_tsm", "SoF-Net with TSM", {"model.shift": "online"}, ("tableA",)),
        Method(
            "sofnet_tsm_offline",
            "SoF-Net with TSM, offline",
            {"model.shift": "offline"},
            ("tableA",),
        ),
        Method(
            "alpha1_unguided",
            "SoF-Net, α = 1, without guidance",
            _UNGUIDED | {"loss.alpha": 1.0},
            ("tableD",),
        ),
        *(
            Method(
                f"alpha1_beta{digits}",
                f"SoF-Net, α = 1, β = {beta:g}",
                {"loss.alpha": 1.0, "loss.beta": beta},
                ("tableD",),
            )
            for digits, beta in (("0", 0.0), ("05", 0.5), ("1", 1.0))
        ),
        Method("beta05", "SoF-Net, β = 0.5", {"loss.beta": 0.5}, ("tableD",)),
    )
}


def create_config(base: ConfigDict, method: Method, seed: int) -> ConfigDict:
    """A copy of the base with the method's changes and the seed.

    Raises:
        AttributeError, KeyError: the base lacks a field that the method changes.
    """
    config = copy.deepcopy(base).lock()  # else a field that is not there would be made
    config.update_from_flattened_dict(dict(method.changes) | {"seed": seed})
    config.data.size = scale_size(base.data.size, method.size)
    return config


def find_contradiction(config: Mapping[str, object], method: Method) -> str | None:
    """In which field a configuration, by dotted names, is not that of a method; None if in none."""
    for field, value in {**COMMON, **method.changes}.items():
        given = config[field]
        same = not given if value == () else given == value
        if not same:
            return f"its {field} is {given!r}, and of {method.name} it would be {value!r}"
    if "model.gates" not in method.changes and not config["model.gates"]:
        return f"it has no gates, and {method.name} does"
    return None


def scale_size(base: int, size: int) -> int:
    """Pixels a side that are to `base` as `size` is to `PAPER_SIZE`.

    To the nearest multiple of 8 unless the two are the same.
    """
    if size == PAPER_SIZE:
        return base
    return SIZE_STEP * round(base * size / (PAPER_SIZE * SIZE_STEP))
