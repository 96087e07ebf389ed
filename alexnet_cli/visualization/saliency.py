"""Which parts of a picture speak for a class: occlusion, the gradient and class activation, side by side."""

import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from alexnet_cli.console import percent
from alexnet_cli.errors import AlexNetError
from alexnet_cli.figures.canvas import Size, drawing, show_picture
from alexnet_cli.inference.classes import find_class
from alexnet_cli.inference.network_model import NetworkModel
from alexnet_cli.inference.predictor import Prediction, Predictor
from alexnet_cli.inference.views import centre_view
from alexnet_cli.nets.describe import Field, fields
from alexnet_cli.nets.network import ColumnNetwork
from alexnet_cli.nets.responses import recording
from alexnet_cli.visualization.occlusion import occlusion

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BRIGHT = 99.5  # percentile of the gradient that gets the brightest colour: a few pixels have far more than the others
OPACITY = 0.65  # of a map over the picture


@dataclass(frozen=True, kw_only=True)
class Saliency:
    """A picture's central view, and three maps of what in it speaks for a class."""

    view: np.ndarray  # (h, w, 3) uint8
    shown: Prediction  # the class that the maps are of
    best: Prediction  # the most probable class
    occlusion: np.ndarray  # (POSITIONS, POSITIONS): the class's probability with a square there
    gradient: np.ndarray  # (h, w): by how much the class's logit changes with a pixel, per grey level
    activation: np.ndarray  # (h, w): class activation
    layer: str  # that class activation comes from


@dataclass(frozen=True, kw_only=True)
class Gradients:
    """The gradients of a class's logit."""

    inputs: np.ndarray  # (C, h, w), with respect to the network's input
    maps: np.ndarray  # (K, H, W): responses of the last convolutional layer, column after column
    to_maps: np.ndarray  # (K, H, W), with respect to these


def saliency(network: NetworkModel, predictor: Predictor, image: np.ndarray, wanted: str | None = None) -> Saliency:
    """Explain the class ``wanted`` (a label or a name; the most probable one if None) of ``image`` (S, S, 3) uint8.

    ``network`` and ``predictor`` are the same model, in torch and in what runs many pictures fast. Raises AlexNetError
    if there is no such class, or if the network has no convolutional layer.
    """
    probabilities = predictor.run(image[None])[0][0]
    best = int(probabilities.argmax())
    number = best if wanted is None else find_class(wanted, predictor.classes, predictor.class_names)
    layer = last_convolution(network.net)
    rows, columns = centre_view(network.image_size, network.crop)
    preprocessor = network.preprocessor
    pixels, *view = (torch.tensor(each, device=preprocessor.device) for each in (image[None], rows, columns))
    gradients = gradients_of(network.net, preprocessor(pixels, *view), number)
    mean_image, standardized = preprocessor.mean_image.cpu().numpy(), None
    if preprocessor.image.standardize:
        standardized = preprocessor.image.weights
    activation = class_activation(gradients.maps, gradients.to_maps)
    predictions = {one.label: one for one in predictor.best(probabilities, len(probabilities))}
    return Saliency(
        view=image[np.ix_(rows, columns)],
        shown=predictions[predictor.classes[number]],
        best=predictions[predictor.classes[best]],
        occlusion=occlusion(predictor, image, mean_image, number, standardized),
        gradient=np.abs(gradients.inputs).max(axis=0) / preprocessor.image.unit,
        activation=enlarged(activation, fields(network.net.network)[layer], network.crop),
        layer=layer,
    )


def last_convolution(net: ColumnNetwork) -> str:
    """The last layer that has maps: conv5. Raises AlexNetError if there is none."""
    layers = list(fields(net.network))
    if not layers:
        raise AlexNetError("the network has no convolutional layer, and so no class activation")
    return layers[-1]


def gradients_of(net: ColumnNetwork, inputs: Tensor, number: int) -> Gradients:
    """The gradients of the logit of class ``number``; ``inputs`` (1, C, h, w): centred, as the network takes them.

    This is what lectures call setting the output of one neuron to 1 and going back to the input, by every layer's
    derivative (Simonyan et al., 2014). ``net`` is in testing mode. Raises AlexNetError as `last_convolution` does.
    """
    layer = last_convolution(net)
    inputs = inputs.detach().requires_grad_()
    with recording(net, [layer]) as recorded:
        logits, _ = net(inputs)
    columns = recorded[layer]  # (1, K / columns, H, W) each
    to_inputs, *to_columns = torch.autograd.grad(logits[0, number], [inputs, *columns])
    maps, to_maps = (torch.cat([each.cpu() for each in some], dim=1) for some in (columns, to_columns))
    return Gradients(inputs=to_inputs[0].cpu().numpy(), maps=maps[0].detach().numpy(), to_maps=to_maps[0].numpy())


def class_activation(maps: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    """Where ``maps`` (K, H, W) speak for a class, by the ``gradients`` (K, H, W) of its logit: (H, W), 0 or more."""
    # Class activation (Zhou et al., 2016) weighs each map by the weight of its mean in the class's logit. Here
    # fully-connected layers follow and there is no such weight; the mean gradient takes its place in any network, and
    # is proportional to it where there is one (Grad-CAM: Selvaraju et al., 2017).
    weights = gradients.mean(axis=(1, 2))  # (K,)
    return np.asarray(np.maximum(np.einsum("k,khw->hw", weights, maps), 0))


def enlarged(values: np.ndarray, field: Field, crop: int) -> np.ndarray:
    """``values`` (H, W) of units at the size of the view, (crop, crop): each at its place, bilinear between them.

    A unit's place is the centre of its receptive ``field``. Outside of the outermost units their values are repeated.
    """
    places = field.centre + field.stride * np.arange(max(values.shape))
    height, width = (
        np.stack([np.interp(np.arange(crop), places[:count], one) for one in np.eye(count)], 1)
        for count in values.shape
    )  # (crop, H) and (crop, W)
    return np.asarray(height @ values @ width.T)


def draw_saliency(told: Saliency, path: Path, size: Size = Size.page, *, model: str = "") -> None:
    """Draw the picture, and over it in grey the three maps, each with its colour bar; bright is what matters."""
    without, least, most = told.shown.probability, float(told.occlusion.min()), float(told.occlusion.max())
    with drawing(path, size, height=4.1, model=model) as figure:
        title = title_of(told).replace(" %", "\u00a0%")  # a line does not end between a number and its sign
        figure.suptitle(textwrap.fill(title, 100 if size is Size.page else 70))
        (picture, hidden, pixels, maps), bars = figure.subplots(
            2, 4, height_ratios=[1, 0.06], gridspec_kw={"wspace": 0.08}
        )
        bars[0].set_axis_off()
        show_picture(picture, told.view, "what the\nnetwork sees")
        picture.set_anchor("S")
        _show_map(hidden, bars[1], told, told.occlusion, (min(least, without), max(most, without)), is_probability=True)
        hidden.set_title("occlusion:\nhidden by a square")
        bars[1].set_xlabel(f"probability: {percent(without)}\nwithout square (line),\nlowest {percent(least)}")
        bars[1].axvline(without, color="tab:cyan", lw=4)
        bright = float(np.percentile(told.gradient, BRIGHT)) or float(told.gradient.max())
        _show_map(pixels, bars[2], told, told.gradient, (0, bright))
        pixels.set_title("gradient:\nback to the pixels")
        bars[2].set_xlabel("change of the logit\nper grey level\nof a pixel")
        _show_map(maps, bars[3], told, told.activation, (0, float(told.activation.max())))
        maps.set_title(f"class activation\nfrom {told.layer}")
        bars[3].set_xlabel(f"maps of {told.layer},\nweighted by\ntheir gradients")


def title_of(told: Saliency) -> str:
    """The class and its probability, and if it is another, those of the most probable class."""
    title = f"{told.shown.name}: {percent(told.shown.probability)}"
    if told.best != told.shown:
        title += f" (most probable: {told.best.name}, {percent(told.best.probability)})"
    return title


def _show_map(
    axes: "Axes",
    bar: "Axes",
    told: Saliency,
    values: np.ndarray,
    ends: tuple[float, float],
    *,
    is_probability: bool = False,
) -> None:
    """Draw ``values`` over the view in grey, with the colours between ``ends``, and these on ``bar``.

    The highest values are bright; of a probability the lowest.
    """
    from matplotlib.colorbar import Colorbar

    height, width = told.view.shape[:2]
    show_picture(axes, told.view.mean(axis=2))
    axes.set_anchor("S")
    low, high = ends
    dark = 1e-9 if low == high else 0  # so that a map that is the same all over is dark
    shown = axes.imshow(
        values,
        cmap="inferno_r" if is_probability else "inferno",
        vmin=low - dark if is_probability else low,
        vmax=high if is_probability else high + dark,
        alpha=OPACITY,
        extent=(-0.5, width - 0.5, height - 0.5, -0.5),
        interpolation="nearest",
    )
    colours = Colorbar(bar, shown, orientation="horizontal", extend="max" if values.max() > high else "neither")
    colours.set_ticks(shown.get_clim(), labels=[percent(end) if is_probability else f"{end:.2g}" for end in ends])
    first, last = bar.get_xticklabels()
    first.set_horizontalalignment("left")
    last.set_horizontalalignment("right")
