"""Two columns on two devices: the same network as on one, and nothing crosses but where the paper says."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from test_network import last_operation, narrow
from test_training import Listener, same_weights
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from alexnet_cli.commands import main
from alexnet_cli.errors import BadRecipe, Interrupted
from alexnet_cli.model import Model
from alexnet_cli.nets.columns import drop
from alexnet_cli.nets.network import ColumnNetwork
from alexnet_cli.training.sgd import SGD
from alexnet_cli.training.train import train
from alexnet_cli.training.trainer import Options

CPU = torch.device("cpu")


def grouped(net: ColumnNetwork, images: torch.Tensor, seed: int) -> torch.Tensor:
    """The logits on one device by grouped convolutions and whole layers, in training, from the columns' weights."""
    norm = net.network.operations["response_norm"]

    def whole(name: str) -> tuple[torch.Tensor, torch.Tensor]:
        parts = [list(part.parameters()) for part in net.weighted(name)]
        return torch.cat([weight for weight, _ in parts]), torch.cat([bias for _, bias in parts])

    def convolution(name: str, maps: torch.Tensor, stride: int, padding: int, groups: int) -> torch.Tensor:
        return F.relu(F.conv2d(maps, *whole(name), stride, padding, groups=groups))

    def normalized(maps: torch.Tensor) -> torch.Tensor:
        halves = [
            F.local_response_norm(half, norm.n, alpha=norm.alpha * norm.n, beta=norm.beta, k=norm.k)
            for half in maps.chunk(2, dim=1)
        ]
        return F.max_pool2d(torch.cat(halves, dim=1), 3, 2, ceil_mode=True)

    a = normalized(convolution("conv1", F.pad(images, (0, 3, 0, 3)), 4, 0, groups=1))
    a = normalized(convolution("conv2", a, 1, 2, groups=2))
    a = convolution("conv3", a, 1, 1, groups=1)
    a = convolution("conv4", a, 1, 1, groups=2)
    a = F.max_pool2d(convolution("conv5", a, 1, 1, groups=2), 3, 2, ceil_mode=True).flatten(1)
    for i, name in ((5, "fc6"), (6, "fc7")):
        (a,) = drop([F.relu(F.linear(a, *whole(name)))], 0.5, seed + i)
    return F.linear(a, *whole("fc8"))


def sgd_of(net: ColumnNetwork) -> SGD:
    weights = dict(net.named_parameters())
    return SGD(weights, 0.9, dict.fromkeys(weights, 0.0005))


def test_five_updates_on_two_devices_are_those_of_the_grouped_network_on_one():
    ours, theirs = narrow("conv1.weights=0.05").double(), narrow("conv1.weights=0.05").double()
    ours.to_devices([CPU, CPU]).train()
    random = torch.Generator().manual_seed(0)
    optimizers = [sgd_of(net) for net in (ours, theirs)]
    before = [parameter.clone() for parameter in ours.parameters()]
    for step in range(5):
        images = torch.randn(4, 3, 100, 100, generator=random, dtype=torch.float64)
        labels = torch.randint(7, (4,), generator=random)
        outputs = [ours(images, step)[0], grouped(theirs, images, step)]
        for logits in outputs:
            F.cross_entropy(logits, labels).backward()
        torch.testing.assert_close(*outputs, rtol=1e-10, atol=1e-10)
        for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert mine.grad is not None
            torch.testing.assert_close(mine.grad, other.grad, rtol=1e-10, atol=1e-10)
        for optimizer in optimizers:
            optimizer.step(dict.fromkeys(optimizer.parameters, 0.05))
    for mine, other, old in zip(ours.parameters(), theirs.parameters(), before, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-10, atol=1e-10)
        assert not torch.equal(mine, old)


class Crossings(TorchDispatchMode):
    """Which column each tensor comes from, and every operation in which tensors of different columns meet."""

    def __init__(self) -> None:
        super().__init__()
        self.of = WeakTensorKeyDictionary()
        self.found: list[tuple[str, int]] = []  # what was being computed, and how many numbers met
        self.after = "image"

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        columns = {self.of[tensor] for tensor in tensors if tensor in self.of}
        if len(columns) > 1:
            self.found.append((self.after, sum(tensor.numel() for tensor in tensors)))
        elif columns:
            for leaf in tree_leaves(out):
                if isinstance(leaf, torch.Tensor):
                    self.of[leaf] = next(iter(columns))
        return out


@contextmanager
def watched(net: ColumnNetwork) -> Iterator[Crossings]:
    crossings = Crossings()

    def mark(name: str, column: int, out: torch.Tensor) -> None:
        crossings.of[out] = column  # what a column has made of what it was given is its own
        crossings.after = name

    hooks = [
        last_operation(net, name, column).register_forward_hook(
            lambda _m, _i, out, name=name, column=column: mark(name, column, out)
        )
        for name in net.hidden
        for column in range(len(net.columns))
    ]
    for column, part in enumerate(net.columns):
        for parameter in part.parameters():
            crossings.of[parameter] = column
    with crossings:
        yield crossings
    for hook in hooks:
        hook.remove()


def test_nothing_crosses_but_before_conv3_fc6_fc7_and_fc8():
    net = narrow().to_devices([CPU, CPU]).train()
    with watched(net) as crossings, torch.no_grad():
        net(torch.randn(2, 3, 100, 100), dropout_seed=1)
    assert crossings.found == [
        ("conv2", 2 * 12 * 6 * 6),  # maps of both columns, for conv3
        ("conv5", 2 * 8 * 3 * 3),  # for fc6
        ("fc6", 2 * 32),  # for fc7
        ("fc7", 2 * 24),  # for fc8
        ("fc7", 2 * 24),  # what is given back as fc7
    ]


def test_columns_that_never_communicate_meet_in_the_last_layer_only():
    net = narrow("conv3.input=own", "fc6.input=own", "fc7.input=own").eval()
    with watched(net) as crossings, torch.no_grad():
        net(torch.randn(2, 3, 100, 100))
    assert {after for after, _ in crossings.found} == {"fc7"}


def test_a_run_on_two_devices_is_the_run_on_one_and_can_be_resumed_there(packed, narrow, tmp_path):
    two, one = Options(devices=("cpu", "cpu")), Options()
    whole = train(packed, narrow, tmp_path / "two", options=two)
    assert same_weights(train(packed, narrow, tmp_path / "one", options=one), whole)
    with pytest.raises(Interrupted):
        train(packed, narrow, tmp_path / "moved", options=two, progress=Listener(8))
    assert same_weights(train(packed, narrow, tmp_path / "moved", options=one), whole)
    assert same_weights(Model.load(tmp_path / "two"), whole)


def test_one_device_or_one_per_column(packed, narrow, tmp_path, capsys):
    with pytest.raises(
        BadRecipe, match=r"has 2 columns, which cannot lie on 3 devices: name one device, or one per column"
    ):
        train(packed, narrow, tmp_path / "m", options=Options(devices=("cpu",) * 3))
    single = replace(narrow, network=replace(narrow.network, columns=1))
    with pytest.raises(BadRecipe, match=r"has 1 column, which cannot lie on 2 devices"):
        train(packed, single, tmp_path / "m", options=Options(devices=("cpu",) * 2))
    space = ["--workspace", str(packed.path.parent.parent)]
    assert main(["train", "--devices", "cpu,cpu", "--device", "cpu", *space]) == 2
    assert "give one of --device, --devices and --gpus" in capsys.readouterr().err
    assert main(["train", "--devices", "cpu,nowhere", *space]) == 1
    assert "this machine has no device 'nowhere'" in capsys.readouterr().err
