"""Figure 3: the kernels of the first layer, one block per column, and the mean colour saturation of each block."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from alexnet_cli.artefacts import KERNELS
from alexnet_cli.errors import AlexNetError, BadArtefact
from alexnet_cli.experiments.report import Report, model_sentence
from alexnet_cli.figures.lettering import font
from alexnet_cli.files import atomic_write
from alexnet_cli.model import Model

ACROSS = 16  # kernels in a row
ZOOM, GAP, HEAD = 5, 4, 28  # pixels: per weight, between kernels, above a block


def figure3(model: Path, folder: Path, command: str) -> Report:
    """Draw `figure-3.png` and measure the colour saturation of each column's kernels.

    Raises BadArtefact if ``model`` is not the folder of a model or its first kernels are damaged, AlexNetError if it
    does not begin with a convolution.
    """
    loaded = Model.load(model)
    first = next(iter(loaded.recipe.network.layers))
    weights = [next(module.parameters()) for module in loaded.net.weighted(first)]
    columns = [weight.detach().float().numpy() for weight in weights]  # (K, 3 or 1, h, w) each
    if columns[0].ndim != 4:
        raise AlexNetError(f"figure 3 shows kernels, and {first} of {loaded.recipe.name} is no convolution")
    saturations = [saturation(kernels) for kernels in columns]
    structures = [structure(kernels) for kernels in columns]
    starts = _starts(model, columns)
    by_chance = float(structure(np.random.default_rng(0).standard_normal((1000, *columns[0].shape[1:]))).mean())
    with atomic_write(folder / "figure-3.png") as temporary:
        draw(columns, [float(each.mean()) for each in saturations]).save(temporary, "PNG")
    rows = [
        [
            str(i),
            str(len(kernels)),
            f"{each.mean():.3f}",
            f"{each.min():.3f} to {each.max():.3f}",
            f"{waves.mean():.3f}",
            "" if before is None else f"{before.mean():.3f}",
        ]
        for i, (kernels, each, waves, before) in enumerate(zip(columns, saturations, structures, starts, strict=True))
    ]
    report = Report(
        name="figure-3",
        title="Figure 3: the kernels of the first layer",
        columns=["column", "kernels", "mean colour saturation", "from, to", "structure", "at the start"],
        rows=rows,
        note=f"{model_sentence(loaded, model)} Saturation is the share of a kernel's energy that is not grey: 0 for a "
        "kernel that weighs red, green and blue alike everywhere, 1 for one that only compares them; random kernels, "
        "with which training begins, have 2/3. Structure is the share of a kernel's energy at its strongest spatial "
        f"frequency: 1 for a plain wave, {by_chance:.3f} for random kernels. In the paper one column turned out nearly "
        "grey and the other coloured; it gives no number.",
        command=command,
        facts={
            "saturation": [each.tolist() for each in saturations],
            "structure": [each.tolist() for each in structures],
            "structure_at_the_start": [None if each is None else each.tolist() for each in starts],
            "structure_of_random_kernels": by_chance,
            "model": loaded.fingerprint,
        },
        figures=["figure-3.png"],
    )
    report.write(folder, {loaded.recipe.name: loaded.recipe})
    return report


def _starts(model: Path, columns: list[np.ndarray]) -> list[np.ndarray | None]:
    """The `structure` of the kernels of each column before their first update, if the run kept them."""
    file = model / KERNELS / "0000.npy"
    if not file.is_file():
        return [None] * len(columns)
    try:
        kept = np.load(file)  # (K, C, h, w) float16, column after column
    except (OSError, ValueError) as error:
        raise BadArtefact(f"{file} cannot be read ({error})") from None
    if kept.shape != (sum(map(len, columns)), *columns[0].shape[1:]):
        raise BadArtefact(f"{file} holds kernels of another network")
    return [structure(part.astype(np.float32)) for part in np.split(kept, np.cumsum([*map(len, columns)])[:-1])]


def saturation(kernels: np.ndarray) -> np.ndarray:
    """The share of each kernel's energy (its sum of squares) that is not grey: (K, 3, h, w) to (K,), from 0 to 1.

    The grey part of a kernel has, at each position, the mean of its three colours.
    """
    energy = (kernels**2).sum(axis=(1, 2, 3))
    coloured = ((kernels - kernels.mean(axis=1, keepdims=True)) ** 2).sum(axis=(1, 2, 3))
    return np.asarray(coloured / np.maximum(energy, 1e-30))


def structure(kernels: np.ndarray) -> np.ndarray:
    """The share of each kernel's energy at its strongest spatial frequency: (K, C, h, w) to (K,), from 0 to 1.

    A wave of any direction, phase and colours has 1. A frequency and its opposite are one wave. The mean of a colour,
    which is no wave, counts as a frequency too.
    """
    power = (np.abs(np.fft.fft2(kernels)) ** 2).sum(axis=1)  # (K, h, w)
    opposite = np.roll(power[:, ::-1, ::-1], (1, 1), axis=(1, 2))
    rows, across = (np.arange(side) for side in power.shape[1:])
    own = np.ix_(2 * rows % len(rows) == 0, 2 * across % len(across) == 0)  # frequencies that are their own opposite
    opposite[:, own[0], own[1]] = 0
    waves = power + opposite
    return np.asarray(waves.max(axis=(1, 2)) / np.maximum(power.sum(axis=(1, 2)), 1e-30))


def draw(columns: list[np.ndarray], means: list[float]) -> Image.Image:
    """The kernels (K, 3 or 1, h, w) of each column in rows, one block below the other; middle grey is a weight of 0."""
    side = columns[0].shape[2] * ZOOM
    lines = [-(-len(kernels) // ACROSS) for kernels in columns]
    width = min(ACROSS, max(len(kernels) for kernels in columns)) * (side + GAP) + GAP
    sheet = Image.new("RGB", (max(width, 320), sum(HEAD + count * (side + GAP) + GAP for count in lines)), "white")
    pen, top = ImageDraw.Draw(sheet), 0
    for i, (kernels, count) in enumerate(zip(columns, lines, strict=True)):
        pen.text((GAP, top + 6), f"column {i}: {len(kernels)} kernels, saturation {means[i]:.2f}", "black", font(13))
        for n, kernel in enumerate(kernels):
            scaled = 0.5 + 0.5 * kernel / max(float(np.abs(kernel).max()), 1e-30)
            colours = np.broadcast_to(scaled, (3, *kernel.shape[1:]))  # one channel is grey
            picture = Image.fromarray((255 * colours.transpose(1, 2, 0)).round().astype(np.uint8))
            left, down = GAP + n % ACROSS * (side + GAP), top + HEAD + n // ACROSS * (side + GAP)
            sheet.paste(picture.resize((side, side), Image.Resampling.NEAREST), (left, down))
        top += HEAD + count * (side + GAP) + GAP
    return sheet
