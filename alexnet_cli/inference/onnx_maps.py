"""The maps of an ONNX file's convolutional layers: what each of their kernels shows for a picture. Imports no torch."""

import re
from typing import TYPE_CHECKING

import numpy as np

from alexnet_cli.errors import AlexNetError, NoSuchLayer, first_line
from alexnet_cli.inference.onnx_model import CPU, OnnxModel, Runtime, session_options

if TYPE_CHECKING:
    import onnx

WEIGHT = re.compile(r"net\.columns\.\d+\.([\w-]+)\.weighted\.weight")  # as the exporter names them


class OnnxMaps:
    """The convolutional part of a model, open for inference on the CPU. Several threads may use it at once."""

    def __init__(self, model: OnnxModel) -> None:
        """Raises AlexNetError if ONNX Runtime cannot run its layers."""
        import onnx

        proto = onnx.load_model_from_string(model.file.read())
        self._outputs = _outputs(proto.graph)
        outputs = [name for names in self._outputs.values() for name in names]
        if not outputs:
            return
        _cut(proto.graph, outputs)
        try:
            self._session = Runtime(session_options(few=True), [CPU], must=False).session(proto.SerializeToString())
        except Exception as error:  # ONNX Runtime has many, with no common base
            raise AlexNetError(f"the layers of {model.path} cannot be run ({first_line(error)})") from None

    @property
    def layers(self) -> list[str]:
        """The names of the layers, first to last; none if the file does not name them, as one of int8 does not."""
        return list(self._outputs)

    def run(self, image: np.ndarray, layer: str) -> np.ndarray:
        """The activations of ``layer``, after its ReLU, for ``image`` (S, S, 3) uint8: (kernels, h, w) float32.

        The columns' kernels follow one another. Raises NoSuchLayer.
        """
        if layer not in self._outputs:
            known = ", ".join(self.layers) or "its file names none, as one of precision int8"
            raise NoSuchLayer(f"the model has no convolutional layer {layer!r}: {known}")
        columns = self._session.run(self._outputs[layer], {"image": image[None]})
        return np.concatenate([maps[0] for maps in columns]).astype(np.float32)


def _outputs(graph: "onnx.GraphProto") -> dict[str, list[str]]:
    """Layer -> the values that are its activations, one for each column."""
    rectified = {node.input[0]: node.output[0] for node in graph.node if node.op_type == "Relu"}
    outputs: dict[str, list[str]] = {}
    for node in graph.node:
        weight = WEIGHT.fullmatch(node.input[1]) if node.op_type == "Conv" else None
        if weight is not None:
            outputs.setdefault(weight[1], []).append(rectified.get(node.output[0], node.output[0]))
    return outputs


def _cut(graph: "onnx.GraphProto", outputs: list[str]) -> None:
    """Leave of ``graph`` what computes ``outputs``, and make these its outputs."""
    import onnx

    needed, nodes = set(outputs), []
    for node in reversed(graph.node):  # which are in order
        if needed & set(node.output):
            needed |= set(node.input)
            nodes.append(node)
    weights = [weight for weight in graph.initializer if weight.name in needed]
    kept = onnx.GraphProto(name=graph.name, node=reversed(nodes), input=graph.input, initializer=weights)
    kept.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
    graph.CopyFrom(kept)
