"""How a system's weights are called in PyTorch, and what their names tell about the network.

The backbone and the classifier `head` have torchvision's names in every system: `conv1.weight` …
`layer4.2.bn3.running_var`, `fc.weight`.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

Path = tuple[str, ...]

LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}
BACKBONE = ("conv1.", "bn1.", "layer")
_DOWNSAMPLE = {"downsample_conv": "downsample.0", "downsample_bn": "downsample.1"}


class Part(NamedTuple):
    """Tensors that start anew where weights lack them, and which have a rule of their own.

    Attributes:
        name: in reports.
        pattern: what their names match.
        sign: what some name matches if weights have them; by default `pattern`.
        classes: whether they depend on the classes, so that they start anew for other classes.
    """

    name: str
    pattern: str
    sign: str = ""
    classes: bool = False


@dataclass(frozen=True)
class Layout:
    """How one kind of file names its tensors, and a warning that comes with it.

    Attributes:
        name: in reports.
        mark: what some name in such a file matches.
        rename: our name of a tensor, from its name and all of them; None if it is not used.
        note: the warning.
        change: our tensor, from our name and the file's tensor.
    """

    name: str
    mark: str
    rename: Callable[[str, Collection[str]], str | None] = lambda name, names: name
    note: str = ""
    change: Callable[[str, Any], Any] = lambda name, tensor: tensor


CLASSIFIER = Part("classifier", r"fc\.", classes=True)


def name_plainly(path: Path, shape: tuple[int, ...]) -> str:
    """The path from below the collection, with PyTorch's name of the leaf.

    >>> name_plainly(("params", "gate", "dense", "kernel"), (8, 2))
    'gate.dense.weight'
    """
    *modules, leaf = path[1:]
    return ".".join([*modules, LEAVES.get(leaf, leaf)])


@dataclass(frozen=True)
class Naming:
    """The names of a system's tensors.

    Attributes:
        name_own: the name of a leaf's tensor, for what is neither `backbone` nor `head`, from its
            path and shape. A list of names stands for a leaf that stacks as many tensors.
        parts: tensors with rules of their own. Others below one first name start anew together.
        whole: what names begin with of which weights and network must have the same, if any.
        classifier: prefix of the names of a classifier.
        mark: what a name matches in weights of this system only; "" if files need not tell it.
        infer: fields of the architecture that the tensors tell, besides those of the backbone.
            Raises KeyError or ValueError if they are odd.
        layouts: of files that only this system's weights come in.
    """

    name_own: Callable[[Path, tuple[int, ...]], str | list[str]] = name_plainly
    parts: tuple[Part, ...] = (CLASSIFIER,)
    whole: tuple[str, ...] = BACKBONE
    classifier: str = "fc"
    mark: str = ""
    infer: Callable[[Mapping[str, Any]], dict[str, Any]] = lambda tensors: {}
    layouts: tuple[Layout, ...] = ()

    def name(self, path: Path, shape: tuple[int, ...]) -> str | list[str]:
        """PyTorch's name of a variable, given its path from the collection down.

        >>> Naming().name(("batch_stats", "backbone", "res2", "block0", "downsample_bn", "var"), ())
        'layer1.0.downsample.1.running_var'
        """
        _, first, *inside = path
        if first == "backbone":
            *block, module, leaf = inside
            prefix = "" if block == ["res1"] else f"layer{int(block[0][3:]) - 1}.{block[1][5:]}."
            return f"{prefix}{_DOWNSAMPLE.get(module, module)}.{LEAVES[leaf]}"
        if first == "head":
            return f"fc.{LEAVES[inside[0]]}"
        return self.name_own(path, shape)


def read_shape(tensors: Mapping[str, Any], name: str, dimensions: int) -> tuple[int, ...]:
    """The shape of a tensor. Raises KeyError or ValueError if it has none of these dimensions."""
    shape = tuple(tensors[name].shape)
    if len(shape) != dimensions or 0 in shape:
        raise ValueError(f"{name} of shape {shape}")
    return shape


def find_numbers(names: Iterable[str], pattern: str) -> list[int]:
    """The numbers that a pattern's group finds in some names, ascending."""
    return sorted({int(match[1]) for name in names if (match := re.match(pattern, name))})
