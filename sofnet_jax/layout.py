"""Names of the same weights in other people's files, and what network a set of names belongs to.

The names used here are torchvision's for the backbone and the classifier, `conv1.weight` …
`layer4.2.bn3.running_var`, `fc.weight`, and `policy.{n}.…` for the gate after stage n + 1.
"""

import dataclasses
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import numpy as np

from sofnet_jax.architecture import BACKBONES, Architecture
from sofnet_jax.errors import UserError

COUNTER = ".num_batches_tracked"  # of PyTorch's BatchNorm; nothing reads it

# The authors' released SoF-Net: module dictionaries with a key for every stage.
_STAGES = {"base": 0, "conv_2": 1, "conv_3": 2, "conv_4": 3, "conv_5": 4}
_RELEASED_MODULES = {
    "block_fc_dict": "embed",  # average pool, squeeze, linear: the linear layer is number 2
    "block_rnn_dict": "lstm",
    "action_fc_dict": "gate",
    "block_pred_rnn_fc_dict": "inner",
}
_TRANSFORMERS_MODULES = {"convolution": "conv", "normalization": "bn"}


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a kind of file names things.

    Attributes:
        name: for people.
        is_of: whether these names are of this kind.
        rename: our name of one of theirs, or None for what is no weight of ours.
    """

    name: str
    is_of: Callable[[Collection[str]], bool]
    rename: Callable[[str], str | None]


def _starts(prefix: str) -> Callable[[Collection[str]], bool]:
    return lambda names: any(name.startswith(prefix) for name in names)


def _rename_released(name: str) -> str | None:
    module, _, rest = name.partition(".")
    stage, _, rest = rest.partition(".")
    if module == "new_fc":
        return f"fc.{stage}"
    if stage not in _STAGES:
        return None  # base_model: the same tensors a second time, and ImageNet's classifier
    if module == "block_cnn_dict" and stage == "base":  # conv1, bn1, ReLU, max-pool
        return {"0": "conv1.", "1": "bn1."}.get(rest[:1], "?") + rest[2:]
    if module == "block_cnn_dict":
        return f"layer{_STAGES[stage]}.{rest}"
    if module in _RELEASED_MODULES:
        leaf = rest.removeprefix("2.") if module == "block_fc_dict" else rest
        return f"policy.{_STAGES[stage]}.{_RELEASED_MODULES[module]}.{leaf}"
    return None


def _rename_tsn(name: str) -> str | None:
    """TSM wraps the first convolution of a block into a module whose `net` it is."""
    if name.startswith("new_fc."):
        return name.removeprefix("new_")
    if name.startswith("base_model."):
        return name.removeprefix("base_model.").replace(".net.", ".")
    return None


def _rename_transformers(name: str) -> str | None:
    name = name.removeprefix("resnet.")
    if match := re.fullmatch(r"embedder\.embedder\.(convolution|normalization)\.(\w+)", name):
        return f"{_TRANSFORMERS_MODULES[match[1]]}1.{match[2]}"
    if name.startswith("classifier.1."):
        return name.replace("classifier.1", "fc")
    match = re.fullmatch(
        r"encoder\.stages\.(\d+)\.layers\.(\d+)\.(shortcut|layer\.(\d+))"
        r"\.(convolution|normalization)\.(\w+)",
        name,
    )
    if not match:
        return None
    stage, block, part, number, kind, leaf = match.groups()
    if part == "shortcut":
        module = f"downsample.{int(kind == 'normalization')}"
    else:
        module = f"{_TRANSFORMERS_MODULES[kind]}{int(number) + 1}"
    return f"layer{int(stage) + 1}.{block}.{module}.{leaf}"


LAYOUTS = (
    Layout("SoF-Net as released by its authors", _starts("block_cnn_dict."), _rename_released),
    Layout(
        "TSM, whose temporal shift this network has not",
        lambda names: any(n.startswith("base_model.") and ".net." in n for n in names),
        _rename_tsn,
    ),
    Layout("TSN", _starts("base_model."), _rename_tsn),
    Layout("transformers", _starts("resnet.embedder."), _rename_transformers),
    Layout("sofnet_jax", _starts("policy."), lambda name: name),
    Layout("torchvision or timm", lambda names: "conv1.weight" in names, lambda name: name),
)


def rename_tensors(
    tensors: Mapping[str, np.ndarray], source: str
) -> tuple[str, dict[str, np.ndarray], list[str]]:
    """Recognises a layout and takes its names to ours.

    Args:
        tensors: of a file.
        source: of them, for messages.

    Returns:
        The layout, the tensors by our names, and those names of the file that were left out.

    Raises:
        UserError: names of no known layout, or two tensors of one name.
    """
    plain = {name.removeprefix("module."): name for name in tensors}  # of DataParallel
    layout = next((layout for layout in LAYOUTS if layout.is_of(plain)), None)
    if layout is None:
        some = ", ".join(list(tensors)[:3])
        raise UserError(
            f"{source} holds no ResNet of torchvision's, timm's, transformers', TSN's, TSM's or "
            f"SoF-Net's names, but {some or 'nothing'}{', …' if len(tensors) > 3 else ''}"
        )
    renamed: dict[str, np.ndarray] = {}
    left_out = []
    for name, theirs in plain.items():
        ours = layout.rename(name)
        if ours is None or ours.endswith(COUNTER):
            left_out.append(theirs)
        elif ours in renamed:
            raise UserError(f"{source} holds two tensors that are {ours}; one is {theirs}")
        else:
            renamed[ours] = tensors[theirs]
    return layout.name, renamed, left_out


def infer_architecture(tensors: Mapping[str, Any], source: str) -> Architecture:
    """The network that tensors with our names belong to; two classes if there is no classifier.

    Args:
        tensors: arrays, or anything else with a shape.
        source: of them, for messages.

    Raises:
        UserError: they belong to none.
    """
    try:
        channels, _, stem_kernel, _ = tensors["conv1.weight"].shape
        res2, res3, res4, res5 = (_count(tensors, rf"layer{i}\.(\d+)\.") for i in (1, 2, 3, 4))
        gates = sorted({int(n) + 1 for n in _find(tensors, r"policy\.(\d+)\.")})
        gate = tensors.get(f"policy.{gates[0] - 1}.gate.weight") if gates else None
        classifier = tensors.get("fc.weight")
        return Architecture(
            num_classes=2 if classifier is None else classifier.shape[0],
            block="bottleneck" if "layer1.0.conv3.weight" in tensors else "basic",
            depths=(res2, res3, res4, res5),
            width=channels,
            stem_kernel=stem_kernel,
            gates=tuple(gate for gate in gates if 1 <= gate <= 5),
            hidden=512 if gate is None else gate.shape[1],
            temporal=not gates or any(".lstm." in name for name in tensors),
        )
    except (KeyError, ValueError, IndexError) as error:
        raise UserError(f"{source} holds no whole ResNet: {error} is missing or odd") from error


def describe(architecture: Architecture) -> str:
    """A network in a few words: `resnet50 with gates after res1 res2 res3 res4 res5`."""
    a = architecture
    kind = next(
        (
            name
            for name, (block, depths, width, kernel) in BACKBONES.items()
            if (block, depths, width, kernel) == (a.block, a.depths, a.width, a.stem_kernel)
        ),
        f"a ResNet of {' + '.join(map(str, a.depths))} {a.block} blocks and width {a.width}",
    )
    return kind + (f" with gates after {' '.join(a.gate_names)}" if a.gates else "")


def fold(names: Iterable[str], universe: Iterable[str]) -> list[str]:
    """Names in short: `layer1.*` where they are all of the universe's that begin so.

    >>> fold(["a.x", "a.y", "b.x"], ["a.x", "a.y", "b.x", "b.y"])
    ['a.*', 'b.x']
    """
    names = list(names)
    have, there = _count_prefixes(names), _count_prefixes({*universe, *names})
    short = (
        next((f"{p}.*" for p in _prefixes(name) if have[p] == there[p]), name) for name in names
    )
    return list(dict.fromkeys(short))


def _prefixes(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:i]) for i in range(1, len(parts))]


def _count_prefixes(names: Iterable[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for name in names:
        for prefix in _prefixes(name):
            counts[prefix] = counts.get(prefix, 0) + 1
    return counts


def _find(names: Iterable[str], pattern: str) -> set[str]:
    return {match[1] for name in names if (match := re.match(pattern, name))}


def _count(names: Iterable[str], pattern: str) -> int:
    """How many different numbers the pattern finds."""
    return len(_find(names, pattern))
