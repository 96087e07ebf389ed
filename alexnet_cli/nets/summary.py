"""The recipes side by side: what each changes, and how many parameters that makes."""

from typing import Any

import torch

from alexnet_cli import recipe as recipes
from alexnet_cli.nets.alexnet import AlexNet, parameters_by_layer

CLASSES = 1000  # ImageNet's, for parameter counts that can be compared


def describe_recipes() -> list[dict[str, Any]]:
    """Name, what it says, parameters for 1000 classes, published errors, and the lines that differ from `paper`."""
    paper, described = recipes.load("paper"), []
    for name in recipes.names():
        recipe = recipes.load(name)
        with torch.device("meta"):
            net = AlexNet(recipe, CLASSES)
        described.append(
            {
                "name": name,
                "says": recipe.says,
                "parameters": sum(parameters_by_layer(net).values()),
                "published": recipes.published(name),
                "differs": recipes.differences(recipe, paper),
            }
        )
    return described
