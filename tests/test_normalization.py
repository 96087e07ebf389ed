"""Response norm (§3.3) against the paper's formula in NumPy, torch's own and ONNX Runtime's operator."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper

from alexnet_cli import recipe as recipes
from alexnet_cli.exporting.pictures import synthetic_pictures
from alexnet_cli.nets.network import initialize
from alexnet_cli.nets.normalization import PIECE, LocalResponseNorm, MapNorm, formula


def by_the_paper(a: np.ndarray, k: float, n: int, alpha: float, beta: float) -> np.ndarray:
    b = np.empty_like(a)
    maps = a.shape[1]
    for i in range(maps):
        window = a[:, max(0, i - n // 2) : min(maps - 1, i + n // 2) + 1]
        b[:, i] = a[:, i] / (k + alpha * (window**2).sum(axis=1)) ** beta
    return b


def some_maps(*shape: int) -> torch.Tensor:
    return 20 * torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_the_worked_example():
    norm = LocalResponseNorm(k=0, n=2, alpha=1, beta=1)
    a = torch.tensor([1.0, 1.0, 2.0, 4.0], dtype=torch.float64).view(1, 4, 1, 1)
    assert [round(value, 2) for value in norm(a).flatten().tolist()] == [0.50, 0.17, 0.10, 0.20]


@pytest.mark.parametrize(("k", "n", "alpha", "beta"), [(2, 5, 1e-4, 0.75), (1, 3, 0.1, 0.75), (2, 5, 0.01, 0.6)])
def test_equals_the_formula_of_the_paper(k, n, alpha, beta):
    a = some_maps(3, 11, 5, 4)
    expected = by_the_paper(a.numpy(), k, n, alpha, beta)
    norm = LocalResponseNorm(k=k, n=n, alpha=alpha, beta=beta)
    np.testing.assert_allclose(norm(a).numpy(), expected, rtol=1e-12)
    for channels_last in (False, True):
        np.testing.assert_allclose(
            formula(a, k, n, alpha, beta, channels_last=channels_last).numpy(), expected, rtol=1e-12
        )


@pytest.mark.parametrize("beta", [0.75, 0.6])
def test_the_gradient_is_the_derivative(beta):
    a = torch.randn(2, 7, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert torch.autograd.gradcheck(LocalResponseNorm(k=2, n=5, alpha=0.1, beta=beta), a)


def test_more_positions_than_a_piece_change_nothing():
    a = some_maps(2, 6, 1001, 51).requires_grad_()
    assert a.numel() * a.itemsize > 2 * PIECE
    norm = LocalResponseNorm(k=2, n=5, alpha=0.01, beta=0.75)
    (ours,) = torch.autograd.grad(norm(a).sin().sum(), a)
    (plain,) = torch.autograd.grad(formula(a, 2, 5, 0.01, 0.75).sin().sum(), a)
    torch.testing.assert_close(ours, plain, rtol=1e-12, atol=1e-12)


def test_others_divide_alpha_by_the_window():
    a = some_maps(2, 9, 4, 4).float()
    ours = LocalResponseNorm(k=2, n=5, alpha=1e-4, beta=0.75)(a)
    torch.testing.assert_close(ours, torch.nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2)(a))
    node = helper.make_node("LRN", ["a"], ["b"], size=5, alpha=5e-4, beta=0.75, bias=2.0)
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 9, 4, 4]) for name in "ab"]
    graph = helper.make_graph([node], "lrn", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(ours.numpy(), session.run(None, {"a": a.numpy()})[0], rtol=1e-5, atol=1e-6)


def test_half_precision_does_not_overflow():
    a = torch.full((1, 5, 1, 1), 400.0, dtype=torch.float16)  # 400² is beyond half precision
    b = formula(a, 2.0, 5, 1e-4, 0.75)
    assert b.dtype == torch.float16
    assert b[0, 2, 0, 0].item() == pytest.approx(400 / (2 + 1e-4 * 5 * 400**2) ** 0.75, rel=1e-3)


def test_bf16_is_close():
    a = some_maps(2, 8, 6, 6).float()
    norm = LocalResponseNorm(k=2, n=5, alpha=1e-4, beta=0.75)
    torch.testing.assert_close(norm(a.bfloat16()).float(), norm(a), rtol=0.03, atol=0.03)


def test_the_denominator_is_computed_in_fp32():
    """In bf16, 2 and its neighbour 2.016 are apart by more than what small activations add."""
    a = torch.rand(4, 48, 9, 9, generator=torch.Generator().manual_seed(0)) * 20
    exact = by_the_paper(a.bfloat16().double().numpy(), 2, 5, 1e-4, 0.75)
    norms = (LocalResponseNorm(k=2, n=5, alpha=1e-4, beta=0.75), lambda maps: formula(maps, 2, 5, 1e-4, 0.75))
    for norm in norms:
        b = norm(a.bfloat16())
        assert b.dtype == torch.bfloat16
        # what is left is the rounding of the result: half of 2 ** -7, and not that of the denominator as well
        np.testing.assert_allclose(b.double().numpy(), exact, rtol=2**-8)
    maps = MapNorm(k=1, size=3, alpha=1e-4, beta=0.75)
    np.testing.assert_allclose(maps(a.bfloat16()).double().numpy(), maps(a.bfloat16().double()).numpy(), rtol=2**-8)


def test_the_gradient_in_bf16_is_that_of_fp32():
    a = some_maps(2, 48, 5, 5).bfloat16().float()
    gradients = []
    for maps in (a.bfloat16().requires_grad_(), a.requires_grad_()):
        norm = LocalResponseNorm(k=2, n=5, alpha=1e-3, beta=0.75)
        gradients.append(torch.autograd.grad(norm(maps).float().sum(), maps)[0].float())
    torch.testing.assert_close(*gradients, rtol=0.02, atol=0.005)


@pytest.mark.parametrize(("recipe", "spread"), [("small-data", 1.015), ("tiny", 1.2)])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_the_factor_varies_in_every_layer_from_the_first_update_on(recipe, spread, precision):
    """On inputs of unit size the paper's alpha would give one factor to all activations, within half a percent.

    Where conv1 starts at the paper's 0.01, they spread as little as the paper's own until its kernels have grown.
    """
    made = recipes.load(recipe, ["fc6.units=16", "fc7.units=16"])
    net = initialize(made.build(10), seed=0).eval()
    factors: dict[str, torch.Tensor] = {}

    def keep(name: str, maps: torch.Tensor, normalized: torch.Tensor) -> None:
        active = maps > 0
        factors[name] = (normalized[active].float() / maps[active].float()).flatten()

    for name, module in net.named_modules():
        if isinstance(module, LocalResponseNorm):
            module.register_forward_hook(lambda _m, maps, out, name=name: keep(name, maps[0], out))
    pictures = torch.from_numpy(synthetic_pictures(256)[:4]).float()
    inputs = (pictures - pictures.mean()) / pictures.std()  # (B, S, S, 3)
    with torch.no_grad(), torch.autocast("cpu", precision, enabled=precision != torch.float32):
        net(inputs[:, 16:240, 16:240].permute(0, 3, 1, 2))
    assert len(factors) == 4
    for name, factor in factors.items():
        low, high = (factor.sort().values[int(share * len(factor))].item() for share in (0.05, 0.95))
        assert high > spread * low, name
        assert len(factor.unique()) > 100, name
