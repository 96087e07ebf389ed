"""The ONNX graph: it takes packed pictures, so mean subtraction and crop are inside it."""

import json
import warnings
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from alexnet_cli.data.preprocess import Preprocessor
from alexnet_cli.inference.onnx_maps import response_name
from alexnet_cli.inference.onnx_model import FORMAT
from alexnet_cli.inference.views import View, centre_view
from alexnet_cli.model import Model
from alexnet_cli.nets.describe import fields, layer_table
from alexnet_cli.nets.network import ColumnNetwork, without_dropout
from alexnet_cli.nets.normalization import LocalResponseNorm
from alexnet_cli.nets.responses import recording
from alexnet_cli.recipe import dumps
from alexnet_cli.wordnet import class_names

if TYPE_CHECKING:
    import onnx

OPSET = 18

Precision = Literal["fp32", "fp16", "int8"]


class ExportModule(nn.Module):
    """The network with its preprocessing, in a form for ``precision``.

    Pictures in; probabilities, features and the responses of each layer that has maps, of each column, out.
    """

    def __init__(self, net: ColumnNetwork, preprocessor: Preprocessor, precision: Precision) -> None:
        super().__init__()
        self.net = without_dropout(net)  # a copy, so that nothing here changes the caller's network
        self.preprocessor = preprocessor
        self.layers = list(fields(net.network))
        self.half_precision = precision == "fp16"
        if self.half_precision:
            self.net.half()
        if precision == "int8":
            for module in self.net.modules():
                if isinstance(module, LocalResponseNorm):
                    module.channels_last = True

    def forward(self, image: Tensor, rows: Tensor, columns: Tensor) -> tuple[Tensor, ...]:
        """``image`` (N, S, S, 3) uint8; ``rows``, ``columns`` (crop,) int64: the view's pixels."""
        inputs = self.preprocessor(image, rows, columns)  # (N, C, crop, crop)
        with recording(self.net, self.layers) as responses:
            logits, features = self.net(inputs.half() if self.half_precision else inputs)
        each = [part for layer in self.layers for part in responses[layer]]
        return logits.float().softmax(dim=1), features.float(), *each


def build_graph(model: Model, precision: Precision = "fp32") -> "onnx.ModelProto":
    """The ONNX graph of ``model``: input `image`; outputs `probabilities` and the features, named by layer: `fc7`.

    The crop is the central one, by two constants, `rows` and `columns`, of which `onnx_file.with_view_inputs` can make
    inputs. For int8 the graph is still in fp32, in the form that `quantize` makes the fastest file of.
    """
    image = model.recipe.image
    deployed = ExportModule(model.net, Preprocessor(image, model.mean_image, "cpu"), precision).eval()
    view, outputs = centre_view(image.size, image.crop), ["probabilities", model.net.features_name]
    responses = [response_name(layer, i) for layer in deployed.layers for i in range(len(model.net.columns))]
    examples = (torch.zeros(2, image.size, image.size, 3, dtype=torch.uint8), *map(torch.from_numpy, view))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns about its own code
        program = torch.onnx.export(
            deployed,
            examples,
            input_names=["image", *view._fields],
            output_names=outputs + responses,
            dynamic_shapes=({0: torch.export.Dim("N")}, None, None),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    proto = program.model_proto
    del proto.graph.output[len(outputs) :]  # the responses keep their names, by which the page finds them
    _make_constants(proto.graph, view)
    _remove_comments(proto)
    names = zip(model.classes, class_names(model.classes, model.words), strict=True)
    words = {label: name for label, name in names if name != label}  # for servers that have no table of WordNet's
    layers = layer_table(model.recipe.network, image.shape, len(model.classes))
    for key, value in {
        "alexnet_format": str(FORMAT),
        "classes": json.dumps(model.classes, ensure_ascii=False),
        "words": json.dumps(words, ensure_ascii=False),
        "fingerprint": model.fingerprint,
        "recipe": dumps(model.recipe),
        "precision": precision,
        "crop": str(image.crop),
        "views": str(model.recipe.views),
        "layers": json.dumps([row.as_json() for row in layers]),
    }.items():
        proto.metadata_props.add(key=key, value=value)
    return proto


def _make_constants(graph: "onnx.GraphProto", view: View) -> None:
    """Turn the inputs for rows and columns into constants, with which the file opens without a warning."""
    import onnx

    inputs = [one for one in graph.input if one.name not in view._fields]
    del graph.input[:]
    graph.input.extend(inputs)
    graph.initializer.extend(onnx.numpy_helper.from_array(pixels, name) for name, pixels in view._asdict().items())


def _remove_comments(proto: "onnx.ModelProto") -> None:
    """Remove what the exporter tells of its own work, such as stack traces with the paths of this machine."""
    graph = proto.graph
    for one in (proto, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        one.ClearField("doc_string")
        one.ClearField("metadata_props")
