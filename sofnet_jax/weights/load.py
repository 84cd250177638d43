"""Load weights from a file, a run or the hub into the variables of a network."""

import contextlib
import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from sofnet_jax.backbones.spec import BACKBONES
from sofnet_jax.host.errors import UserError
from sofnet_jax.host.paths import expand
from sofnet_jax.run.checkpoint import Checkpoints, Which
from sofnet_jax.systems.naming import BACKBONE, Naming
from sofnet_jax.systems.registry import SYSTEMS, find_registered, find_system
from sofnet_jax.weights import hub
from sofnet_jax.weights.files import READABLE, Tensors, read_tensors
from sofnet_jax.weights.names import (
    COUNTER,
    Tree,
    describe,
    fold,
    fold_gates,
    from_state_dict,
    infer_architecture,
    recognise_system,
    rename_tensors,
    to_state_dict,
    torch_shapes,
)

HALF = ("float16", "bfloat16")


@dataclasses.dataclass(frozen=True)
class Weights:
    """Tensors by our names and in PyTorch's shapes, whatever their source calls them.

    `layout` says whose names they had there, `left_out` which of them are no weight of ours, and
    `notes` are warnings, a sentence each. `told` is what the source itself tells of the network:
    the name of the `system`, and fields of its architecture.
    """

    source: str
    layout: str
    tensors: Tensors
    left_out: list[str]
    classes: tuple[str, ...] | None
    notes: tuple[str, ...] = ()
    told: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def system(self) -> Any:
        """The class of systems that the tensors belong to. Raises UserError if it is unknown."""
        if "system" in self.told:
            return find_registered(self.told["system"], self.source)
        return recognise_system(self.tensors)

    @property
    def architecture(self) -> Any:
        """The network that the tensors belong to."""
        return infer_architecture(self.tensors, self.source, self.system, self.told)

    @property
    def digest(self) -> str:
        """A hash of the tensors by our names: equal whatever file they come from."""
        digest = hashlib.blake2b(digest_size=16)
        for name, tensor in sorted(self.tensors.items()):
            digest.update(f"{name} {tensor.dtype} {tensor.shape}".encode())
            digest.update(tensor.tobytes())
        return digest.hexdigest()


@dataclasses.dataclass(frozen=True)
class Report:
    """What happened to every tensor of a source and of a network, by our names.

    `reinitialised` are those that keep their initial values, with the reason.
    """

    source: str
    layout: str
    loaded: list[str]
    reinitialised: dict[str, str]
    left_out: list[str]
    notes: list[str]

    def __str__(self) -> str:
        lines = [
            f"init from {self.source} ({self.layout})",
            f"  loaded {len(self.loaded)} tensors: {self._list(self.loaded)}",
        ]
        for reason in dict.fromkeys(self.reinitialised.values()):
            names = [name for name, why in self.reinitialised.items() if why == reason]
            lines.append(f"  re-initialised {len(names)} ({reason}): {self._list(names)}")
        others = [name for name in self.left_out if not name.endswith(COUNTER)]
        if others:
            lines.append(f"  left out {len(others)}: {self._list(others)}")
        if counters := len(self.left_out) - len(others):
            lines.append(f"  left out {counters} counters of batches (*{COUNTER})")
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])

    def _list(self, names: list[str]) -> str:
        everything = [*self.loaded, *self.reinitialised, *self.left_out]
        return ", ".join(fold_gates(fold(names, everything), everything))


def load_weights(source: str, which: Which = "last") -> Weights:
    """Read a file, the folder of a run (its `which` checkpoint), or hub:owner/name.

    Raises:
        UserError: the source does not exist or cannot be used.
    """
    if "://" in source:
        raise UserError(f"{source} is an address; download it and give the path")
    if source.startswith(hub.PREFIX):
        path = hub.download(source)
    else:
        path = Path(expand(source))
    if os.path.isdir(path):
        return _load_run(path, which)
    if not os.path.exists(path) and path.suffix not in READABLE and hub.is_name(source):
        raise UserError(f"{source}: no such file or folder; from the hub: hub:{source}")
    tensors, metadata = read_tensors(path)
    told = _read_told(metadata, source)
    layout, tensors, left_out = rename_tensors(tensors, source)
    classes = None
    if "classes" in metadata:  # as `convert` writes them
        with contextlib.suppress(ValueError, RecursionError):
            classes = json.loads(metadata["classes"])
        classes = _check_classes(classes, tensors, f"{source}: its metadata")
    notes = (layout.note,) if layout.note else ()
    kind = "sofnet_jax" if told else layout.name
    return Weights(source, kind, tensors, left_out, classes, notes, told)


def initialise(
    variables: Tree,
    weights: Weights,
    classes: Sequence[str] | None = None,
    system: Any = None,
) -> tuple[Tree, Report]:
    """Put weights into the variables of a network with these classes, if they are known.

    The whole backbone must be present and fit; so must the gates, or what another system has
    besides, unless the weights have none. Classifiers keep their initial values if the classes
    differ. `system` is that of the network; by default SoF-Net or TSN.

    Raises:
        UserError: tensors are missing, of another shape, in half precision, not finite, or belong
            to another network; the message lists them.
    """
    naming = SYSTEMS["sofnet"].naming if system is None else system.naming
    shapes = torch_shapes(variables, naming)
    reinitialised = _find_reinitialised(shapes, weights, classes, naming)
    wanted = {name: shape for name, shape in shapes.items() if name not in reinitialised}
    _check(wanted, shapes, weights, system, naming)
    tensors = {name: weights.tensors[name] for name in wanted}
    unused = [name for name in weights.tensors if name not in wanted]
    notes = list(weights.notes)
    known = f"{naming.classifier}.weight" not in wanted or weights.classes is not None
    if classes is not None and not known:
        notes.append(
            f"the names of its {len(classes)} classes are unknown; taken to be these, in this order"
        )
    left_out = [*unused, *weights.left_out]
    report = Report(weights.source, weights.layout, list(wanted), reinitialised, left_out, notes)
    return from_state_dict(tensors, variables, naming), report


def create_shapes(architecture: Any, system: Any = None) -> Tree:
    """The variables of a network as shapes without values.

    `system` is by default the one whose architectures are of this type.
    """
    system = system or find_system(architecture)
    frames = jax.ShapeDtypeStruct((1, architecture.num_frames or 1, 32, 32, 3), np.uint8)
    module = system.module_type(architecture)
    return jax.eval_shape(module.init, jax.random.key(0), frames)


def _load_run(folder: Path, which: Which) -> Weights:
    if not (folder / "config.json").exists():
        runs = [str(path.parent) for path in sorted(folder.glob("*/config.json"))[:3]]
        hint = f"give one of the runs in it, such as {', '.join(runs)}" if runs else "train first"
        raise UserError(f"{folder} is not the folder of a run (it has no config.json); {hint}")
    if not (folder / "checkpoints").exists():
        raise UserError(f"{folder} holds no checkpoint; train first")
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        checkpoints = Checkpoints(
            folder / "checkpoints", metric=config["eval"]["metric"], read_only=True
        )
        with contextlib.closing(checkpoints):
            step = checkpoints.find(which)
            if step is None:
                raise UserError(f"{folder} holds no checkpoint; train first")
            identity = checkpoints.read_record(step)["identity"]
            fields = (name for name in identity if name.startswith("model."))
            told = {name.removeprefix("model."): identity[name] for name in fields}
            # Version 0.1.0 had SoF-Net and TSN, and no name for them.
            system = find_registered(told.get("system", "sofnet"), str(folder))
            tensors = to_state_dict(checkpoints.read_variables(step), system.naming)
        classes = _check_classes(identity["classes"], tensors, f"{folder}: its checkpoint's fields")
    except UserError:
        raise
    except Exception as error:  # Orbax and TensorStore raise anything for a missing file
        raise UserError(
            f"the {which} checkpoint in {folder} is damaged or not whole "
            f"({type(error).__name__}); take another copy of it"
        ) from error
    layout = f"sofnet_jax run, {which} checkpoint, of step {step}"
    system, shift = identity.get("model.system"), identity.get("model.shift")
    followed = [f"model.shift={shift}"] if shift else []
    if system == "sofnet_released":
        followed.append(f"model.system={system}")
    if identity.get("frameexit.online"):
        followed.append("frameexit.online")
    notes = (f"trained with {', '.join(followed)}; use the same",) if followed else ()
    return Weights(str(folder), layout, tensors, [], classes, notes, told)


def _read_told(metadata: Mapping[str, str], source: str) -> dict[str, Any]:
    """What `convert` wrote about the network. Raises UserError if it is damaged."""
    told: Any = {}
    if "network" in metadata:
        with contextlib.suppress(ValueError, RecursionError):
            told = json.loads(metadata["network"])
        if not isinstance(told, dict) or not told:
            raise UserError(f"{source}: its metadata describe no network; the file is damaged")
    return told


def _check_classes(classes: Any, tensors: Tensors, who: str) -> tuple[str, ...]:
    """The names. Raises UserError unless they are as many as the classifier has."""
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise UserError(f"{who} name no classes; the file is damaged")
    heads = {f"{system.naming.classifier}.weight" for system in SYSTEMS.values()}
    if any(tensors[name].shape[:1] != (len(classes),) for name in heads & tensors.keys()):
        raise UserError(
            f"{who} name {len(classes)} classes and its classifier has others; the file is damaged"
        )
    return tuple(classes)


def _find_reinitialised(
    shapes: Mapping[str, tuple[int, ...]],
    weights: Weights,
    classes: Sequence[str] | None,
    naming: Naming,
) -> dict[str, str]:
    """The tensors of a network that the weights may lack or have otherwise, with the reason."""
    classifier = _compare_classes(shapes, weights, classes, f"{naming.classifier}.weight")
    there = {name.partition(".")[0] for name in weights.tensors}
    absent = {
        part: f"no {part.name} there"
        for part in naming.parts
        if not any(re.match(part.sign or part.pattern, name) for name in weights.tensors)
    }

    def find_reason(name: str) -> str | None:
        parts = [part for part in naming.parts if re.match(part.pattern, name)]
        if classifier and any(part.classes for part in parts):
            return classifier
        if parts or name.startswith(BACKBONE):
            return next((absent[part] for part in parts if part in absent), None)
        first = name.partition(".")[0]
        return None if first in there else f"no {first} there"

    return {name: reason for name in shapes if (reason := find_reason(name))}


def _compare_classes(
    shapes: Mapping[str, tuple[int, ...]],
    weights: Weights,
    classes: Sequence[str] | None,
    name: str,
) -> str | None:
    """Why the classifiers must keep their initial values, if they must; `name` is one's kernel."""
    theirs = weights.tensors.get(name)
    if theirs is None:
        return "no classifier there"
    here, there = shapes[name][:1], theirs.shape[:1]
    if there and here != there:
        return f"{there[0]} classes there, {here[0]} here"
    if classes is not None and weights.classes is not None and tuple(classes) != weights.classes:
        return "other classes there"
    return None


def _check(
    wanted: Mapping[str, tuple[int, ...]],
    shapes: Mapping[str, tuple[int, ...]],
    weights: Weights,
    system: Any,
    naming: Naming,
) -> None:
    """Raise UserError, listing everything that is wrong, unless the weights fit."""
    tensors = weights.tensors
    there = {name: value for name, value in tensors.items() if name in wanted}
    wrong = {
        "missing": [name for name in wanted if name not in tensors],
        "of another network": [
            name for name in tensors if name.startswith(naming.whole) and name not in shapes
        ],
        "of another shape": [n for n, value in there.items() if value.shape != wanted[n]],
    }
    problems = [
        f"{len(names)} {what}: {', '.join(fold(names, [*wanted, *tensors]))}"
        for what, names in wrong.items()
        if names
    ]
    if misshaped := wrong["of another shape"]:
        name = misshaped[0]
        problems[-1] += f" ({name} is {tensors[name].shape} there, {wanted[name]} here)"
    if problems:
        structs = {n: jax.ShapeDtypeStruct(shape, np.float32) for n, shape in shapes.items()}
        theirs = describe(weights.architecture)
        ours = describe(infer_architecture(structs, "the configuration", system))
        message = f"{weights.source} ({theirs}) does not fit {ours}"
        backbone, other = (kind.partition(" ")[0] for kind in (theirs, ours))
        if backbone != other and backbone in BACKBONES:
            raise UserError(f"{message}; give --config.model.backbone={backbone}")
        raise UserError(f"{message}: {'; '.join(problems)}")
    _check_numbers(there, weights.source)


def _check_numbers(tensors: Mapping[str, np.ndarray], source: str) -> None:
    kinds = {name: str(value.dtype) for name, value in tensors.items()}
    if half := [name for name, kind in kinds.items() if kind in HALF]:
        raise UserError(
            f"{source} is in half precision: {', '.join(fold(half, tensors))} ({kinds[half[0]]}); "
            "take the float32 original, or widen it to float32: "
            f"python -m sofnet_jax.convert --widen {source} float32.safetensors"
        )
    if odd := [name for name, kind in kinds.items() if kind not in ("float32", "float64")]:
        names = ", ".join(fold(odd, tensors))
        raise UserError(f"{source} holds no floating-point numbers: {names} ({kinds[odd[0]]})")
    largest = np.finfo(np.float32).max  # beyond it, float64 would become infinity
    if bad := [name for name, value in tensors.items() if not (np.abs(value) <= largest).all()]:
        raise UserError(f"{source} holds NaN or infinity in {', '.join(fold(bad, tensors))}")
