"""Inputs that excite units, found by gradient ascent.

It starts from faint noise about the mean image and climbs the gradient of the unit's weighted sum to the pixels. The
weighted sum, because behind a ReLU a unit that is silent has no gradient. Without regularizers the result is fine noise
that no photograph has; three usual ones keep it smooth: an L2 pull, jitter, and a blur every few steps.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from alexnet_cli.errors import NoSuchLayer
from alexnet_cli.inference.network_model import NetworkModel
from alexnet_cli.nets.responses import recording
from alexnet_cli.progress import SILENT, Progress
from alexnet_cli.visualization.strongest import check_layer, map_layers

STEPS = 96  # later ones change little that can be seen
START = 4.0  # grey levels, the standard deviation of the noise: too faint to decide what is found
STEP = 5.0  # grey levels, the root mean square of a step within the field: 50 steps from black to white
PULL = 0.98  # what is left of the picture after each step: pixels that the gradient does not hold up fade in 50 steps
JITTER = 16  # the picture is shifted by at most 1/16 of the field: what is found does not hang on single pixels
BLUR_EVERY, BLUR = 4, (0.1, 0.8, 0.1)  # steps; and the weights along a row and a column: it takes single pixels away
TOGETHER = 16  # units in a batch: bounds memory


@dataclass(frozen=True, kw_only=True, eq=False)
class Ascents:
    """Inputs that excite N units, and the units' responses to them, as in `nets/responses.py`."""

    pictures: list[np.ndarray]  # (h, w, 3) uint8: the receptive field of each unit
    responses: np.ndarray  # (N,) float32, at the end
    started: np.ndarray  # (N,) float32, to the noise


def ascend(
    network: NetworkModel, layer: str, units: Sequence[int], *, seed: int = 0, progress: Progress = SILENT
) -> Ascents:
    """For each of ``units`` of ``layer`` an input that excites it, at the middle of its map.

    A pure function of ``seed``. The pixels stay within those of a picture, 0 to 255. Raises NoSuchLayer if the network
    has no such layer with maps, or if that has no such unit.
    """
    check_layer(network, layer)
    kernels = map_layers(network)[layer].kernels
    if not all(0 <= unit < kernels for unit in units):
        raise NoSuchLayer(f"{layer} has the units 0 to {kernels - 1}")
    pictures, started, ended = list[np.ndarray](), list[np.ndarray](), list[np.ndarray]()
    for start in range(0, len(units), TOGETHER):
        some = units[start : start + TOGETHER]
        climb = _Climb(network, layer, some, seed)
        started.append(climb.responses())
        for step in range(STEPS):
            climb.step(step)
            progress.advance("ascent", start * STEPS + (step + 1) * len(some), len(units) * STEPS)
        ended.append(climb.responses())
        pictures += climb.pictures()
    return Ascents(pictures=pictures, started=np.concatenate(started), responses=np.concatenate(ended))


class _Climb:
    """The ascent of a batch of units, an input each."""

    def __init__(self, network: NetworkModel, layer: str, units: Sequence[int], seed: int) -> None:
        self.net, self.layer, self.units, self.row = network.net, layer, list(units), map_layers(network)[layer]
        preprocessor = network.preprocessor
        image, self.device = preprocessor.image, preprocessor.device
        self.scale = image.unit
        inner = slice(image.border, image.border + image.crop)
        mean = preprocessor.colours(preprocessor.mean_image[inner, inner])
        self.mean = mean.permute(2, 0, 1)  # (C, crop, crop), 0-255
        self.generator = torch.Generator().manual_seed(seed)  # of the jitter, the same for all units
        noise = [  # of each unit its own, whichever others are climbing
            torch.randn(image.shape, generator=torch.Generator().manual_seed(seed + 1 + unit)) for unit in self.units
        ]
        self.inputs = self._within(START / self.scale * torch.stack(noise).to(self.device))  # (N, C, crop, crop)
        self.place = [side // 2 for side in self.row.output[1:]]

    def step(self, number: int) -> None:
        """One step up, by the picture shifted a little."""
        assert self.row.field is not None
        most = min(self.row.field.size, self.inputs.shape[2]) // JITTER
        shift = torch.randint(-most, most + 1, (2,), generator=self.generator).tolist()
        inputs = self.inputs.roll(shift, (2, 3)).requires_grad_()
        (gradient,) = torch.autograd.grad(self._sums(inputs).sum(), inputs)
        seen = (gradient != 0).sum((1, 2, 3), keepdim=True).clamp(min=1)  # the field's pixels
        size = (gradient.square().sum((1, 2, 3), keepdim=True) / seen).sqrt().clamp(min=1e-20)
        moved = inputs.detach() + STEP / self.scale * gradient / size
        moved = PULL * moved.roll([-along for along in shift], (2, 3))
        self.inputs = self._within(_blurred(moved) if number % BLUR_EVERY == 0 else moved)

    def responses(self) -> np.ndarray:
        """The units' responses to the inputs, (N,) float32."""
        with torch.no_grad(), recording(self.net, [self.layer]) as recorded:
            self.net.activations(self.inputs, self.layer)
            maps = torch.cat(recorded[self.layer], dim=1)
        return np.asarray(self._at_place(maps).float().cpu())

    def pictures(self) -> list[np.ndarray]:
        """The field of each unit, (h, w, 3) uint8."""
        field = self.row.field
        assert field is not None
        pixels = (self.inputs * self.scale + self.mean).round().clamp(0, 255).expand(-1, 3, -1, -1)
        starts = [field.start + along * field.stride for along in self.place]
        rows, columns = (slice(max(0, start), max(0, start + field.size)) for start in starts)
        return list(pixels[:, :, rows, columns].permute(0, 2, 3, 1).byte().cpu().numpy())

    def _sums(self, inputs: Tensor) -> Tensor:
        """The weighted sums of the units, each for its own input: (N,)."""
        sums: list[Tensor] = []
        hooks = [
            module.register_forward_hook(lambda _module, _inputs, output: sums.append(output))
            for module in self.net.weighted(self.layer)
        ]
        try:
            self.net.activations(inputs, self.layer)
        finally:
            for hook in hooks:
                hook.remove()
        return self._at_place(torch.cat(sums, dim=1))

    def _at_place(self, maps: Tensor) -> Tensor:
        """(N, K, H, W) to (N,): of input i the value of unit i at the middle."""
        return maps[range(len(self.units)), self.units, self.place[0], self.place[1]]

    def _within(self, inputs: Tensor) -> Tensor:
        """``inputs`` within those that pixels of 0 to 255 give."""
        return inputs.clamp(-self.mean / self.scale, (255 - self.mean) / self.scale)


def _blurred(inputs: Tensor) -> Tensor:
    """Each channel a little smoother, (N, C, H, W)."""
    channels, weights = inputs.shape[1], inputs.new_tensor(BLUR)
    kernel = (weights[:, None] * weights).expand(channels, 1, 3, 3)
    return F.conv2d(F.pad(inputs, (1, 1, 1, 1), mode="replicate"), kernel, groups=channels)
