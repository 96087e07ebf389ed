"""The network against its table in the paper, and against an independent one with grouped convolutions."""

import pytest
import torch
from torch.nn import functional as F

from alexnet_cli import recipe as recipes
from alexnet_cli.errors import BadRecipe
from alexnet_cli.nets.alexnet import AlexNet, Convolutional, Dense, drop, initialize, parameters_by_layer

# A network like the paper's in everything but its size.
NARROW = [
    "conv1.kernels=8",
    "conv2.kernels=12",
    "conv3.kernels=16",
    "conv4.kernels=16",
    "conv5.kernels=8",
    "fc6.units=32",
    "fc7.units=24",
    "response_norm.alpha=0.01",
    "image.crop=100",
]


def narrow(*settings: str) -> AlexNet:
    net = AlexNet(recipes.load("paper", [*NARROW, *settings]), classes=7)
    initialize(net, seed=3)
    return net


def test_the_parameters_are_those_of_the_paper():
    with torch.device("meta"):
        net = AlexNet(recipes.load("paper"), classes=1000)
    assert parameters_by_layer(net) == {
        "conv1": 34_944,
        "conv2": 307_456,
        "conv3": 885_120,
        "conv4": 663_936,
        "conv5": 442_624,
        "fc6": 37_752_832,
        "fc7": 16_781_312,
        "fc8": 4_097_000,
    }
    assert sum(parameter.numel() for parameter in net.parameters()) == 60_965_224


def test_the_maps_have_the_sides_of_the_paper():
    with torch.device("meta"):
        net = AlexNet(recipes.load("paper"), classes=1000)
    net = net.to_empty(device="cpu").eval()
    seen = {}
    for name in ("conv1", "conv2", "conv3", "conv4", "conv5"):
        part = net.parts(name)[0]
        part.convolution.register_forward_hook(lambda _m, _i, out, name=name: seen.update({name: out.shape[1:]}))
        part.register_forward_hook(lambda _m, _i, out, name=name: seen.update({f"{name} out": out.shape[2]}))
    with torch.no_grad():
        logits, fc7 = net(torch.zeros(2, 3, 224, 224))
    assert logits.shape == (2, 1000)
    assert fc7.shape == (2, 4096)
    assert [tuple(seen[f"conv{i}"]) for i in range(1, 6)] == [
        (48, 55, 55),
        (128, 27, 27),
        (192, 13, 13),
        (192, 13, 13),
        (128, 13, 13),
    ]
    assert [seen[f"conv{i} out"] for i in range(1, 6)] == [27, 13, 13, 13, 6]


def test_a_crop_too_small_for_the_layers_is_refused():
    with pytest.raises(BadRecipe, match=r"^image.crop = 15 is too small: nothing is left after conv2$"):
        narrow("image.crop=15")


def test_zeros_are_read_past_the_right_and_bottom_edges_only():
    layer = recipes.load("paper").layers["conv1"]
    part = Convolutional(layer, recipes.load("paper"), 3)
    padded = part._pad(torch.ones(1, 3, 224, 224))
    assert padded.shape[2:] == (227, 227)
    assert padded[0, 0, :224, :224].all()
    assert not padded[0, 0, 224:].any()
    assert not padded[0, 0, :, 224:].any()


def grouped(net: AlexNet, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The same network on one device: grouped convolutions where a column sees its own maps only."""
    norm = net.recipe.response_norm

    def convolution(name: str, maps: torch.Tensor, stride: int, padding: int, groups: int) -> torch.Tensor:
        parts = [part.convolution for part in net.parts(name)]
        weight, bias = torch.cat([part.weight for part in parts]), torch.cat([part.bias for part in parts])
        return F.relu(F.conv2d(maps, weight, bias, stride, padding, groups=groups))

    def normalized(maps: torch.Tensor) -> torch.Tensor:
        halves = [
            F.local_response_norm(half, norm.n, alpha=norm.alpha * norm.n, beta=norm.beta, k=norm.k)
            for half in maps.chunk(2, dim=1)
        ]
        return F.max_pool2d(torch.cat(halves, dim=1), 3, 2, ceil_mode=True)

    def dense(name: str, units: torch.Tensor) -> torch.Tensor:
        parts = [part.linear for part in net.parts(name)]
        return F.relu(F.linear(units, torch.cat([p.weight for p in parts]), torch.cat([p.bias for p in parts])))

    over = (images.shape[2] - 11) % 4
    a = normalized(convolution("conv1", F.pad(images, (0, (4 - over) % 4, 0, (4 - over) % 4)), 4, 0, groups=1))
    a = normalized(convolution("conv2", a, 1, 2, groups=2))
    a = convolution("conv3", a, 1, 1, groups=1)
    a = convolution("conv4", a, 1, 1, groups=2)
    a = F.max_pool2d(convolution("conv5", a, 1, 1, groups=2), 3, 2, ceil_mode=True)
    fc7 = dense("fc7", dense("fc6", a.flatten(1)))
    return net.fc8(fc7), fc7


def test_two_columns_equal_one_network_with_groups():
    net = narrow("conv1.weights=0.05").double().eval()
    images = torch.randn(3, 3, 100, 100, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    outputs = []
    for run in (lambda: net(images), lambda: grouped(net, images)):
        net.zero_grad()
        logits, fc7 = run()
        (logits.sin().sum() + fc7.square().sum()).backward()
        outputs.append([logits, fc7, *(parameter.grad.clone() for parameter in net.parameters())])
    for ours, theirs in zip(*outputs, strict=True):
        assert ours.abs().max() > 0
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


def test_a_column_sees_its_own_maps_except_where_it_exchanges():
    net = narrow().double().eval()
    images = torch.randn(1, 3, 100, 100, dtype=torch.float64)
    changed = dict.fromkeys(net.hidden, False)
    before: dict[str, torch.Tensor] = {}

    def remember(name: str, out: torch.Tensor) -> None:
        changed[name] = name in before and not torch.equal(before[name], out)
        before[name] = out

    for name in net.hidden:
        net.parts(name)[1].register_forward_hook(lambda _m, _i, out, name=name: remember(name, out.detach()))
    net(images)
    with torch.no_grad():
        net.parts("conv1")[0].convolution.weight.mul_(2)  # column 0 changes: when does column 1 notice?
    net(images)
    assert changed == {
        "conv1": False,
        "conv2": False,
        "conv3": True,
        "conv4": True,
        "conv5": True,
        "fc6": True,
        "fc7": True,
    }


def test_initial_weights_and_biases_are_those_of_the_paper():
    net = narrow("fc6.units=512", "fc7.units=512")
    biases = {name: net.parts(name)[-1].state_dict() for name in net.recipe.layers}
    ones = [name for name, state in biases.items() if all((v == 1).all() for k, v in state.items() if "bias" in k)]
    zeros = [name for name, state in biases.items() if all((v == 0).all() for k, v in state.items() if "bias" in k)]
    assert ones == ["conv2", "conv4", "conv5", "fc6", "fc7"]
    assert zeros == ["conv1", "conv3", "fc8"]
    weight = net.parts("fc7")[0].linear.weight
    assert weight.mean().item() == pytest.approx(0, abs=2e-4)
    assert weight.std().item() == pytest.approx(0.01, rel=0.02)


def test_small_data_keeps_the_size_of_the_signal():
    net = AlexNet(recipes.load("small-data", ["fc6.units=512", "fc7.units=512"]), classes=10)
    initialize(net, seed=0)
    weight = net.parts("fc7")[0].linear.weight
    assert weight.std().item() == pytest.approx((2 / 512) ** 0.5, rel=0.02)


def test_initialization_follows_from_the_seed():
    first, second, other = narrow(), narrow(), narrow()
    initialize(other, seed=4)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not torch.equal(first.fc8.weight, other.fc8.weight)


def test_dropout_drops_half_and_doubles_the_rest():
    (dropped,) = drop([torch.ones(64, 1000)], 0.5, seed=1)
    assert set(dropped.unique().tolist()) == {0.0, 2.0}
    assert dropped.mean().item() == pytest.approx(1, abs=0.02)
    (again,) = drop([torch.ones(64, 1000)], 0.5, seed=1)
    (other,) = drop([torch.ones(64, 1000)], 0.5, seed=2)
    assert torch.equal(dropped, again)
    assert not torch.equal(dropped, other)


def test_dropout_does_not_depend_on_how_units_are_split_over_columns():
    (whole,) = drop([torch.ones(8, 100)], 0.5, seed=1)
    halves = drop([torch.ones(8, 50), torch.ones(8, 50)], 0.5, seed=1)
    assert torch.equal(whole, torch.cat(halves, dim=1))


def test_dropout_is_for_training_only():
    net = narrow("conv1.weights=0.05")
    images = torch.randn(2, 3, 100, 100)
    net.eval()
    assert torch.equal(net(images)[0], net(images)[0])
    net.train()
    assert torch.equal(net(images, dropout_seed=1)[0], net(images, dropout_seed=1)[0])
    assert not torch.equal(net(images, dropout_seed=1)[0], net(images, dropout_seed=2)[0])


def test_a_column_of_a_dense_layer_has_half_of_its_units():
    net = narrow()
    assert all(isinstance(part, Dense) and part.linear.out_features == 16 for part in net.parts("fc6"))


def test_the_net_behind_the_tables_orders_its_first_layers_otherwise():
    settings = [*NARROW, "response_norm.alpha=0.02", "map_norm.alpha=0.03", "conv1.weights=0.1", "conv2.weights=0.1"]
    net = AlexNet(recipes.load("original-2012", settings), classes=7).eval()
    initialize(net, seed=3)
    conv1, conv2 = net.parts("conv1")[0], net.parts("conv2")[0]
    images = torch.randn(2, 3, 100, 100, generator=torch.Generator().manual_seed(0)) * 60

    def across(a: torch.Tensor) -> torch.Tensor:
        return F.local_response_norm(a, 5, alpha=0.02 * 5, beta=0.75, k=2.0)

    linear = F.conv2d(F.pad(images, (0, 3, 0, 3)), conv1.convolution.weight, conv1.convolution.bias, 4)
    first = F.relu(F.max_pool2d(across(linear), 3, 2, ceil_mode=True))
    torch.testing.assert_close(conv1(images), first)
    assert (linear < 0).any()  # or the order would not matter
    maps = across(F.relu(F.conv2d(first, conv2.convolution.weight, conv2.convolution.bias, padding=2)))
    squares = F.conv2d(maps.square().flatten(0, 1)[:, None], torch.ones(1, 1, 5, 5), padding=2).view_as(maps)
    within = maps / (1 + 0.03 * squares) ** 0.75
    torch.testing.assert_close(conv2(first), F.max_pool2d(within, 3, 2, ceil_mode=True), rtol=1e-4, atol=1e-5)


def test_torchvisions_net_drops_before_fc6_and_fc7():
    net = AlexNet(recipes.load("torchvision", ["fc6.units=32", "fc7.units=32", "network.dropout=0.9"]), classes=7)
    initialize(net, seed=0)
    seen = {}
    for name in ("fc6", "fc7"):
        net.parts(name)[0].register_forward_hook(lambda _m, i, out, name=name: seen.update({name: (i[0], out)}))
    _, fc7 = net.train()(torch.randn(2, 3, 224, 224) * 60, dropout_seed=1)
    assert seen["fc6"][0].shape[1:] == (256, 6, 6)
    for name in ("fc6", "fc7"):
        zeros = (seen[name][0] == 0).float().mean().item()
        assert zeros > 0.85
    assert torch.equal(fc7, seen["fc7"][1])


def test_one_column_and_no_fc7_still_have_features():
    net = AlexNet(recipes.load("cifar-relu"), classes=10).eval()
    logits, features = net(torch.randn(3, 3, 32, 32))
    assert (logits.shape, features.shape) == ((3, 10), (3, 64 * 4 * 4))
