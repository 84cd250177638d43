"""A network as ONNX, for programs that have neither this project nor JAX."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax import export as jax_export

from sofnet_jax.backbones.folded import Layers
from sofnet_jax.data.views import Sampler
from sofnet_jax.engines.graph import Graph, create_model, describe
from sofnet_jax.engines.jaxpr import Inner, Scope, add_program
from sofnet_jax.engines.layers import NamedLayers
from sofnet_jax.host.files import write_json, write_whole
from sofnet_jax.inference.online import pack
from sofnet_jax.inference.program import run_video
from sofnet_jax.systems.base import Network, decide
from sofnet_jax.systems.early_exit import Rule, Watched, watch

_CARRY = "carry."


class Translator:
    """Writes functions of a network as ONNX models, all with the same metadata.

    Attributes:
        network: what the functions have to call.
    """

    def __init__(self, network: Network, metadata: Mapping[str, str]):
        self._inner: dict[str, Inner] = {}
        self._metadata = metadata
        self.network = jax.tree.map(self._name, network, is_leaf=lambda x: isinstance(x, Layers))

    def _name(self, part: Any) -> Any:
        if not isinstance(part, Layers) or not part.layers:
            return part
        named = NamedLayers(part, f"sofnet_layers_{len(self._inner)}")
        self._inner[named.name] = named.add
        return named

    def translate(
        self, function: Callable, inputs: Mapping[str, Any], outputs: Sequence[str]
    ) -> bytes:
        """A model of a function from arrays, given by name and shape, to as many as `outputs`."""
        program = jax.make_jaxpr(function)(*inputs.values())
        graph, sizes = Graph(), {}
        for name, array in inputs.items():
            for axis, size in enumerate(array.shape):
                if not isinstance(size, int):
                    shape = graph.add("Shape", name, start=axis, end=axis + 1)
                    sizes[str(size)] = graph.add("Squeeze", shape, graph.constant([0]))
        found = add_program(Scope(graph, self._inner, sizes), program, list(inputs))
        for value, name in zip(found, outputs, strict=True):
            graph.rename(value, name)
        pairs = inputs.items(), zip(outputs, program.out_avals, strict=True)
        described = [[_describe(name, each) for name, each in named] for named in pairs]
        return create_model(graph.finish("sofnet_jax", *described), self._metadata)


def _describe(name: str, array: Any) -> Any:
    if name.startswith(_CARRY):  # features have another shape than in JAX: channels come first
        return describe(name, array.dtype, [None] * len(array.shape))
    sizes = [size if isinstance(size, int) else str(size) for size in array.shape]
    return describe(name, array.dtype, sizes)


def create_metadata(
    network: Network, classes: Sequence[str], sampler: Sampler, rule: Rule
) -> dict[str, str]:
    """What a program must know beside the model, as JSON by name."""
    facts = {
        "classes": list(classes),
        "preprocessing": {
            "frames": sampler.num_frames,
            "sampling": "the centre of each of as many equal segments",
            "size": sampler.size,
            "crop": "scale the short side to 8/7 of the size, bilinear and antialiased; the centre",
            "pixels": "uint8 RGB, not normalised",
        },
        "order": network.architecture.order(sampler.num_frames).tolist(),
        "actions": [action._asdict() for action in network.architecture.actions],
        "early exit": {"threshold": rule.threshold, "min_frames": rule.min_frames},
    }
    return {name: json.dumps(fact, ensure_ascii=False) for name, fact in facts.items()}


def write_video_model(
    path: Path, network: Network, rule: Rule, size: int, metadata: Mapping[str, str]
) -> None:
    """Write the recognition of a whole video: a loop over frames, with a branch after each gate.

    The model maps `frames`, uint8 (t, size, size, 3), to class probabilities `scores` (n), their
    `logits` (n), and `actions` (t): what was done with each frame, as an index of the system's
    actions, -1 where it was never looked at. `t` is free unless the system has a number of frames.
    """
    translator = Translator(network, metadata)
    count: Any = network.architecture.num_frames or jax_export.symbolic_shape("t")[0]
    frames = jax.ShapeDtypeStruct((count, size, size, 3), jnp.uint8)
    model = translator.translate(
        lambda frames: tuple(run_video(translator.network, frames, rule)),
        {"frames": frames},
        ["scores", "logits", "actions"],
    )
    with write_whole(path) as partial:
        partial.write_bytes(model)


def write_parts(
    folder: Path, network: Network, rule: Rule, size: int, metadata: Mapping[str, str]
) -> None:
    """Write a model for the start of a video, for each span with its decision, and for its end.

    A loop elsewhere keeps the arrays `state.…` and `carry.…` and passes them on by name; `needed`
    says which span follows, -1 for none, on which frame, and what was done with the last one.
    `parts.json` lists the spans.
    """
    translator = Translator(network, metadata)
    network = translator.network
    begun = watch(network, rule, jnp.full(1, -1, jnp.int32), (size, size, 3))
    tree, state = jax.tree.structure(begun), _name_leaves("state", begun)
    after = [f"next.{name}" for name in state]

    def list_state(new: Watched) -> list[Any]:
        return [*jax.tree.leaves(new), pack(new)]

    def start(count: Any) -> list[Any]:
        return list_state(watch(network, rule, count, (size, size, 3)))

    def finish(*leaves: Any) -> list[Any]:
        return list_state(jax.tree.unflatten(tree, leaves).finish())

    count = {"num_frames": jax.ShapeDtypeStruct((1,), jnp.int32)}
    _write(folder / "begin.onnx", translator.translate(start, count, [*after, "needed"]))
    _write(folder / "finish.onnx", translator.translate(finish, state, [*after, "needed"]))
    pixels = {"pixels": jax.ShapeDtypeStruct((1, size, size, 3), jnp.uint8)}
    carried: dict[int, tuple[Any, dict[str, Any]]] = {}
    listed = []
    for i, span in enumerate(network.spans):
        form, given = (jax.tree.structure(0), pixels) if span.looks else carried[i]

        def see(*leaves: Any, span: Any = span, form: Any = form) -> list[Any]:
            old = jax.tree.unflatten(tree, leaves[: len(state)])
            carry, evidence = span.extract(
                old.inner, jax.tree.unflatten(form, leaves[len(state) :])
            )
            new = old.follow(decide(span, old.inner, evidence), answers=span.answers)
            return [*list_state(new), new.answer, *jax.tree.leaves(carry)]

        shapes = jax.eval_shape(
            lambda s, x, span=span: span.extract(s, x)[0],
            begun.inner,
            jax.tree.unflatten(form, given.values()),
        )
        left = _name_leaves(_CARRY + span.name, shapes)
        outputs = [*after, "needed", "logits", *left]
        name = f"{i}_{span.name}.onnx"
        _write(folder / name, translator.translate(see, state | given, outputs))
        carried |= dict.fromkeys(span.followers, (jax.tree.structure(shapes), left))
        listed.append({"file": name, "looks": span.looks, "followers": list(span.followers)})
    facts = {name: json.loads(text) for name, text in metadata.items()}
    write_json(folder / "parts.json", {"spans": listed, **facts})


def _write(path: Path, model: bytes) -> None:
    with write_whole(path) as partial:
        partial.write_bytes(model)


def _name_leaves(prefix: str, tree: Any) -> dict[str, Any]:
    """The arrays of a tree by their paths."""
    leaves = jax.tree.leaves_with_path(tree)
    name = jax.tree_util.keystr
    return {f"{prefix}.{name(path, simple=True, separator='.')}": leaf for path, leaf in leaves}
