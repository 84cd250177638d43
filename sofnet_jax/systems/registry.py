"""The systems, by name."""

from collections.abc import Iterable, Mapping
from typing import Any

from sofnet_jax.host.errors import UserError, shorten
from sofnet_jax.systems.base import System
from sofnet_jax.systems.frameexit.system import FrameExitSystem
from sofnet_jax.systems.sofnet.released import ReleasedSoFNet
from sofnet_jax.systems.sofnet.system import SoFNetSystem
from sofnet_jax.systems.tsn import TSN

# New systems are added here, or by the file that defines one, when it is imported.
SYSTEMS: dict[str, Any] = {s.name: s for s in (SoFNetSystem, ReleasedSoFNet, TSN, FrameExitSystem)}

# What the class of a system has beside the protocol.
CLASS_MEMBERS = ("create", "create_architecture", "architecture_type", "module_type", "naming")


def find_system(architecture: Any, name: str = "") -> Any:
    """The class of systems whose weights have this architecture: of this name, or the first."""
    fitting = {k: s for k, s in SYSTEMS.items() if s.architecture_type is type(architecture)}
    return fitting.get(name) or next(iter(fitting.values()))


def find_registered(name: Any, source: str) -> Any:
    """The class of systems that weights name as theirs. Raises UserError if it is unknown."""
    if not isinstance(name, str) or name not in SYSTEMS:
        raise UserError(
            f"{source} holds weights of a system {shorten(repr(name), 40)}, which is not "
            "registered; in Python, first import the file that adds it to "
            "sofnet_jax.systems.registry.SYSTEMS; for a command, list it there"
        )
    return SYSTEMS[name]


def create_system(
    fields: Mapping[str, Any],
    *,
    num_classes: int = 0,
    architecture: Any = None,
    **options: Any,
) -> System:
    """The system that a configuration describes.

    Args:
        fields: of the configuration, by dotted names.
        num_classes: number of classes.
        architecture: in place of the one that the fields describe, as weights tell it.
        **options: of its module: `dtype`, `bn_axis`, `remat`.

    Raises:
        UserError: an unknown system, or fields that do not fit it.
    """
    name = fields["model.system"]
    if name not in SYSTEMS:
        raise UserError(f"model.system is '{name}'; choose one of {', '.join(SYSTEMS)}")
    system = SYSTEMS[name]
    _require_members(name, system, CLASS_MEMBERS)
    if architecture is None:
        architecture = system.create_architecture(fields, num_classes)
    created = system.create(fields, architecture, **options)
    _require_members(name, created, [m for m in vars(System) if not m.startswith("_")])
    return created


def _require_members(name: str, owner: Any, members: Iterable[str]) -> None:
    """Raises UserError if a system lacks one of these."""
    if missing := [member for member in members if getattr(owner, member, None) is None]:
        raise UserError(
            f"the system '{name}' lacks {', '.join(missing)}; add to its class in "
            f"{SYSTEMS[name].__module__} what docs/systems.md describes"
        )
