"""The network against its table in the paper, and against an independent one with grouped convolutions."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from alexnet_cli import recipe as recipes
from alexnet_cli.errors import BadRecipe
from alexnet_cli.nets import operations
from alexnet_cli.nets.columns import drop
from alexnet_cli.nets.network import ColumnNetwork, initialize, parameter_count, parameters_by_layer, without_dropout
from alexnet_cli.nets.operations import Dropout

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


def narrow(*settings: str) -> ColumnNetwork:
    return initialize(recipes.load("paper", [*NARROW, *settings]).build(7), seed=3)


def last_operation(net: ColumnNetwork, layer: str, column: int = 0) -> nn.Module:
    """The module whose output leaves a column's part of a layer, before any dropout."""
    return [module for module in net.parts(layer)[column].then if not isinstance(module, nn.Identity)][-1]


def test_the_parameters_are_those_of_the_paper():
    net = recipes.load("paper").build(1000)
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
    net = recipes.load("paper").build(1000).to_empty(device="cpu").eval()
    seen = {}
    for name in ("conv1", "conv2", "conv3", "conv4", "conv5"):
        convolution, last = net.weighted(name)[0], last_operation(net, name)
        convolution.register_forward_hook(lambda _m, _i, out, name=name: seen.update({name: out.shape[1:]}))
        last.register_forward_hook(lambda _m, _i, out, name=name: seen.update({f"{name} out": out.shape[2]}))
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
    message = r"^conv2 gets 4 × 1 × 1 and leaves nothing of it: image.crop is too small for these layers \("
    with pytest.raises(BadRecipe, match=message):
        narrow("image.crop=15")


def test_zeros_are_read_past_the_right_and_bottom_edges_only():
    convolution = recipes.load("paper").network.layers["conv1"].build((3, 224, 224), columns=2)
    image = torch.randn(1, 3, 224, 224)
    padded = F.pad(image, (0, 3, 0, 3))  # 227 × 227
    expected = F.conv2d(padded, convolution.weight, convolution.bias, stride=4)
    assert expected.shape[2:] == (55, 55)
    assert torch.equal(convolution(image), expected)


def grouped(net: ColumnNetwork, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The same network on one device: grouped convolutions where a column sees its own maps only."""
    norm = net.network.operations["response_norm"]

    def convolution(name: str, maps: torch.Tensor, stride: int, padding: int, groups: int) -> torch.Tensor:
        parts = net.weighted(name)
        weight, bias = torch.cat([part.weight for part in parts]), torch.cat([part.bias for part in parts])
        return F.relu(F.conv2d(maps, weight, bias, stride, padding, groups=groups))

    def normalized(maps: torch.Tensor) -> torch.Tensor:
        halves = [
            F.local_response_norm(half, norm.n, alpha=norm.alpha * norm.n, beta=norm.beta, k=norm.k)
            for half in maps.chunk(2, dim=1)
        ]
        return F.max_pool2d(torch.cat(halves, dim=1), 3, 2, ceil_mode=True)

    def dense(name: str, units: torch.Tensor) -> torch.Tensor:
        parts = net.weighted(name)
        return F.relu(F.linear(units, torch.cat([p.weight for p in parts]), torch.cat([p.bias for p in parts])))

    over = (images.shape[2] - 11) % 4
    a = normalized(convolution("conv1", F.pad(images, (0, (4 - over) % 4, 0, (4 - over) % 4)), 4, 0, groups=1))
    a = normalized(convolution("conv2", a, 1, 2, groups=2))
    a = convolution("conv3", a, 1, 1, groups=1)
    a = convolution("conv4", a, 1, 1, groups=2)
    a = F.max_pool2d(convolution("conv5", a, 1, 1, groups=2), 3, 2, ceil_mode=True)
    fc7 = dense("fc7", 0.5 * dense("fc6", a.flatten(1)))  # §4.2: in testing, the outputs of all neurons times 0.5
    return net.fc8(0.5 * fc7), fc7


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
        last = last_operation(net, name, column=1)
        last.register_forward_hook(lambda _m, _i, out, name=name: remember(name, out.detach()))
    net(images)
    with torch.no_grad():
        net.weighted("conv1")[0].weight.mul_(2)  # column 0 changes: when does column 1 notice?
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
    biases = {name: net.weighted(name)[-1].state_dict() for name in net.network.layers}
    ones = [name for name, state in biases.items() if all((v == 1).all() for k, v in state.items() if "bias" in k)]
    zeros = [name for name, state in biases.items() if all((v == 0).all() for k, v in state.items() if "bias" in k)]
    assert ones == ["conv2", "conv4", "conv5", "fc6", "fc7"]
    assert zeros == ["conv1", "conv3", "fc8"]
    weight = net.weighted("fc7")[0].weight
    assert weight.mean().item() == pytest.approx(0, abs=2e-4)
    assert weight.std().item() == pytest.approx(0.01, rel=0.02)


def test_small_data_keeps_the_size_of_the_signal():
    net = initialize(recipes.load("small-data", ["fc6.units=512", "fc7.units=512"]).build(10), seed=0)
    weight = net.weighted("fc7")[0].weight
    assert weight.std().item() == pytest.approx((2 / 512) ** 0.5, rel=0.02)


def test_initialization_follows_from_the_seed():
    first, second, other = narrow(), narrow(), narrow()
    initialize(other, seed=4)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not torch.equal(first.fc8.weight, other.fc8.weight)


def test_dropout_drops_half_and_leaves_the_rest_as_it_is():
    (dropped,) = drop([torch.full((64, 1000), 3.0)], 0.5, seed=1)
    assert set(dropped.unique().tolist()) == {0.0, 3.0}
    (dropped,) = drop([torch.ones(64, 1000)], 0.5, seed=1)
    assert dropped.mean().item() == pytest.approx(0.5, abs=0.01)
    (again,) = drop([torch.ones(64, 1000)], 0.5, seed=1)
    (other,) = drop([torch.ones(64, 1000)], 0.5, seed=2)
    assert torch.equal(dropped, again)
    assert not torch.equal(dropped, other)


def test_so_many_units_are_dropped_as_the_probability_says():
    (dropped,) = drop([torch.ones(64, 1000)], 0.2, seed=1)
    assert (dropped == 0).double().mean().item() == pytest.approx(0.2, abs=0.01)


@pytest.mark.parametrize(
    ("recipe", "training", "testing"),
    [("paper", 1.0, 0.5), ("original-2012", 1.0, 0.5), ("small-data", 2.0, 1.0), ("caffenet", 2.0, 1.0)],
)
def test_what_fc8_gets_in_training_and_in_testing(recipe, training, testing):
    """§4.2: a unit is kept or set to 0, and testing halves the outputs of all; Caffe doubles those that are kept."""
    net = initialize(recipes.load(recipe, NARROW).build(7), seed=3)
    images = torch.randn(4, 3, 100, 100, generator=torch.Generator().manual_seed(0)) * 60
    got: list[torch.Tensor] = []
    net.fc8.register_forward_hook(lambda _module, entering, _out: got.append(entering[0]))
    _, fc7 = net.eval()(images)
    assert torch.equal(got[0], testing * fc7)
    _, fc7 = net.train()(images, dropout_seed=1)
    kept = got[1] != 0
    assert kept.any()
    assert torch.equal(got[1][kept], training * fc7[kept])
    assert ((fc7 > 0) & ~kept).any()


@pytest.mark.parametrize("recipe", ["paper", "no-communication", "caffenet"])
def test_the_factor_of_dropout_is_folded_into_weights_exactly(recipe):
    net = initialize(recipes.load(recipe, NARROW).build(7), seed=3).eval()
    before = {name: weight.clone() for name, weight in net.named_parameters()}
    folded = without_dropout(net)
    assert [one.p for one in folded.network.operations.values() if isinstance(one, Dropout)] == [0]
    images = torch.randn(2, 3, 100, 100, generator=torch.Generator().manual_seed(0)) * 60
    for ours, theirs in zip(folded(images), net(images), strict=True):
        assert torch.equal(ours, theirs)
    assert all(torch.equal(weight, before[name]) for name, weight in net.named_parameters())


def test_dropout_is_the_last_operation_of_its_layer():
    with pytest.raises(BadRecipe, match=r"^network.layers: dropout must be the last operation of fc6$"):
        narrow('fc6.then=["dropout", "relu"]')


def test_a_local_layer_has_a_kernel_of_its_own_at_every_position():
    layer = recipes.load("cifar-13").network.layers["local3"]
    local = layer.build((6, 5, 4), columns=1).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        layer.initialize(local, generator)
    local.bias.data.normal_(generator=generator)
    assert local.weight.shape == (20, 32, 6 * 9)
    assert local.weight.std().item() == pytest.approx(0.04, rel=0.05)
    maps = torch.randn(3, 6, 5, 4, generator=generator, dtype=torch.float64)
    padded = np.pad(maps.numpy(), ((0, 0), (0, 0), (1, 1), (1, 1)))
    expected = np.empty((3, 32, 5, 4))
    for row in range(5):
        for column in range(4):
            kernels = local.weight[4 * row + column].detach().numpy().reshape(32, 6, 3, 3)
            window = padded[:, :, row : row + 3, column : column + 3]
            expected[:, :, row, column] = np.einsum("bcij,kcij->bk", window, kernels)
            expected[:, :, row, column] += local.bias[4 * row + column].detach().numpy()
    np.testing.assert_allclose(local(maps).detach().numpy(), expected, rtol=1e-12)


def test_the_first_layer_takes_the_image_once():
    with pytest.raises(BadRecipe) as caught:
        recipes.load("paper", ["conv1.input=all"])
    assert str(caught.value) == 'network.layers: every column has the whole image, so conv1 must have input = "own"'
    recipes.load("one-gpu", ["conv1.input=all"])  # one column: the same


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
    assert [part.out_features for part in net.weighted("fc6")] == [16, 16]


def test_the_net_behind_the_tables_orders_its_first_layers_otherwise():
    settings = [*NARROW, "response_norm.alpha=0.02", "map_norm.alpha=0.03", "conv1.weights=0.1", "conv2.weights=0.1"]
    net = initialize(recipes.load("original-2012", settings).build(7), seed=3).eval()
    conv1, conv2 = net.weighted("conv1")[0], net.weighted("conv2")[0]
    seen = {}
    for name in ("conv1", "conv2"):
        last_operation(net, name).register_forward_hook(lambda _m, _i, out, name=name: seen.update({name: out}))
    images = torch.randn(2, 3, 100, 100, generator=torch.Generator().manual_seed(0)) * 60

    def across(a: torch.Tensor) -> torch.Tensor:
        return F.local_response_norm(a, 5, alpha=0.02 * 5, beta=0.75, k=2.0)

    net(images)
    linear = F.conv2d(F.pad(images, (0, 3, 0, 3)), conv1.weight, conv1.bias, 4)
    first = F.relu(F.max_pool2d(across(linear), 3, 2, ceil_mode=True))
    torch.testing.assert_close(seen["conv1"], first)
    assert (linear < 0).any()  # or the order would not matter
    maps = across(F.relu(F.conv2d(first, conv2.weight, conv2.bias, padding=2)))
    squares = F.conv2d(maps.square().flatten(0, 1)[:, None], torch.ones(1, 1, 5, 5), padding=2).view_as(maps)
    within = maps / (1 + 0.03 * squares) ** 0.75
    torch.testing.assert_close(seen["conv2"], F.max_pool2d(within, 3, 2, ceil_mode=True), rtol=1e-4, atol=1e-5)


def test_torchvisions_net_drops_before_fc6_and_fc7():
    recipe = recipes.load("torchvision", ["fc6.units=32", "fc7.units=32", "dropout.p=0.9"])
    net = initialize(recipe.build(7), seed=0)
    seen = {}
    for name in ("fc6", "fc7"):
        net.weighted(name)[0].register_forward_hook(lambda _m, i, out, name=name: seen.update({name: (i[0], out)}))
    _, fc7 = net.train()(torch.randn(2, 3, 224, 224) * 60, dropout_seed=1)
    assert seen["fc6"][0].shape[1:] == (256, 6, 6)
    for name in ("fc6", "fc7"):
        zeros = (seen[name][0] == 0).float().mean().item()
        assert zeros > 0.85
    assert torch.equal(fc7, seen["fc7"][1].relu())


def test_one_column_and_no_fc7_still_have_features():
    net = initialize(recipes.load("figure-1-relu").build(10), seed=0).eval()
    assert net.features_name == "conv3"
    logits, features = net(torch.randn(3, 3, 32, 32))
    assert (logits.shape, features.shape) == ((3, 10), (3, 64 * 4 * 4))


LENET_5 = """
description = "LeNet-5: LeCun, Bottou, Bengio and Haffner, 1998"

[image]
size = 32
crop = 32
colour = "grey"

[network]
columns = 1
layers = ["C1", "C3", "C5", "F6", "output"]

[subsampling]
type = "average_pool"
size = 2
stride = 2

[C1]
type = "convolution"
kernels = 6
size = 5
weights = 0.1
bias = 0
then = ["sigmoid", "subsampling"]

[C3]
type = "convolution"
kernels = 16
size = 5
weights = 0.1
bias = 0
then = ["sigmoid", "subsampling"]

[C5]
type = "convolution"
kernels = 120
size = 5
weights = 0.1
bias = 0
then = ["sigmoid"]

[F6]
type = "dense"
units = 84
weights = 0.1
bias = 0
then = ["sigmoid"]

[output]
type = "dense"
units = "classes"
input = "all"
weights = 0.1
bias = 0
then = []

[training]
batch = 8
momentum = 0.9
weight_decay = 0
learning_rate = 0.1
schedule = "linear"
epochs = 2
"""


def test_lenet_5_with_grey_input_and_average_pooling_is_a_recipe_file(tmp_path):
    (tmp_path / "lenet-5.toml").write_text(LENET_5)
    recipe = recipes.load(tmp_path / "lenet-5.toml")
    net = initialize(recipe.build(10), seed=0).eval()
    assert parameter_count(net) == 61_706
    images = torch.randn(2, 1, 32, 32)
    logits, features = net(images)
    a = images
    for name in ("C1", "C3"):
        (layer,) = net.weighted(name)
        a = F.avg_pool2d(torch.sigmoid(F.conv2d(a, layer.weight, layer.bias)), 2)
    (layer,) = net.weighted("C5")
    a = torch.sigmoid(F.conv2d(a, layer.weight, layer.bias)).flatten(1)
    (layer,) = net.weighted("F6")
    a = torch.sigmoid(F.linear(a, layer.weight, layer.bias))
    torch.testing.assert_close(features, a)
    torch.testing.assert_close(logits, F.linear(a, net.output.weight, net.output.bias))
    assert recipes.loads(recipes.dumps(recipe)) == recipe


def test_a_recipe_alone_gives_batch_norm_and_a_pooling_of_its_own_to_a_layer(tmp_path):
    (tmp_path / "mine.toml").write_text(
        'base = "paper"\n[conv1]\nthen = ["batch_norm", "relu", "wide"]\n'
        '[wide]\ntype = "average_pool"\nsize = 5\nstride = 3\n[conv2]\nthen = ["relu", "pooling"]\n'
    )
    recipe = recipes.load(tmp_path / "mine.toml", [line for line in NARROW if not line.startswith("response_norm")])
    net = initialize(recipe.build(7), seed=0)
    images = 60 * torch.randn(4, 3, 100, 100)
    seen = {}
    last_operation(net, "conv1").register_forward_hook(lambda _m, i, out: seen.update(entering=i[0], leaving=out))
    net.train()(images, dropout_seed=1)
    (first, _) = net.weighted("conv1")
    sums = F.conv2d(F.pad(images, (0, 3, 0, 3)), first.weight, first.bias, 4)
    normalized = F.relu(F.batch_norm(sums, None, None, training=True))
    torch.testing.assert_close(seen["entering"], normalized, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(seen["leaving"], F.avg_pool2d(normalized, 5, 3), rtol=1e-4, atol=1e-5)
    assert net.parts("conv1")[0].then[0].running_var.mean() != 1  # it has learned from the batch


def test_names_that_torch_uses_cannot_be_layers(tmp_path):
    (tmp_path / "mine.toml").write_text(LENET_5.replace("F6", "half"))
    with pytest.raises(BadRecipe, match=r"^a layer cannot be called 'half': choose another name$"):
        recipes.load(tmp_path / "mine.toml").build(10)
    (tmp_path / "mine.toml").write_text(LENET_5.replace("output", "columns"))
    with pytest.raises(BadRecipe, match=r"^a layer cannot be called 'columns': choose another name$"):
        recipes.load(tmp_path / "mine.toml").build(10)


def test_another_operation_is_one_registered_class():
    try:

        @operations.OPERATIONS.register("softsign")
        @dataclass(frozen=True, kw_only=True)
        class Softsign(operations.Operation):
            slope: float = 1.0

            def build(self, shape: operations.Shape) -> nn.Module:
                return nn.Softsign()

        net = narrow('fc7.then=["softsign", "dropout"]').eval()
        _, features = net(60 * torch.randn(2, 3, 100, 100))
        assert isinstance(net.parts("fc7")[0].then[0], nn.Softsign)
        assert features.abs().max() < 1
    finally:
        del operations.OPERATIONS["softsign"]
