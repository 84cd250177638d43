"""SoF-Net's weights in PyTorch: `policy.{n}.…` for the gate after stage n + 1.

Gates use the names of `torch.nn.Linear` and `torch.nn.LSTMCell`: `embed`, `lstm` (or `fc`), `gate`
([stop, forward]) and `inner`.
"""

from collections.abc import Collection, Mapping
from typing import Any

from sofnet_jax.systems.naming import (
    CLASSIFIER,
    LEAVES,
    Layout,
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


# The authors' released SoF-Net: module dictionaries with a key for every stage. Its `base_model` is
# a second copy of the tensors, with ImageNet's classifier.
_STAGES = ("base", "conv_2", "conv_3", "conv_4", "conv_5")
_RELEASED = {
    "new_fc": "fc",
    "block_cnn_dict.base.0": "conv1",
    "block_cnn_dict.base.1": "bn1",
    **{f"block_cnn_dict.{stage}": f"layer{n}" for n, stage in enumerate(_STAGES) if n},
    **{
        f"{module}.{stage}{rest}": f"policy.{n}.{ours}"
        for n, stage in enumerate(_STAGES)
        for module, rest, ours in (
            ("block_fc_dict", ".2", "embed"),  # after average pool and squeeze
            ("block_rnn_dict", "", "lstm"),
            ("action_fc_dict", "", "gate"),
            ("block_pred_rnn_fc_dict", "", "inner"),
        )
    },
}


def _rename_released(name: str, names: Collection[str]) -> str | None:
    found = (theirs for theirs in _RELEASED if name.startswith(f"{theirs}."))
    return next((name.replace(theirs, _RELEASED[theirs], 1) for theirs in found), None)


RELEASED = Layout(
    "SoF-Net as released by its authors",
    r"block_cnn_dict\.",
    _rename_released,
    "its gates were trained as the released code does; use the variant :release",
)
NAMING = Naming(
    _name,
    parts=(
        CLASSIFIER,
        Part("gates", r"policy\.", sign=r".*\.gate\."),
        Part("inner classifiers", r"policy\.\d\.inner\.", classes=True),
    ),
    mark=r"policy\.[0-4]\.",
    infer=_infer,
    layouts=(RELEASED,),
)
