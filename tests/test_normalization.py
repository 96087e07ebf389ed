"""Response norm (§3.3) against the paper's formula in NumPy, torch's own and ONNX Runtime's operator."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper

from alexnet_cli.nets.normalization import PIECE, LocalResponseNorm, formula


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
