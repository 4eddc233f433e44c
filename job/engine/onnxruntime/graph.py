"""An ONNX graph, edited by tensor name."""

from collections.abc import Iterable

import numpy as np
import onnx
from onnx import NodeProto, helper, numpy_helper


class OnnxGraph:
    """The nodes and the stored tensors of a model.

    Args:
        model: the model.

    Attributes:
        nodes: nodes in order of execution, without Constant nodes.
        tensors: initializers and constants by name.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        graph = model.graph
        self.tensors = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
        self.nodes: list[NodeProto] = []
        for node in graph.node:
            if node.op_type == "Constant":
                self.tensors[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
            else:
                self.nodes.append(node)

    def producer(self, name: str) -> NodeProto | None:
        """Return the node that computes a tensor; None for inputs and stored tensors."""
        return next((node for node in self.nodes if name in node.output), None)

    def readers(self, name: str) -> list[NodeProto]:
        """Return the nodes that read a tensor."""
        return [node for node in self.nodes if name in node.input]

    def store(self, name: str, value: np.ndarray) -> str:
        """Store a tensor; return its name."""
        self.tensors[name] = value
        return name

    def replace(self, old: NodeProto, new: Iterable[NodeProto]) -> None:
        """Replace a node by other nodes."""
        at = next(i for i, node in enumerate(self.nodes) if node is old)
        self.nodes[at : at + 1] = new

    def remove(self, node: NodeProto) -> None:
        """Remove a node; readers of its output read its first input instead."""
        self.rename(node.output[0], node.input[0])
        self.nodes = [other for other in self.nodes if other is not node]

    def rename(self, old: str, new: str) -> None:
        """Make all readers of one tensor read another tensor."""
        for node in self.readers(old):
            node.input[:] = [new if name == old else name for name in node.input]

    def finished(self) -> onnx.ModelProto:
        """Return the edited and checked model, without unused tensors.

        Raises:
            onnx.checker.ValidationError: the model is not valid.
        """
        read = {name for node in self.nodes for name in node.input}
        graph = self.model.graph
        del graph.node[:], graph.initializer[:], graph.value_info[:]
        graph.node.extend(self.nodes)
        graph.initializer.extend(
            numpy_helper.from_array(np.asarray(value, order="C"), name)
            for name, value in self.tensors.items()
            if name in read
        )
        onnx.checker.check_model(self.model)
        return self.model


def attribute(node: NodeProto, name: str, default: object = None) -> object:
    """Return an attribute's value; ``default`` if the attribute is not set."""
    matches = [item for item in node.attribute if item.name == name]
    return helper.get_attribute_value(matches[0]) if matches else default
