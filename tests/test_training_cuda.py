"""Training on a GPU, where there is one: what a resumed run keeps, and in which precision it computes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from training_runs import Listener, same_weights

from alexnet_cli.data.store import Dataset
from alexnet_cli.errors import Interrupted
from alexnet_cli.inference.evaluation import evaluate
from alexnet_cli.inference.network_model import NetworkModel
from alexnet_cli.model import Model
from alexnet_cli.recipe import Recipe
from alexnet_cli.training.runs import resume_run
from alexnet_cli.training.train import train
from alexnet_cli.training.trainer import Options

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
CPU, GPU = Options(), Options(devices=("cuda:0",))


def weights(model: Model) -> torch.Tensor:
    return torch.cat([weight.detach().cpu().flatten() for weight in model.net.state_dict().values()])


def assert_near(one: Model, other: Model) -> None:
    """Sums of floats depend on their order: so do the last bits of weights, and a little more after some updates."""
    torch.testing.assert_close(weights(one), weights(other), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_resumed_run_ends_near_the_one_that_was_not_stopped(packed, narrow, tmp_path, precision):
    options = Options(devices=("cuda:0",), precision=precision)
    whole = train(packed, narrow, tmp_path / "whole", options=options)
    with pytest.raises(Interrupted):
        train(packed, narrow, tmp_path / "m", options=options, progress=Listener(1))
    assert_near(whole, resume_run(tmp_path / "m", options=options))


@pytest.mark.parametrize(("first", "then"), [(CPU, GPU), (GPU, CPU)])
def test_a_run_changes_its_device(packed, narrow, tmp_path, first, then):
    """Dropout's masks are drawn on the device, and differ between CPU and GPU: without it the runs are the same."""
    whole = train(packed, without_dropout(narrow), tmp_path / "whole", options=first)
    with pytest.raises(Interrupted):
        train(packed, without_dropout(narrow), tmp_path / "m", options=first, progress=Listener(1))
    assert_near(whole, resume_run(tmp_path / "m", options=then))


def without_dropout(recipe: Recipe) -> Recipe:
    from alexnet_cli import recipe as recipes

    return recipes.adjust(recipe, ['fc6.then=["relu"]', 'fc7.then=["relu"]'])


def test_a_finished_run_opens_on_the_cpu_with_the_same_weights(packed, narrow, tmp_path):
    model = train(packed, narrow, tmp_path / "m", options=GPU)
    loaded = Model.load(tmp_path / "m")
    assert loaded.fingerprint == model.fingerprint
    assert np.array_equal(weights(model), weights(loaded))


def test_fp32_takes_no_tf32(packed, narrow, tmp_path):
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    model = train(packed, narrow, tmp_path / "m", options=GPU)
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32
    images = packed.split("val").read(np.arange(8))
    on_gpu = NetworkModel.of(model, "cuda:0").run(images)
    on_cpu = NetworkModel.of(Model.load(tmp_path / "m"), "cpu").run(images)
    for one, other in zip(on_gpu, on_cpu, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)  # of TF32: 1e-3


def test_bf16_trains_and_keeps_its_weights_in_fp32(packed, narrow, tmp_path):
    options = Options(devices=("cuda:0",), precision="bf16")
    model = train(packed, narrow.with_training(epochs=8), tmp_path / "m", options=options)
    assert {weight.dtype for weight in model.net.state_dict().values()} == {torch.float32}
    assert evaluate([NetworkModel.of(model, "cuda:0")], packed, views=1).top1 <= 0.2  # chance is 0.67


def test_the_same_seed_starts_from_the_same_weights_everywhere(packed: Dataset, narrow: Recipe, tmp_path: Path):
    still = narrow.with_training(learning_rate=1e-30, weight_decay=0.0, epochs=1)
    models = [train(packed, still, tmp_path / name, options=options) for name, options in {"c": CPU, "g": GPU}.items()]
    assert same_weights(*(Model.load(model.path) for model in models))
