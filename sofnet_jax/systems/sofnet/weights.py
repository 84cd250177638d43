"""SoF-Net's weights in PyTorch: `policy.{n}.…` for the gate after stage n + 1.

Gates use the names of `torch.nn.Linear` and `torch.nn.LSTMCell`: `embed`, `lstm` (or `fc`), `gate`
([stop, forward]) and `inner`.
"""

from collections.abc import Mapping
from typing import Any

from sofnet_jax.systems.naming import (
    CLASSIFIER,
    LEAVES,
    Naming,
    Part,
    Path,
    find_numbers,
    read_shape,
)

_GATE_LEAVES = {
    "w_ih": "lstm.weight_ih",
    "w_hh": "lstm.weight_hh",
    "b_ih": "lstm.bias_ih",
    "b_hh": "lstm.bias_hh",
    "w_q": "gate.weight",
    "b_q": "gate.bias",
}


def _name(path: Path, shape: tuple[int, ...]) -> str:
    _, module, *inside = path
    kind, stage = module.split("_res")
    prefix = f"policy.{int(stage) - 1}"
    if kind == "inner":
        return f"{prefix}.inner.{LEAVES[inside[-1]]}"
    if len(inside) == 1:
        return f"{prefix}.{_GATE_LEAVES[inside[0]]}"
    return f"{prefix}.{inside[0]}.{LEAVES[inside[1]]}"  # embed, or fc without an LSTM


def _infer(tensors: Mapping[str, Any]) -> dict[str, Any]:
    stages = find_numbers(tensors, r"policy\.([0-4])\.")
    if not stages:
        raise KeyError("policy")
    gate = f"policy.{stages[0]}.gate.weight"
    return {
        "gates": tuple(stage + 1 for stage in stages),
        "hidden": read_shape(tensors, gate, 2)[1] if gate in tensors else 512,
        "temporal": any(".lstm." in name for name in tensors),
    }


NAMING = Naming(
    _name,
    parts=(
        CLASSIFIER,
        Part("gates", r"policy\.", sign=r".*\.gate\."),
        Part("inner classifiers", r"policy\.\d\.inner\.", classes=True),
    ),
    mark=r"policy\.[0-4]\.",
    infer=_infer,
)
