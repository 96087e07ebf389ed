"""The maps of an ONNX file's layers: what each of their kernels responds to a picture. Imports no torch."""

import re
from typing import TYPE_CHECKING

import numpy as np

from alexnet_cli.errors import AlexNetError, NoSuchLayer, first_line
from alexnet_cli.inference.onnx_model import CPU, OnnxModel, Runtime, session_options

if TYPE_CHECKING:
    import onnx

RESPONSE = re.compile(r"([\w-]+)\.response\.(\d+)")  # as `response_name` has it


class OnnxMaps:
    """The part of a model that has maps, open for inference on the CPU. Several threads may use it at once."""

    def __init__(self, model: OnnxModel) -> None:
        """Raises AlexNetError if ONNX Runtime cannot run its layers."""
        import onnx

        proto = onnx.load_model_from_string(model.file.read())
        self._responses = _responses(proto.graph)
        outputs = [name for names in self._responses.values() for name in names]
        if not outputs:
            return
        _cut(proto.graph, outputs)
        try:
            self._session = Runtime(session_options(few=True), [CPU], must=False).session(proto.SerializeToString())
        except Exception as error:  # ONNX Runtime has many, with no common base
            raise AlexNetError(f"the layers of {model.path} cannot be run ({first_line(error)})") from None

    @property
    def layers(self) -> list[str]:
        """The names of the layers, first to last; none if the file does not name them, as an older one does not."""
        return list(self._responses)

    def run(self, image: np.ndarray, layer: str) -> np.ndarray:
        """The responses of ``layer`` to ``image`` (S, S, 3) uint8: (kernels, h, w) float32.

        What they are, `nets/responses.py` says. The columns' kernels follow one another. Raises NoSuchLayer.
        """
        if layer not in self._responses:
            known = ", ".join(self.layers) or "its file names none; if the network has some, export it again"
            raise NoSuchLayer(f"the model has no layer {layer!r} with maps: {known}")
        columns = self._session.run(self._responses[layer], {"image": image[None]})
        return np.concatenate([maps[0] for maps in columns]).astype(np.float32)


def response_name(layer: str, column: int) -> str:
    """What a file of ours calls the responses of one column's part of ``layer``, (N, K, H, W): conv1.response.0."""
    return f"{layer}.response.{column}"  # no layer has a point in its name


def _responses(graph: "onnx.GraphProto") -> dict[str, list[str]]:
    """Layer -> the names of its responses, one for each column; in the order of the graph."""
    found: dict[str, dict[int, str]] = {}
    for name in (name for node in graph.node for name in node.output):
        if response := RESPONSE.fullmatch(name):
            found.setdefault(response[1], {})[int(response[2])] = name
    return {layer: [name for _, name in sorted(columns.items())] for layer, columns in found.items()}


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
