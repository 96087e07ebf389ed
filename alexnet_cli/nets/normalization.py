"""Local response normalization (§3.3), by the paper's formula.

    b_i = a_i / (k + alpha * sum of a_j² over j from max(0, i - n/2) to min(N - 1, i + n/2)) ** beta

alpha is not divided by n. Caffe, ONNX `LRN` and `torch.nn.LocalResponseNorm` divide it by n, so there the same norm has
an alpha that is n times as large.

The denominator is computed in float32 also for maps in half precision. The squares of float16 would overflow, and
bfloat16 has eight bits: next to k = 2, small squares would be rounded away, and the norm would be a constant.
"""

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

# On a CPU the maps are processed in pieces that fit the cache. Each piece is read from memory once; whole-tensor
# operations would read and write the maps some ten times.
PIECE = 1 << 19  # bytes; the fp32 temporaries of half-precision maps are twice as large


class LocalResponseNorm(nn.Module):
    """Normalizes each activation by the n neighbouring maps of its column at the same position."""

    def __init__(self, *, k: float, n: int, alpha: float, beta: float) -> None:
        super().__init__()
        self.k, self.n, self.alpha, self.beta = k, n, alpha, beta
        self.channels_last = False  # the layout of the exported formula: see `formula`

    def forward(self, a: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, H, W), of any floating-point type."""
        if torch.compiler.is_exporting() or a.is_meta:
            return formula(a, self.k, self.n, self.alpha, self.beta, channels_last=self.channels_last)
        normalized: Tensor = _ResponseNorm.apply(a, self.k, self.n, self.alpha, self.beta)
        return normalized

    def extra_repr(self) -> str:
        return f"k={self.k}, n={self.n}, alpha={self.alpha}, beta={self.beta}"


class MapNorm(nn.Module):
    """Response normalization over size × size positions of the same map, as in the recipe `original-2012`."""

    def __init__(self, *, k: float, size: int, alpha: float, beta: float) -> None:
        super().__init__()
        self.k, self.size, self.alpha, self.beta = k, size, alpha, beta

    def forward(self, a: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, H, W)."""
        # The sum over a window is its mean times its number of positions; the maps are padded with zeros.
        mean = nn.functional.avg_pool2d(_wide(a).square(), self.size, stride=1, padding=self.size // 2)
        return (a * (self.k + self.alpha * self.size**2 * mean).pow(-self.beta)).to(a.dtype)


def formula(a: Tensor, k: float, n: int, alpha: float, beta: float, *, channels_last: bool = False) -> Tensor:
    """The formula in whole-tensor operations, which is what is exported: ``a`` (B, C, H, W) to (B, C, H, W).

    One 1×1 convolution with a band matrix as its weights sums over the window, multiplies by alpha and adds k. With
    ``channels_last`` it is a matrix product over that layout instead, which is the layout of quantized convolutions.
    """
    wide = _wide(a)
    window = alpha * band(a.shape[1], n, wide.dtype, wide.device)
    if channels_last:
        wide = wide.permute(0, 2, 3, 1)  # (B, H, W, C)
        scale = (wide * wide) @ window + k
    else:
        scale = nn.functional.conv2d(wide * wide, window[:, :, None, None], wide.new_full((a.shape[1],), k))
    if beta == 0.75:
        root = scale.sqrt()
        normalized = wide / (root * root.sqrt())
    else:
        normalized = wide / scale.pow(beta)
    return (normalized.permute(0, 3, 1, 2) if channels_last else normalized).to(a.dtype)


def band(maps: int, n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The band matrix (maps, maps): 1 where two maps share a window, else 0. A product with it sums over windows."""
    rows = [[float(abs(i - j) <= n // 2) for j in range(maps)] for i in range(maps)]
    return torch.tensor(rows, dtype=dtype, device=device)


def _wide(a: Tensor) -> Tensor:
    """``a`` in float32, if it is in half precision."""
    return a.float() if a.dtype in (torch.float16, torch.bfloat16) else a


_cached_band = lru_cache(maxsize=16)(band)


def _power(scale: Tensor, beta: float) -> Tensor:
    """scale ** -beta. For the paper's 0.75 two roots are ten times as fast as a general power."""
    if beta == 0.75:
        root = scale.rsqrt()
        return root.sqrt().mul_(root)
    return scale.pow(-beta)


class _ResponseNorm(torch.autograd.Function):
    """`formula` in pieces, with its own gradient, for which only the maps and their scales are kept."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, k: float, n: int, alpha: float, beta: float) -> Tensor:
        maps = maps.contiguous(memory_format=torch.channels_last)
        with torch.autocast(maps.device.type, enabled=False):
            normalized = torch.empty_like(maps)
            window = alpha * _cached_band(maps.shape[1], n, _wide(maps[:0]).dtype, maps.device)
            scales = []
            for a, b in zip(_pieces(maps), _pieces(normalized), strict=True):
                a = _wide(a)
                s = torch.mm(a * a, window).add_(k)  # (positions, C)
                b.copy_(_power(s, beta).mul_(a))
                if ctx.needs_input_grad[0]:
                    scales.append(s)
        ctx.save_for_backward(maps, *scales)
        ctx.constants = n, alpha, beta
        return normalized

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        maps, *scales = ctx.saved_tensors
        n, alpha, beta = ctx.constants
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        with torch.autocast(maps.device.type, enabled=False):
            result = torch.empty_like(maps)
            window = 2 * alpha * beta * _cached_band(maps.shape[1], n, _wide(maps[:0]).dtype, maps.device)
            pieces = zip(_pieces(maps), scales, _pieces(gradient), _pieces(result), strict=True)
            for a, s, g, r in pieces:
                a = _wide(a)
                direct = _power(s, beta).mul_(_wide(g))  # the gradient through the numerator
                through_scales = torch.mm((direct * a).div_(s), window)  # and through the scales of all neighbours
                r.copy_(direct.sub_(through_scales.mul_(a)))
        return result, None, None, None, None


def _pieces(maps: Tensor) -> tuple[Tensor, ...]:
    """Channels-last maps (B, C, H, W) as views (positions, C) of at most PIECE bytes each; one view on a GPU."""
    rows = maps.permute(0, 2, 3, 1).view(-1, maps.shape[1])
    fit = max(1, PIECE // (rows.shape[1] * rows.itemsize))
    return torch.split(rows, fit if maps.device.type == "cpu" else len(rows))
