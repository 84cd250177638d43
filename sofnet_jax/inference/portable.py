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
from sofnet_jax.inference.program import run_video
from sofnet_jax.systems.base import Network
from sofnet_jax.systems.early_exit import Rule, Watched, see, watch

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
        features = {n for n, each in inputs.items() if n.startswith(_CARRY) and each.ndim == 4}
        scope = Scope(graph, self._inner, sizes, features)
        found = add_program(scope, program, list(inputs))
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
    """Classes, preprocessing, order, actions and early exit, each as JSON."""
    facts = {
        "classes": list(classes),
        "preprocessing": {
            "frames": sampler.num_frames,
            "sampling": "the centre of each of as many equal segments",
            "size": sampler.size,
            "short side": sampler.short_side,
            "crop": _describe_crop(sampler),
            "pixels": "uint8 RGB, not normalised",
        },
        "order": network.architecture.order(sampler.num_frames).tolist(),
        "actions": [action._asdict() for action in network.architecture.actions],
        "early exit": {"threshold": rule.threshold, "min_frames": rule.min_frames},
    }
    return {name: json.dumps(fact) for name, fact in facts.items()}


def _describe_crop(sampler: Sampler) -> str:
    first, side = sampler.short_side, sampler.via or sampler.size
    text = f"scale a short side above {first} to {first} pixels; " if first else ""
    text += f"scale the short side to 8/7 of {side} pixels, bilinear and antialiased, and take the "
    text += f"central {side}×{side}"
    return text + (f"; of these the nearest {sampler.size}×{sampler.size}" if sampler.via else "")


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
    `parts.json` lists the spans; it is written last, and without it the folder is not complete.
    """
    translator = Translator(network, metadata)
    state = watch(translator.network, rule, jnp.full(1, -1, jnp.int32), (size, size, 3))
    models = _translate_ends(translator, state, rule, size)
    spans = _translate_spans(translator, state, size)
    models |= {f"{i}_{span.name}.onnx": model for i, (span, model) in enumerate(spans)}
    facts = {name: json.loads(text) for name, text in metadata.items()}
    files = [name for name in models if name[0].isdigit()]
    listed = [
        {"file": file, "looks": span.looks, "followers": list(span.followers)}
        for file, (span, _) in zip(files, spans, strict=True)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "parts.json").unlink(missing_ok=True)
    for old in folder.glob("[0-9]*_*.onnx"):
        old.unlink()
    for name, model in models.items():
        _write(folder / name, model)
    write_json(folder / "parts.json", {"spans": listed, **facts})


def _translate_ends(
    translator: Translator, begun: Watched, rule: Rule, size: int
) -> dict[str, bytes]:
    """The models that begin and finish a video."""
    state = _name_leaves("state", begun)
    tree, outputs = jax.tree.structure(begun), [*(f"next.{name}" for name in state), "needed"]

    def begin(count: Any) -> list[Any]:
        return _list_state(watch(translator.network, rule, count, (size, size, 3)))

    def finish(*leaves: Any) -> list[Any]:
        return _list_state(jax.tree.unflatten(tree, leaves).finish())

    count = {"num_frames": jax.ShapeDtypeStruct((1,), jnp.int32)}
    return {
        "begin.onnx": translator.translate(begin, count, outputs),
        "finish.onnx": translator.translate(finish, state, outputs),
    }


def _translate_spans(translator: Translator, begun: Watched, size: int) -> list[tuple[Any, bytes]]:
    """Each span with its model."""
    tree, state = jax.tree.structure(begun), _name_leaves("state", begun)
    pixels = {"pixels": jax.ShapeDtypeStruct((1, size, size, 3), jnp.uint8)}
    carried: dict[int, tuple[Any, dict[str, Any]]] = {}
    translated = []
    for i, span in enumerate(translator.network.spans):
        form, given = (jax.tree.structure(0), pixels) if span.looks else carried[i]

        def run(*leaves: Any, span: Any = span, form: Any = form) -> list[Any]:
            old = jax.tree.unflatten(tree, leaves[: len(state)])
            x = jax.tree.unflatten(form, leaves[len(state) :])
            carry, (new, _, _) = see(span, old, x)
            return [*_list_state(new), new.answer, *jax.tree.leaves(carry)]

        x = jax.tree.unflatten(form, given.values())
        carry = jax.eval_shape(lambda s, x, span=span: span.extract(s, x)[0], begun.inner, x)
        left = _name_leaves(_CARRY + span.name, carry)
        outputs = [*(f"next.{name}" for name in state), "needed", "logits", *left]
        translated.append((span, translator.translate(run, state | given, outputs)))
        carried |= dict.fromkeys(span.followers, (jax.tree.structure(carry), left))
    return translated


def _list_state(state: Watched) -> list[Any]:
    return [*jax.tree.leaves(state), state.needed]


def _write(path: Path, model: bytes) -> None:
    with write_whole(path) as partial:
        partial.write_bytes(model)


def _name_leaves(prefix: str, tree: Any) -> dict[str, Any]:
    """The arrays of a tree by their paths."""
    leaves = jax.tree.leaves_with_path(tree)
    name = jax.tree_util.keystr
    return {f"{prefix}.{name(path, simple=True, separator='.')}": leaf for path, leaf in leaves}
