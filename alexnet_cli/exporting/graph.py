"""The ONNX graph: it takes packed pictures, so mean subtraction and crop are inside it."""

import copy
import json
import warnings
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from alexnet_cli.data.preprocess import Preprocessor
from alexnet_cli.inference.onnx_model import FORMAT
from alexnet_cli.inference.views import centre_view
from alexnet_cli.model import Model
from alexnet_cli.nets.alexnet import AlexNet
from alexnet_cli.nets.normalization import LocalResponseNorm
from alexnet_cli.recipe import dumps

if TYPE_CHECKING:
    import onnx

OPSET = 18

Precision = Literal["fp32", "fp16", "int8"]


class Deployed(nn.Module):
    """The network with its preprocessing: pictures in, probabilities and features out, in a form for ``precision``."""

    def __init__(self, net: AlexNet, preprocessor: Preprocessor, precision: Precision) -> None:
        super().__init__()
        # A copy: neither half precision nor the form of response norm may change the caller's network.
        self.net = net if precision == "fp32" else copy.deepcopy(net)
        self.preprocessor = preprocessor
        self.half_precision = precision == "fp16"
        if self.half_precision:
            self.net.half()
        if precision == "int8":
            for module in self.net.modules():
                if isinstance(module, LocalResponseNorm):
                    module.by_rows = True

    def forward(self, image: Tensor, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
        """``image`` (N, S, S, 3) uint8; ``rows``, ``columns`` (crop,) int64: the view's pixels."""
        inputs = self.preprocessor(image, rows, columns)  # (N, C, crop, crop)
        logits, features = self.net(inputs.half() if self.half_precision else inputs)
        return logits.float().softmax(dim=1), features.float()


def build_graph(model: Model, precision: Precision = "fp32") -> "onnx.ModelProto":
    """The ONNX graph of ``model``: required input `image`, optional `rows` and `columns`; outputs `probabilities` and
    the features, called like their layer: `fc7`.

    `rows` and `columns` have the central crop as their default, so that the same file serves other views, such as the
    ten of §4.1. For int8 the graph is still in fp32, in the form that `quantize` makes the fastest file of.
    """
    import onnx

    image = model.recipe.image
    deployed = Deployed(model.net, Preprocessor(image, model.mean_image, "cpu"), precision).eval()
    view = centre_view(image.size, image.crop)
    examples = (torch.zeros(2, image.size, image.size, 3, dtype=torch.uint8), *map(torch.from_numpy, view))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns about its own code
        program = torch.onnx.export(
            deployed,
            examples,
            input_names=["image", *view._fields],
            output_names=["probabilities", model.net.features_name],
            dynamic_shapes=({0: torch.export.Dim("N")}, None, None),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    proto = program.model_proto
    for name, pixels in view._asdict().items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(pixels, name))
    for key, value in {
        "alexnet_format": str(FORMAT),
        "classes": json.dumps(model.classes, ensure_ascii=False),
        "fingerprint": model.fingerprint,
        "recipe": dumps(model.recipe),
        "precision": precision,
    }.items():
        proto.metadata_props.add(key=key, value=value)
    return proto
