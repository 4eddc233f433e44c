"""An ONNX graph that can be edited by tensor name."""

from collections.abc import Iterable

import numpy as np
import onnx
from onnx import NodeProto, helper, numpy_helper


class OnnxGraph:
    """The nodes of a model and its stored tensors, constants among them.

    Attributes:
        nodes: in the order of execution.
        tensors: stored tensors by name.
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
        """The node that computes a tensor; None for inputs and stored ones."""
        return next((node for node in self.nodes if name in node.output), None)

    def readers(self, name: str) -> list[NodeProto]:
        """The nodes that read a tensor."""
        return [node for node in self.nodes if name in node.input]

    def store(self, name: str, value: np.ndarray) -> str:
        """Store a tensor; returns its name."""
        self.tensors[name] = value
        return name

    def replace(self, old: NodeProto, new: Iterable[NodeProto]) -> None:
        """Put nodes in another one's place."""
        at = next(i for i, node in enumerate(self.nodes) if node is old)
        self.nodes[at : at + 1] = new

    def remove(self, node: NodeProto) -> None:
        """Remove a node; what read its output reads its first input."""
        self.rename(node.output[0], node.input[0])
        self.nodes = [other for other in self.nodes if other is not node]

    def rename(self, old: str, new: str) -> None:
        """Let all that read one tensor read another."""
        for node in self.readers(old):
            node.input[:] = [new if name == old else name for name in node.input]

    def finished(self) -> onnx.ModelProto:
        """The edited model, with the tensors that are read, checked."""
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
    """An attribute's value, ``default`` when it is not set."""
    found = [item for item in node.attribute if item.name == name]
    return helper.get_attribute_value(found[0]) if found else default
