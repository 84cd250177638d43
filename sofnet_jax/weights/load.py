"""Weights to start from: from a file, a run or the hub into the variables of a network."""

import contextlib
import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from sofnet_jax.backbones.spec import BACKBONES
from sofnet_jax.host.errors import UserError
from sofnet_jax.run.checkpoint import Checkpoints, Which
from sofnet_jax.systems.sofnet.architecture import Architecture
from sofnet_jax.systems.sofnet.network import SoFNet
from sofnet_jax.weights import hub
from sofnet_jax.weights.files import READABLE, Tensors, read_tensors
from sofnet_jax.weights.names import (
    COUNTER,
    describe,
    fold,
    fold_gates,
    infer_architecture,
    rename_tensors,
)
from sofnet_jax.weights.torch import Tree, from_state_dict, to_state_dict, torch_shapes

RUN_LAYOUT = "sofnet_jax run"
_BACKBONE = ("conv1.", "bn1.", "layer")
HALF = ("float16", "bfloat16")


@dataclasses.dataclass(frozen=True)
class Weights:
    """Tensors by our names (`layout`), whatever they were called where they come from.

    Attributes:
        source: where that is, for messages.
        layout: whose names they had.
        tensors: in PyTorch's shapes.
        left_out: names there that are no weight of ours.
        classes: names of the classes, if known.
        notes: what else to know of them, a sentence each.
    """

    source: str
    layout: str
    tensors: Tensors
    left_out: list[str]
    classes: tuple[str, ...] | None
    notes: tuple[str, ...] = ()

    @property
    def architecture(self) -> Architecture:
        """The network that they belong to."""
        return infer_architecture(self.tensors, self.source)

    @property
    def digest(self) -> str:
        """What tells them from others, whatever they are called where they come from."""
        digest = hashlib.blake2b(digest_size=16)
        for name, tensor in sorted(self.tensors.items()):
            digest.update(f"{name} {tensor.dtype} {tensor.shape}".encode())
            digest.update(tensor.tobytes())
        return digest.hexdigest()


@dataclasses.dataclass(frozen=True)
class Report:
    """What became of every tensor of a source and of a network, by our names.

    Attributes:
        source, layout: of the weights.
        loaded: tensors taken over.
        reinitialised: tensors of the network that start anew, with the reason.
        left_out: tensors of the source that are not used.
        notes: what else to know, a sentence each.
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
        counters = [name for name in self.left_out if name.endswith(COUNTER)]
        others = [name for name in self.left_out if name not in counters]
        if others:
            lines.append(f"  left out {len(others)}: {self._list(others)}")
        if counters:
            lines.append(f"  left out {len(counters)} counters of batches (*{COUNTER})")
        lines += [f"  note: {note}" for note in self.notes]
        return "\n".join(lines)

    def _list(self, names: list[str]) -> str:
        everything = [*self.loaded, *self.reinitialised, *self.left_out]
        return ", ".join(fold_gates(fold(names, everything), everything))


def load_weights(source: str, which: Which = "last") -> Weights:
    """Reads a file, the folder of a run (its `which` checkpoint), or hub:owner/name.

    Raises:
        UserError: nothing there, or nothing that can be used.
    """
    if "://" in source:
        raise UserError(f"{source} is an address; download it and give the path")
    if source.startswith(hub.PREFIX):
        path = hub.download(source)
    else:
        path = Path(os.path.expanduser(source))
    if os.path.isdir(path):
        return _load_run(path, which)
    if not os.path.exists(path) and path.suffix not in READABLE and hub.is_name(source):
        raise UserError(f"no file or folder {source}; of the hub it would be hub:{source}")
    tensors, metadata = read_tensors(path)
    layout, tensors, left_out = rename_tensors(tensors, source)
    classes = _read_classes(metadata, tensors, source)
    notes = (layout.note,) if layout.note else ()
    return Weights(source, layout.name, tensors, left_out, classes, notes)


def initialise(
    variables: Tree, weights: Weights, classes: Sequence[str] | None = None
) -> tuple[Tree, Report]:
    """Puts weights into a network.

    All of the backbone must be there and fit; so must the gates, unless there is none. The
    classifiers, the final and the inner ones, start anew if their classes are others.

    Args:
        variables: of `SoFNet`, with what is to stay where there is no weight.
        weights: to take over.
        classes: names of the network's classes, if known.

    Raises:
        UserError: tensors that are missing, of another shape, of half precision, not finite, or of
            a network of another kind; it lists them.
    """
    shapes = torch_shapes(variables)
    reinitialised = _find_reinitialised(shapes, weights, classes)
    wanted = {name: shape for name, shape in shapes.items() if name not in reinitialised}
    _check(wanted, shapes, weights)
    tensors = {name: weights.tensors[name] for name in wanted}
    unused = [name for name in weights.tensors if name not in wanted]
    report = Report(
        weights.source,
        weights.layout,
        list(wanted),
        reinitialised,
        [*unused, *weights.left_out],
        [*weights.notes, *_describe_classes(wanted, weights, classes)],
    )
    return from_state_dict(tensors, variables), report


def create_shapes(architecture: Architecture) -> Tree:
    """Variables of a network, as shapes without values."""
    frames = jax.ShapeDtypeStruct((1, 1, 32, 32, 3), np.uint8)
    return jax.eval_shape(SoFNet(architecture).init, jax.random.key(0), frames)


def _load_run(folder: Path, which: Which) -> Weights:
    for name in ("config.json", "checkpoints"):
        if not (folder / name).exists():
            raise UserError(f"{folder} is the folder of no run: it has no {name}")
    try:
        step, identity, variables = _read_checkpoint(folder, which)
        tensors = to_state_dict(variables)
        classes = _check_classes(identity["classes"], tensors, f"{folder}: its checkpoint's fields")
    except UserError:
        raise
    except Exception as error:  # Orbax and TensorStore raise anything at what is missing
        raise UserError(
            f"the {which} checkpoint in {folder} is damaged or not whole ({type(error).__name__}); "
            "take another copy of it"
        ) from error
    layout = f"{RUN_LAYOUT}, {which} checkpoint, of step {step}"
    followed = [name for name, value in identity.items() if name.startswith("released.") and value]
    if shift := identity.get("model.shift"):  # absent from checkpoints of before there was one
        followed.append(f"model.shift={shift}")
    notes = (f"trained with {', '.join(followed)}; use the same",) if followed else ()
    return Weights(str(folder), layout, tensors, [], classes, notes)


def _read_checkpoint(folder: Path, which: Which) -> tuple[int, Mapping[str, Any], Tree]:
    """The step of a checkpoint, its identity, and its variables."""
    metric = json.loads((folder / "config.json").read_text(encoding="utf-8"))["eval"]["metric"]
    checkpoints = Checkpoints(folder / "checkpoints", metric=metric, read_only=True)
    with contextlib.closing(checkpoints):
        step = checkpoints.find(which)
        if step is None:
            raise UserError(f"{folder} holds no checkpoint; train first")
        return step, checkpoints.read_record(step)["identity"], checkpoints.read_variables(step)


def _read_classes(
    metadata: Mapping[str, str], tensors: Tensors, source: str
) -> tuple[str, ...] | None:
    """The names of the classes that `convert` wrote into a .safetensors."""
    if "classes" not in metadata:
        return None
    try:
        classes = json.loads(metadata["classes"])
    except (ValueError, RecursionError):
        classes = None
    return _check_classes(classes, tensors, f"{source}: its metadata")


def _check_classes(classes: Any, tensors: Tensors, who: str) -> tuple[str, ...]:
    """The names, if they are some and as many as the classifier has. Raises UserError."""
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise UserError(f"{who} name no classes; the file is damaged")
    if "fc.weight" in tensors and tensors["fc.weight"].shape[:1] != (len(classes),):
        raise UserError(
            f"{who} name {len(classes)} classes and its classifier has others; the file is damaged"
        )
    return tuple(classes)


def _find_reinitialised(
    shapes: Mapping[str, tuple[int, ...]], weights: Weights, classes: Sequence[str] | None
) -> dict[str, str]:
    """The tensors of a network that weights may lack or have otherwise, with the reason."""
    reasons = {
        "classifier": _compare_classes(shapes, weights, classes),
        "gates": None if _has(weights, ".gate.") else "no gates there",
        "inner": None if _has(weights, ".inner.") else "no inner classifiers there",
    }
    reasons["inner"] = reasons["classifier"] or reasons["gates"] or reasons["inner"]
    return {name: reason for name in shapes if (reason := reasons.get(_get_part(name)))}


def _compare_classes(
    shapes: Mapping[str, tuple[int, ...]], weights: Weights, classes: Sequence[str] | None
) -> str | None:
    """Why the classifiers must start anew, if they must."""
    theirs = weights.tensors.get("fc.weight")
    if theirs is None:
        return "no classifier there"
    here, there = shapes["fc.weight"][:1], theirs.shape[:1]
    if there and here != there:
        return f"{there[0]} classes there, {here[0]} here"
    if classes is not None and weights.classes is not None and tuple(classes) != weights.classes:
        return "other classes there"
    return None


def _describe_classes(
    wanted: Mapping[str, Any], weights: Weights, classes: Sequence[str] | None
) -> list[str]:
    """That a classifier was taken over though nobody knows what its classes are called."""
    if "fc.weight" not in wanted or classes is None or weights.classes is not None:
        return []
    return [
        f"the names of its {len(classes)} classes are unknown; taken to be these, in this order"
    ]


def _has(weights: Weights, part: str) -> bool:
    return any(part in name for name in weights.tensors)


def _get_part(name: str) -> str:
    if name.startswith("policy."):
        return "inner" if ".inner." in name else "gates"
    return "classifier" if name.startswith("fc.") else "backbone"


def _check(
    wanted: Mapping[str, tuple[int, ...]], shapes: Mapping[str, tuple[int, ...]], weights: Weights
) -> None:
    """Refuses weights that do not fit.

    Raises:
        UserError: with all that is wrong.
    """
    tensors = weights.tensors
    there = {name: value for name, value in tensors.items() if name in wanted}
    wrong = {
        "missing": [name for name in wanted if name not in tensors],
        "of another network": [
            name for name in tensors if name.startswith(_BACKBONE) and name not in shapes
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
        there_kind = describe(weights.architecture)
        here_kind = describe(infer_architecture(_to_structs(shapes), "the configuration"))
        raise UserError(
            f"{weights.source} ({there_kind}) does not fit {here_kind}: {'; '.join(problems)}"
            + _advise(there_kind, here_kind)
        )
    _check_numbers(there, weights.source)


def _advise(there_kind: str, here_kind: str) -> str:
    """The field that would help, if it is the backbone that differs."""
    there, here = (kind.partition(" ")[0] for kind in (there_kind, here_kind))
    if there == here or there not in BACKBONES:
        return ""
    return f". Does --config.model.backbone={there} help?"


def _to_structs(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    return {name: jax.ShapeDtypeStruct(shape, np.float32) for name, shape in shapes.items()}


def _check_numbers(tensors: Mapping[str, np.ndarray], source: str) -> None:
    kinds = {name: str(value.dtype) for name, value in tensors.items()}
    if half := [name for name, kind in kinds.items() if kind in HALF]:
        raise UserError(
            f"{source} is of half precision: {', '.join(fold(half, tensors))} ({kinds[half[0]]}); "
            "take the float32 original, or widen it to float32: "
            f"python -m sofnet_jax.convert --widen {source} float32.safetensors"
        )
    if odd := [name for name, kind in kinds.items() if kind not in ("float32", "float64")]:
        names = ", ".join(fold(odd, tensors))
        raise UserError(f"{source} holds no floating-point numbers: {names} ({kinds[odd[0]]})")
    largest = np.finfo(np.float32).max  # beyond it, float64 would become infinity
    if bad := [name for name, value in tensors.items() if not (np.abs(value) <= largest).all()]:
        raise UserError(f"{source} holds NaN or infinity in {', '.join(fold(bad, tensors))}")
