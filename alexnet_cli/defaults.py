"""The recipe that a dataset is trained with if none is named. Imports no torch."""

from alexnet_cli.artefacts import GREY
from alexnet_cli.data.store import Dataset
from alexnet_cli.errors import BadRecipe

# Side of the dataset's pictures in pixels, least number of them to train on, recipe.
RECIPES = ((256, 100_000, "paper"), (256, 0, "small-data"), (32, 0, "cifar-18"))
IMPORTED_SIZE = 256  # of the pictures that imported models take, in pixels
FEW = 2000  # pictures: with fewer, it is better to fine-tune a model of many than to train from the start


def recipe_for(dataset: Dataset) -> str:
    """The name of the recipe for ``dataset``, by the size and the number of its pictures, and whether they are digits.

    Raises BadRecipe if no recipe takes pictures of that size.
    """
    if dataset.image_size == 32 and dataset.source["layout"] in GREY:
        return "lenet-5"
    for size, least, name in RECIPES:
        if dataset.image_size == size and dataset.counts["train"] >= least:
            return name
    sizes = " or ".join(f"--size {size}" for size in dict.fromkeys(size for size, _, _ in RECIPES))
    raise BadRecipe(
        f"dataset {dataset.name} has pictures of {dataset.image_size} pixels, and no recipe here takes such: "
        f"prep with {sizes}, or name a recipe of your own with --recipe"
    )


def are_few(dataset: Dataset) -> bool:
    """Whether it is better to start from an imported model, and possible."""
    return dataset.counts["train"] < FEW and dataset.image_size == IMPORTED_SIZE
