"""MODEL_CARD.md, for whoever is given a model: what it is, where it comes from, how it was measured, its limits."""

import re
import shlex
from typing import TYPE_CHECKING, Any

from alexnet_cli import recipe as recipes
from alexnet_cli.artefacts import RECIPE_FILE
from alexnet_cli.errors import visible
from alexnet_cli.nets.network import parameter_count
from alexnet_cli.recipes import names as packaged_recipes
from alexnet_cli.wording import counted
from alexnet_cli.wordnet import class_names

if TYPE_CHECKING:
    from alexnet_cli.model import Model

SHOWN = 20  # classes that are named
TORCHVISION = "7be5be79"  # the first digits of the SHA-256 of its weights
LICENCES = {  # what those say who published the weights, by the format they are imported from
    "torchvision": "torchvision says that its trained models may have terms that derive from the pictures they were "
    "trained on, and that you must find out whether your use is permitted.",
    "Caffe": "BVLC published its Caffe models for unrestricted use. Other people's weights may have other terms.",
    "ONNX zoo": "The zoo's AlexNet is BVLC's, published for unrestricted use. Other weights may have other terms.",
}


def model_card(model: "Model", name: str) -> str:
    """The card of ``model``, which is called ``name``, in Markdown."""
    origin = _imported if "imported" in model.provenance else _trained
    sections = {
        f"# {name}": _what_it_is(model),
        **origin(model, name),
        "## Limits": [
            f"- It gives every picture one of its {len(model.classes):,} classes, a picture of something else as well.",
            "- It sees the central square of a picture, no larger than "
            f"{model.recipe.image.size}×{model.recipe.image.size} pixels.",
            "- Its errors were measured on pictures like those it was trained on; on others, expect more.",
            "- Its probabilities are not calibrated: 90 % does not mean that nine of ten such answers are right.",
        ],
        "## Licence": [_licence(model)],
    }
    lines = [line for title, text in sections.items() for line in (title, "", *text, "")]
    return "\n".join(map(visible, lines))


def _what_it_is(model: "Model") -> list[str]:
    names = class_names(model.classes, model.words)
    number = recipes.changed(model.recipe)
    changed = f" with {counted(number, 'value')} changed, which `{RECIPE_FILE}` has" if number else ""
    others = f" ... ({len(names):,} in all)" if len(names) > SHOWN else ""
    return [
        f"A network of recipe `{model.recipe.name}`{changed}: {model.recipe.description}. "
        f"{parameter_count(model.net):,} parameters, fingerprint `{model.fingerprint}`.",
        "",
        f"Classes: {', '.join(map(_plain, names[:SHOWN]))}{others}.",
    ]


def _plain(text: str) -> str:
    """``text`` with what Markdown or HTML would read as more than text escaped."""
    return re.sub(r"([\\`*_{}\[\]<>()#!|&~])", r"\\\1", text)


def _trained(model: "Model", name: str) -> dict[str, list[str]]:
    facts = model.provenance
    if "training_images" not in facts:
        return {"## Trained on": ["Nobody recorded it."]}
    tuned = f" It started from the weights of `{facts['from_name'] or facts['from']}`." if facts["from"] else ""
    command = shlex.join(["alexnet", "eval", name, "--data", facts["dataset_name"]])
    views = "Ten views, as in the paper" if model.recipe.views == 10 else "One view, since it saw no mirrored pictures"
    measured = f"{views}: `{command}`."
    if "validation_error" in facts:
        errors = f"{facts['validation_error']:.1%}, top-5 {facts['validation_top5_error']:.1%}"
        measured = f"Error on the validation pictures after the last epoch, one view: {errors}. {measured}"
    kept = ", kept as JPEGs" if facts.get("dataset_store") == "jpeg" else ""
    return {
        "## Trained on": [
            f"The {facts['training_images']:,} training pictures of dataset `{facts['dataset_name']}` (fingerprint "
            f"`{facts['dataset']}`{kept}), for {facts['epochs']} epoch{'s' * (facts['epochs'] != 1)}, which took "
            f"{facts['seconds']:,} seconds on {facts['machine']}.{tuned} {facts['date']}, "
            f"alexnet {facts['version']}, torch {facts['torch']}.",
            "",
            "To train it again:",
            "",
            f"    {_command(model, name)}",
        ],
        "## Measured": [measured],
    }


def _command(model: "Model", name: str) -> str:
    """The command that trains such a model, by a packaged recipe or by the one beside the card."""
    facts, recipe = model.provenance, model.recipe
    file, epochs = f"models/{name}/{RECIPE_FILE}", recipe.training.epochs
    words: list[Any] = ["alexnet", "train", facts["dataset_name"], "--recipe"]
    packaged = recipes.load(recipe.name) if recipe.name in packaged_recipes() else None
    if packaged is not None and packaged.with_training(epochs=epochs) == recipe:
        words += [recipe.name] if packaged == recipe else [recipe.name, "--epochs", epochs]
    else:
        words += [file]
    words += ["--seed", facts["seed"], "--precision", facts["precision"]]
    words += ["--from", facts["from_name"] or facts["from"]] if facts["from"] else []
    return shlex.join(map(str, words))


def _imported(model: "Model", name: str) -> dict[str, list[str]]:
    facts = model.provenance
    measured = f"On a dataset with its classes: `{shlex.join(['alexnet', 'eval', name, '--data', 'DATASET'])}`."
    published = recipes.published(model.recipe.name)
    if facts["sha256"].startswith(TORCHVISION):  # of other files nobody knows whose errors were published
        measured = f"Published for such weights: {recipes.published_line(published)}. {measured}"
    return {
        "## Imported from": [
            f"{facts['imported']}: `{facts['source']}` (SHA-256 `{facts['sha256']}`); {facts['date']}, "
            f"alexnet {facts['version']}.",
            "",
            f"    {shlex.join(['alexnet', 'import', str(facts['source']), '--out', name])}",
        ],
        "## Measured": [measured],
    }


def _licence(model: "Model") -> str:
    """Of the weights."""
    facts = model.provenance
    if "imported" in facts:
        return LICENCES[facts["imported"]]
    tuned = ", and those of the model that it started from" if facts.get("from") else ""
    return f"The terms of the pictures that it was trained on{tuned} may limit how these weights can be used."
