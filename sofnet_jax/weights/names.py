"""Names of the same weights in other people's files, and what network a set of names belongs to.

The names used here are torchvision's for the backbone and the classifier, `conv1.weight` …
`layer4.2.bn3.running_var`, `fc.weight`, and `policy.{n}.…` for the gate after stage n + 1.
"""

import dataclasses
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import numpy as np

from sofnet_jax.backbones.spec import BACKBONES
from sofnet_jax.host.errors import UserError
from sofnet_jax.systems.sofnet.architecture import Architecture

COUNTER = ".num_batches_tracked"  # of PyTorch's BatchNorm; nothing reads it

# The authors' released SoF-Net: module dictionaries with a key for every stage.
_STAGES = {"base": 0, "conv_2": 1, "conv_3": 2, "conv_4": 3, "conv_5": 4}
_RELEASED_STEM = {"0": "conv1", "1": "bn1"}  # 2 and 3, ReLU and max-pool, have no weights
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
        rename: our name of one of theirs among all, or None for what is no weight of ours.
        note: what else to know.
    """

    name: str
    is_of: Callable[[Collection[str]], bool]
    rename: Callable[[str, Collection[str]], str | None]
    note: str = ""


def _starts(prefix: str) -> Callable[[Collection[str]], bool]:
    return lambda names: any(name.startswith(prefix) for name in names)


def _keep(name: str, names: Collection[str]) -> str:
    return name


def _rename_released(name: str, names: Collection[str]) -> str | None:
    module, _, rest = name.partition(".")
    stage, _, rest = rest.partition(".")
    if module == "new_fc":
        return f"fc.{stage}"
    if stage not in _STAGES:
        return None  # base_model: the same tensors a second time, and ImageNet's classifier
    if module == "block_cnn_dict" and stage == "base":
        number, _, leaf = rest.partition(".")
        return f"{_RELEASED_STEM[number]}.{leaf}" if number in _RELEASED_STEM else None
    if module == "block_cnn_dict":
        return f"layer{_STAGES[stage]}.{rest}"
    if module in _RELEASED_MODULES:
        leaf = rest.removeprefix("2.") if module == "block_fc_dict" else rest
        return f"policy.{_STAGES[stage]}.{_RELEASED_MODULES[module]}.{leaf}"
    return None


def _rename_tsn(name: str, names: Collection[str]) -> str | None:
    """The classifier is new_fc, or without dropout the backbone's own.

    TSM wraps the first convolution of a block into a module whose `net` it is.
    """
    if name.startswith("new_fc."):
        return name.removeprefix("new_")
    if name.startswith("base_model.fc.") and "new_fc.weight" in names:
        return None
    if name.startswith("base_model."):
        return name.removeprefix("base_model.").replace(".net.", ".")
    return None


def _is_transformers(names: Collection[str]) -> bool:
    """With the classifier, or the backbone alone, which has no prefix."""
    return any(name.startswith(("resnet.embedder.", "embedder.embedder.")) for name in names)


def _rename_transformers(name: str, names: Collection[str]) -> str | None:
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
    Layout(
        "SoF-Net as released by its authors",
        _starts("block_cnn_dict."),
        _rename_released,
        "its gates were trained as the released code does; use the variant :release",
    ),
    Layout(
        "TSM",
        lambda names: any(n.startswith("base_model.") and ".net." in n for n in names),
        _rename_tsn,
        "it was trained with a temporal shift, which this network has not",
    ),
    Layout("TSN", _starts("base_model."), _rename_tsn),
    Layout("transformers", _is_transformers, _rename_transformers),
    Layout("sofnet_jax", _starts("policy."), _keep),
    Layout("torchvision or timm", lambda names: "conv1.weight" in names, _keep),
)


def rename_tensors(
    tensors: Mapping[str, np.ndarray], source: str
) -> tuple[Layout, dict[str, np.ndarray], list[str]]:
    """Recognises a layout and takes its names to ours.

    Args:
        tensors: of a file.
        source: of them, for messages.

    Returns:
        The layout, the tensors by our names, and those names of the file that were left out.

    Raises:
        UserError: names of no known layout, or two tensors of one name.
    """
    plain = {name: name.removeprefix("module.") for name in tensors}  # of DataParallel
    layout = _recognise(plain.values())
    for _ in range(2):  # a model inside a model, as Lightning and torch.compile save it
        prefix = _find_common_prefix(plain.values())
        if layout is None and prefix:
            plain = {theirs: name.removeprefix(prefix) for theirs, name in plain.items()}
            layout = _recognise(plain.values())
    names = set(plain.values())
    if layout is None:
        some = ", ".join(list(tensors)[:3])
        raise UserError(
            f"{source} holds no ResNet of torchvision's, timm's, transformers', TSN's, TSM's or "
            f"SoF-Net's names, but {some or 'nothing'}{', …' if len(tensors) > 3 else ''}"
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
            renamed[ours] = tensors[theirs]
    return layout, renamed, left_out


def _recognise(names: Collection[str]) -> Layout | None:
    return next((layout for layout in LAYOUTS if layout.is_of(names)), None)


def _find_common_prefix(names: Collection[str]) -> str:
    """The first module if all are inside it: `model.`; otherwise empty."""
    first = {name.partition(".")[0] for name in names if "." in name}
    return f"{first.pop()}." if len(first) == 1 and all("." in name for name in names) else ""


def infer_architecture(tensors: Mapping[str, Any], source: str) -> Architecture:
    """The network that tensors with our names belong to; two classes if there is no classifier.

    Args:
        tensors: arrays, or anything else with a shape.
        source: of them, for messages.

    Raises:
        UserError: they belong to none.
    """
    try:
        channels, _, stem_kernel, _ = _get_shape(tensors, "conv1.weight", 4)
        res2, res3, res4, res5 = (_count_blocks(tensors, f"layer{i}") for i in (1, 2, 3, 4))
        gates = sorted(int(n) + 1 for n in _find(tensors, r"policy\.([0-4])\."))
        gate = f"policy.{gates[0] - 1}.gate.weight" if gates else ""
        return Architecture(
            num_classes=_get_shape(tensors, "fc.weight", 2)[0] if "fc.weight" in tensors else 2,
            block="bottleneck" if "layer1.0.conv3.weight" in tensors else "basic",
            depths=(res2, res3, res4, res5),
            width=channels,
            stem_kernel=stem_kernel,
            gates=tuple(gates),
            hidden=_get_shape(tensors, gate, 2)[1] if gate in tensors else 512,
            temporal=not gates or any(".lstm." in name for name in tensors),
        )
    except (KeyError, ValueError) as error:
        raise UserError(f"{source} holds no whole ResNet: {error} is missing or odd") from error


def describe(architecture: Architecture) -> str:
    """A network in a few words: `resnet50 with gates (LSTMs of 512 units) after res1 res5`."""
    a = architecture
    kind = next(
        (
            name
            for name, (block, depths, width, kernel) in BACKBONES.items()
            if (block, depths, width, kernel) == (a.block, a.depths, a.width, a.stem_kernel)
        ),
        f"a ResNet of {' + '.join(map(str, a.depths))} {a.block} blocks and width {a.width}",
    )
    if not a.gates:
        return kind
    gates = f"LSTMs of {a.hidden} units" if a.temporal else f"layers of {a.hidden} units"
    return f"{kind} with gates ({gates}) after {' '.join(a.gate_names)}"


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


def fold_gates(short: Iterable[str], universe: Iterable[str]) -> list[str]:
    """`policy.*.inner.*` where it stands for every gate of the universe.

    Args:
        short: of `fold`.
        universe: as there.
    """
    short = list(short)
    gates = sorted(_find(universe, r"policy\.(\d)\."))
    folded = []
    for name in short:
        _, _, part = name.removeprefix("policy.").partition(".")
        all_of_them = [f"policy.{n}.{part}" for n in gates]
        whole = len(gates) > 1 and name in all_of_them and set(all_of_them) <= set(short)
        folded.append(f"policy.*.{part}" if whole else name)
    return list(dict.fromkeys(folded))


def _prefixes(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:i]) for i in range(1, len(parts))]


def _count_prefixes(names: Iterable[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for name in names:
        for prefix in _prefixes(name):
            counts[prefix] = counts.get(prefix, 0) + 1
    return counts


def _get_shape(tensors: Mapping[str, Any], name: str, dimensions: int) -> tuple[int, ...]:
    """Raises ValueError if it is empty or of another number of dimensions."""
    shape = tuple(tensors[name].shape)
    if len(shape) != dimensions or 0 in shape:
        raise ValueError(f"{name} of shape {shape}")
    return shape


def _find(names: Iterable[str], pattern: str) -> set[str]:
    return {match[1] for name in names if (match := re.match(pattern, name))}


def _count_blocks(names: Iterable[str], layer: str) -> int:
    """Raises KeyError if there are none."""
    blocks = _find(names, rf"{layer}\.(\d+)\.")
    if not blocks:
        raise KeyError(layer)
    return len(blocks)
