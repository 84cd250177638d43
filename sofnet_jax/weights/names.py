"""Names of weights: ours, those of other people's files, and the network they belong to.

Our names are those of `systems/naming.py` and of each system's `naming`.
"""

import dataclasses
import itertools
import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from sofnet_jax.backbones.spec import BACKBONES
from sofnet_jax.host.errors import UserError, shorten
from sofnet_jax.systems.naming import Layout, Naming, Path, find_numbers, read_shape
from sofnet_jax.systems.registry import SYSTEMS
from sofnet_jax.systems.sofnet.weights import NAMING as SOFNET

Tree = Mapping[str, Any]

COUNTER = ".num_batches_tracked"  # of PyTorch's BatchNorm; nothing reads it
# Axes by number of dimensions: HWIO to OIHW, (in, out) to (out, in), and back.
_TO_TORCH = {0: (), 1: (0,), 2: (1, 0), 4: (3, 2, 0, 1)}
_FROM_TORCH = {0: (), 1: (0,), 2: (1, 0), 4: (2, 3, 1, 0)}


def to_state_dict(variables: Tree, naming: Naming = SOFNET) -> dict[str, np.ndarray]:
    """Convert the `params` and `batch_stats` of a network to a PyTorch state dict, bit for bit.

    `naming` is that of its system. SoF-Net's includes TSN's.
    """
    tensors = {}
    for path, leaf in _flatten(variables):
        names = naming.name(path, leaf.shape)
        values = np.asarray(leaf) if isinstance(names, list) else [np.asarray(leaf)]
        for name, value in zip(_as_list(names), values, strict=True):
            tensors[name] = value.transpose(_TO_TORCH[value.ndim])
    return tensors


def from_state_dict(
    tensors: Mapping[str, np.ndarray], variables: Tree, naming: Naming = SOFNET
) -> Tree:
    """Replace the leaves of `variables` that have tensors; the inverse of `to_state_dict`.

    Raises UserError if only some of the tensors that a leaf stacks are there.
    """
    filled = {}
    for path, leaf in _flatten(variables):
        names = naming.name(path, leaf.shape)
        every = _as_list(names)
        there = [tensors[name] for name in every if name in tensors]
        if there:
            if len(there) < len(every):
                missing = next(name for name in every if name not in tensors)
                raise UserError(f"the weights have no {missing}, but others of {len(every)}")
            values = [value.transpose(_FROM_TORCH[value.ndim]) for value in there]
            value = np.stack(values) if isinstance(names, list) else values[0]
            leaf = jnp.asarray(value, leaf.dtype)
        filled[path] = leaf
    return traverse_util.unflatten_dict(filled)


def torch_shapes(variables: Tree, naming: Naming = SOFNET) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor of `to_state_dict`; `variables` may be shapes without values."""
    shapes: dict[str, tuple[int, ...]] = {}
    for path, leaf in _flatten(variables):
        names = naming.name(path, leaf.shape)
        shape = leaf.shape[1:] if isinstance(names, list) else leaf.shape
        axes = _TO_TORCH[len(shape)]
        shapes |= dict.fromkeys(_as_list(names), tuple(shape[axis] for axis in axes))
    return shapes


def _as_list(names: str | list[str]) -> list[str]:
    return names if isinstance(names, list) else [names]


def _flatten(variables: Tree) -> list[tuple[Path, Any]]:
    collections = {name: variables[name] for name in ("params", "batch_stats")}
    return list(traverse_util.flatten_dict(collections).items())


def _rename_tsn(name: str, names: Collection[str]) -> str | None:
    """The classifier is `new_fc`, or the backbone's own if the network has no dropout.

    TSM wraps the first convolution of a block into a module that calls it `net`.
    """
    if name.startswith("new_fc."):
        return name.removeprefix("new_")
    if name.startswith("base_model.fc.") and "new_fc.weight" in names:
        return None
    if name.startswith("base_model."):
        return name.removeprefix("base_model.").replace(".net.", ".")
    return None


_TRANSFORMERS = {
    "embedder.embedder.convolution": "conv1",
    "embedder.embedder.normalization": "bn1",
    **{f"layer.{n}.convolution": f"conv{n + 1}" for n in range(3)},
    **{f"layer.{n}.normalization": f"bn{n + 1}" for n in range(3)},
    "shortcut.convolution": "downsample.0",
    "shortcut.normalization": "downsample.1",
    "classifier.1": "fc",
}


def _rename_transformers(name: str, names: Collection[str]) -> str | None:
    pattern = r"(?:resnet\.)?(?:encoder\.stages\.(\d+)\.layers\.(\d+)\.)?(.+)\.(\w+)"
    match = re.fullmatch(pattern, name)
    if not match or match[3] not in _TRANSFORMERS:
        return None
    block = f"layer{int(match[1]) + 1}.{match[2]}." if match[1] else ""
    return f"{block}{_TRANSFORMERS[match[3]]}.{match[4]}"


# Whatever no system calls its own.
LAYOUTS = (
    Layout(
        "TSM",
        r"base_model\..*\.net\.",
        _rename_tsn,
        "it was trained with a temporal shift, which this network does not have",
    ),
    Layout("TSN", r"base_model\.", _rename_tsn),
    # A bare backbone has no prefix.
    Layout("transformers", r"(resnet\.)?embedder\.embedder\.", _rename_transformers),
    Layout("sofnet_jax", r"policy\.|classifiers\.\d"),
    Layout("torchvision or timm", r"conv1\.weight$"),
)


def rename_tensors(
    tensors: Mapping[str, np.ndarray], source: str
) -> tuple[Layout, dict[str, np.ndarray], list[str]]:
    """Detect the layout of a file and turn its tensors into ours.

    Returns the layout, the tensors by our names, and the names in the file that were left out.
    Raises UserError if the layout is unknown, or two tensors map to one name.
    """
    plain = {name: name.removeprefix("module.") for name in tensors}  # of DataParallel
    layout = _find_layout(plain.values())
    for _ in range(2):  # Lightning and torch.compile save a model inside a model
        prefix, dot, _ = os.path.commonprefix(list(plain.values())).partition(".")
        if layout is None and dot:
            plain = {theirs: name.removeprefix(prefix + dot) for theirs, name in plain.items()}
            layout = _find_layout(plain.values())
    names = set(plain.values())
    if layout is None:
        some = ", ".join(list(tensors)[:3])
        raise UserError(
            f"{source} holds no ResNet with the names of torchvision, timm, transformers, TSN, "
            f"TSM or SoF-Net, but {some or 'nothing'}{', …' if len(tensors) > 3 else ''}"
        )
    renamed: dict[str, np.ndarray] = {}
    left_out = []
    for theirs, name in plain.items():
        ours = layout.rename(name, names)
        if ours is None or ours.endswith(COUNTER):
            left_out.append(theirs)
        elif ours in renamed:
            raise UserError(f"{source} holds two tensors that are {ours}; one is {theirs}")
        else:
            renamed[ours] = layout.change(ours, tensors[theirs])
    return layout, renamed, left_out


def _find_layout(names: Collection[str]) -> Layout | None:
    own = (layout for system in SYSTEMS.values() for layout in system.naming.layouts)
    every = (*own, *LAYOUTS)
    return next((x for x in every if any(re.match(x.mark, name) for name in names)), None)


def recognise_system(names: Collection[str]) -> Any:
    """The system whose mark is among the names of tensors; TSN if none is."""
    marked = (system for system in SYSTEMS.values() if system.naming.mark)
    return next(
        (s for s in marked if any(re.match(s.naming.mark, name) for name in names)), SYSTEMS["tsn"]
    )


def infer_architecture(
    tensors: Mapping[str, Any],
    source: str,
    system: Any = None,
    told: Mapping[str, Any] | None = None,
) -> Any:
    """The network that tensors with our names belong to; two classes if there is no classifier.

    Args:
        tensors: arrays, or anything with a shape.
        source: of the tensors, for messages.
        system: by default the one that the names tell.
        told: fields of the architecture by name, for those that the tensors do not tell.

    Raises:
        UserError: the tensors are not a whole ResNet's, or not of the system.
    """
    system = system or recognise_system(tensors)
    naming = system.naming
    try:
        channels, _, stem_kernel, _ = read_shape(tensors, "conv1.weight", 4)
        res2, res3, res4, res5 = (_count_blocks(tensors, f"layer{i}") for i in (1, 2, 3, 4))
        head = f"{naming.classifier}.weight"
        found = {
            "num_classes": read_shape(tensors, head, 2)[0] if head in tensors else 2,
            "block": "bottleneck" if "layer1.0.conv3.weight" in tensors else "basic",
            "depths": (res2, res3, res4, res5),
            "width": channels,
            "stem_kernel": stem_kernel,
            **naming.infer(tensors),
        }
        return system.architecture_type(**_select_fields(system, told or {}) | found)
    except (KeyError, ValueError, TypeError) as error:
        raise UserError(f"{source} holds no whole ResNet: {error} is missing or odd") from error


def _select_fields(system: Any, told: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of the system's architecture. Raises ValueError for a value of another type."""
    selected = {}
    for field in dataclasses.fields(system.architecture_type):
        if field.name in told:
            value = told[field.name]
            value = tuple(value) if isinstance(value, list) else value
            if field.default is not dataclasses.MISSING:
                like = (int, float) if isinstance(field.default, float) else type(field.default)
                if not isinstance(value, like):
                    raise ValueError(f"{field.name} of {shorten(repr(value), 80)}")
            selected[field.name] = value
    return selected


def describe(architecture: Any) -> str:
    """A network in a few words: `resnet50 with gates (LSTMs of 512 units) after res1 res5`."""
    a = architecture
    names = {spec: name for name, spec in reversed(BACKBONES.items())}
    kind = names.get(
        dataclasses.replace(a.backbone, shifts=False),
        f"a ResNet of {' + '.join(map(str, a.depths))} {a.block} blocks and width {a.width}",
    )
    return f"{kind} {a.additions}".rstrip()


def fold(names: Iterable[str], universe: Iterable[str]) -> list[str]:
    """Shorten a list of names: `layer1.*` stands for all names in the universe with that prefix.

    >>> fold(["a.x", "a.y", "b.x"], ["a.x", "a.y", "b.x", "b.y"])
    ['a.*', 'b.x']
    """
    names = list(names)
    have = Counter(itertools.chain.from_iterable(map(_prefixes, names)))
    there = Counter(itertools.chain.from_iterable(map(_prefixes, {*universe, *names})))
    short = (
        next((f"{p}.*" for p in _prefixes(name) if have[p] == there[p]), name) for name in names
    )
    return list(dict.fromkeys(short))


def fold_gates(short: Iterable[str], universe: Iterable[str]) -> list[str]:
    """Shorten the result of `fold`: `policy.*.inner.*` stands for every gate in the universe."""
    gates = len(find_numbers(universe, r"policy\.(\d)\."))
    plural = {name: re.sub(r"^policy\.\d\.", "policy.*.", name) for name in short}
    counts = Counter(plural.values())
    folded = (each if counts[each] == gates > 1 else name for name, each in plural.items())
    return list(dict.fromkeys(folded))


def _prefixes(name: str) -> list[str]:
    return [name[: dot.start()] for dot in re.finditer(r"\.", name)]


def _count_blocks(names: Iterable[str], layer: str) -> int:
    blocks = find_numbers(names, rf"{layer}\.(\d+)\.")
    if not blocks:
        raise KeyError(layer)
    return len(blocks)
