"""A hand-written loop over ONNX models of SoF-Net's spans, as a rival for one engine."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8

from sofnet_jax.backbones.folded import Stem
from sofnet_jax.engines.base import Run
from sofnet_jax.engines.graph import Graph, create_model, describe
from sofnet_jax.engines.layers import add_layers
from sofnet_jax.systems.early_exit import Rule
from sofnet_jax.systems.sofnet.folded import FoldedSoFNet, Gate, GatedSpan


def create_span_models(network: FoldedSoFNet) -> list[bytes]:
    """For each gate, `x`, `h`, `c` to `features`, `h`, `c` and `q`; the last one adds `logits`.

    The classifier shares the last gate's model: it costs little, and a call less is faster.
    """
    gated = [span for span in network.spans if isinstance(span, GatedSpan)]
    models = []
    for span in gated:
        graph = Graph()
        features, pooled, _ = add_layers(graph, span.layers, "x")
        outputs = {"features": features} | _add_gate(graph, span.gate, pooled)
        if span is gated[-1]:
            kernel, bias = map(graph.constant, (network.head.kernel, network.head.bias))
            outputs["logits"] = graph.add("Gemm", pooled, kernel, bias)
        for name, value in outputs.items():
            graph.rename(value, f"new_{name}")
        image = isinstance(span.layers.layers[0], Stem)
        hidden = len(span.gate.w_q)
        inputs = [describe("x", np.uint8 if image else np.float32, (1, None, None, None))]
        inputs += [describe(name, np.float32, (1, hidden)) for name in ("h", "c")]
        ranks = {name: 4 if name == "features" else 2 for name in outputs}
        described = [describe(f"new_{n}", np.float32, [None] * rank) for n, rank in ranks.items()]
        models.append(create_model(graph.finish("span", inputs, described)))
    return models


def _add_gate(graph: Graph, gate: Gate, pooled: str) -> dict[str, str]:
    """The LSTM cell (Eqs. 2–3) and its decision, with the gate's own combined kernel."""
    kernel, bias = map(graph.constant, (gate.kernel, gate.bias))
    z = graph.add("Gemm", graph.add("Concat", pooled, "h", axis=1), kernel, bias)
    sizes = graph.constant([len(gate.w_q)] * 4, np.int64)
    i, f, g, o = graph.add_all("Split", [z, sizes], 4, axis=1)
    i, f, o = (graph.add("Sigmoid", each) for each in (i, f, o))
    c = graph.add("Add", graph.add("Mul", f, "c"), graph.add("Mul", i, graph.add("Tanh", g)))
    h = graph.add("Mul", o, graph.add("Tanh", c))
    q = graph.add("Gemm", h, *map(graph.constant, (gate.w_q, gate.b_q)))
    return {"h": h, "c": c, "q": q}


class HandLoop:
    """The loop: one call for each gate that a frame comes to."""

    def __init__(self, network: FoldedSoFNet, rule: Rule, runs: Sequence[Run]):
        self._runs, self._rule = runs, rule
        self._zero = np.zeros((1, network.architecture.hidden), np.float32)

    def recognize(self, video: UInt8[np.ndarray, "t h w 3"]) -> np.ndarray:
        """The gate that stopped each frame; the number of gates marks a kept one."""
        states = [(self._zero, self._zero)] * len(self._runs)
        total, kept, stops = np.zeros(1, np.float32), 0, []
        for t in range(len(video)):
            x, proposed, logits = video[t : t + 1], [], []
            forced = t == len(video) - 1 and not kept
            for run, (h, c) in zip(self._runs, states, strict=True):
                x, h, c, q, *logits = run([x, h, c])
                if q[0, 1] <= q[0, 0] and not forced:
                    break
                proposed.append((h, c))
            stops.append(len(proposed))
            if len(proposed) == len(states):
                states, kept, total = proposed, kept + 1, total + logits[0][0]
                if self._rule.ends(total / kept, len(stops)):
                    break
        return np.array(stops)
