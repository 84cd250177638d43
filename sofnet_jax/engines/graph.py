"""An ONNX graph in the making."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from sofnet_jax.host.errors import first_line

# Both are older than the packages that the extras install, so that other programs can read files.
OPSET, IR_VERSION = 18, 9


class Graph:
    """Nodes and constants; values are known by their names.

    A subgraph, the body of a loop or a branch, may use the values of the graph around it.
    """

    def __init__(self, parent: "Graph | None" = None):
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._numbers: Iterator[int] = parent._numbers if parent else itertools.count()

    def name(self) -> str:
        """A name that no other value has."""
        return f"v{next(self._numbers)}"

    def constant(self, value: Any, dtype: Any = None) -> str:
        """A constant array."""
        name = self.name()
        array = np.ascontiguousarray(value, dtype).reshape(np.shape(value))
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def add(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """The output of a new node."""
        return self.add_all(kind, inputs, 1, **attributes)[0]

    def add_all(self, kind: str, inputs: Sequence[str], count: int, **attributes: Any) -> list[str]:
        """All outputs of a new node."""
        outputs = [self.name() for _ in range(count)]
        self.nodes.append(helper.make_node(kind, list(inputs), outputs, **attributes))
        return outputs

    def rename(self, value: str, name: str) -> None:
        """Give a value a name of our choice, as outputs need."""
        self.nodes.append(helper.make_node("Identity", [value], [name]))

    def finish(
        self,
        name: str,
        inputs: Sequence[onnx.ValueInfoProto],
        outputs: Sequence[onnx.ValueInfoProto],
    ) -> onnx.GraphProto:
        """The graph with these inputs and outputs, and the nodes and constants that they need."""
        needed, nodes = {each.name for each in outputs}, []
        for node in reversed(self.nodes):
            if needed.intersection(node.output):
                nodes.append(node)
                needed |= _list_inputs(node)
        constants = [constant for constant in self.constants if constant.name in needed]
        return helper.make_graph(nodes[::-1], name, inputs, outputs, constants)


def _list_inputs(node: onnx.NodeProto) -> set[str]:
    """The names of the values that a node reads, also within its subgraphs."""
    subgraphs = [attribute.g for attribute in node.attribute if attribute.HasField("g")]
    inner = [_list_inputs(each) for graph in subgraphs for each in graph.node]
    return {*node.input}.union(*inner)


def describe(name: str, dtype: Any, shape: Sequence[int | str | None]) -> onnx.ValueInfoProto:
    """The name, type and shape of an input or output; sizes that are words or None may vary."""
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    return helper.make_tensor_value_info(name, kind, shape)


def create_model(graph: onnx.GraphProto, metadata: Mapping[str, str] | None = None) -> bytes:
    """A whole model; `metadata` can be read from it by its names.

    Raises:
        NotImplementedError: it does not pass ONNX's checks, or is too large.
    """
    opset = helper.make_opsetid("", OPSET)
    model = helper.make_model(
        graph, opset_imports=[opset], ir_version=IR_VERSION, producer_name="sofnet_jax"
    )
    helper.set_model_props(model, dict(metadata or {}))
    try:
        onnx.checker.check_model(model, full_check=True)
        return model.SerializeToString()
    except Exception as error:  # of the checker, or more than the 2 GB that a file may have
        raise NotImplementedError(f"the model is not valid: {first_line(error)}") from error
