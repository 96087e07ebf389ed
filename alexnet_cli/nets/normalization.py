"""Local response normalization (§3.3), by the paper's formula.

    b_i = a_i / (k + alpha * sum of a_j² over j from max(0, i - n/2) to min(N - 1, i + n/2)) ** beta

alpha is not divided by n here; Caffe, ONNX `LRN` and `torch.nn.LocalResponseNorm` divide: there it is n times as large.
"""

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

# On a CPU the maps are worked through in pieces that stay in the cache: each piece is read from memory once, where
# whole-tensor operations would read and write the maps some ten times.
PIECE = 2 << 20  # bytes


class LocalResponseNorm(nn.Module):
    """Normalizes each activation by those of the n neighbouring maps at the same position, within a column."""

    def __init__(self, *, k: float, n: int, alpha: float, beta: float) -> None:
        super().__init__()
        self.k, self.n, self.alpha, self.beta = k, n, alpha, beta
        self.by_rows = False  # how it is exported

    def forward(self, a: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, H, W), any floating type."""
        if torch.compiler.is_exporting() or a.is_meta:
            return formula(a, self.k, self.n, self.alpha, self.beta, by_rows=self.by_rows)
        normalized: Tensor = _Fast.apply(a, self.k, self.n, self.alpha, self.beta)
        return normalized

    def extra_repr(self) -> str:
        return f"k={self.k}, n={self.n}, alpha={self.alpha}, beta={self.beta}"


class MapNorm(nn.Module):
    """Normalizes each activation by those around it in the same map, over size x size positions (original-2012)."""

    def __init__(self, *, k: float, size: int, alpha: float, beta: float) -> None:
        super().__init__()
        self.k, self.size, self.alpha, self.beta = k, size, alpha, beta

    def forward(self, a: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, H, W)."""
        # A window's mean times its size is its sum; past the edges are zeros.
        mean = nn.functional.avg_pool2d(a * a, self.size, stride=1, padding=self.size // 2)
        return a * (self.k + self.alpha * self.size**2 * mean).pow(-self.beta)


def formula(a: Tensor, k: float, n: int, alpha: float, beta: float, *, by_rows: bool = False) -> Tensor:
    """The formula in whole-tensor operations, as it is exported; in half precision the squares would overflow.

    A 1×1 convolution whose weights are a band sums over the window, scales by alpha and adds k, all in one. ``by_rows``
    goes through rows of maps instead, channels last, as quantized convolutions give and take them.
    """
    wide = a.float() if a.dtype == torch.float16 else a
    window = alpha * band(a.shape[1], n, wide.dtype, wide.device)
    if by_rows:
        wide = wide.permute(0, 2, 3, 1)  # (B, H, W, C)
        scale = (wide * wide) @ window + k
    else:
        scale = nn.functional.conv2d(wide * wide, window[:, :, None, None], wide.new_full((a.shape[1],), k))
    if beta == 0.75:
        root = scale.sqrt()
        normalized = wide / (root * root.sqrt())
    else:
        normalized = wide / scale.pow(beta)
    return (normalized.permute(0, 3, 1, 2) if by_rows else normalized).to(a.dtype)


def band(maps: int, n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """1 where two maps are neighbours, else 0: multiplying by it sums over the window. (maps, maps)"""
    rows = [[float(abs(i - j) <= n // 2) for j in range(maps)] for i in range(maps)]
    return torch.tensor(rows, dtype=dtype, device=device)


_kept_band = lru_cache(maxsize=16)(band)


def _power(scale: Tensor, beta: float) -> Tensor:
    """scale ** -beta; for the paper's 0.75 by two roots, ten times as fast as a general power."""
    if beta == 0.75:
        root = scale.rsqrt()
        return root.sqrt().mul_(root)
    return scale.pow(-beta)


class _Fast(torch.autograd.Function):
    """The same with a gradient of its own: only the maps and their scale are kept for it."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, k: float, n: int, alpha: float, beta: float) -> Tensor:
        maps = maps.contiguous(memory_format=torch.channels_last)
        with torch.autocast(maps.device.type, enabled=False):
            normalized = torch.empty_like(maps)
            window = alpha * _kept_band(maps.shape[1], n, maps.dtype, maps.device)
            scales = []
            for a, b in zip(_pieces(maps), _pieces(normalized), strict=True):
                s = torch.mm(a * a, window).add_(k)  # (positions, C)
                torch.mul(a, _power(s, beta), out=b)
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
            window = 2 * alpha * beta * _kept_band(maps.shape[1], n, maps.dtype, maps.device)
            pieces = zip(_pieces(maps), scales, _pieces(gradient), _pieces(result), strict=True)
            for a, s, g, r in pieces:
                direct = g * _power(s, beta)  # through the numerator
                through_scales = torch.mm((direct * a).div_(s), window)  # of every neighbour
                torch.sub(direct, through_scales.mul_(a), out=r)
        return result, None, None, None, None


def _pieces(maps: Tensor) -> tuple[Tensor, ...]:
    """Channels-last maps (B, C, H, W) as views (positions, C), in pieces that fit the cache, whole on a GPU."""
    rows = maps.permute(0, 2, 3, 1).view(-1, maps.shape[1])
    fit = max(1, PIECE // (rows.shape[1] * rows.itemsize))
    return torch.split(rows, fit if maps.device.type == "cpu" else len(rows))
