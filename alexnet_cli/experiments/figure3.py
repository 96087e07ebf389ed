"""Figure 3: the kernels of the first layer, one block per column, and the mean colour saturation of each block."""

from pathlib import Path

from alexnet_cli.artefacts import model_name
from alexnet_cli.experiments.report import Report, model_sentence
from alexnet_cli.figures.canvas import SUFFIXES, Size
from alexnet_cli.model import Model
from alexnet_cli.visualization.kernels import (
    draw_kernels,
    growth_of,
    kernels_of,
    saturation,
    structure,
    structure_by_chance,
)


def figure3(model: Path, folder: Path, command: str, *, size: Size = Size.page) -> Report:
    """Draw `figure-3.png` and `.svg` and measure the colour saturation of each column's kernels.

    Raises BadArtefact if ``model`` is not the folder of a model or its first kernels are damaged, AlexNetError if it
    does not begin with a convolution.
    """
    loaded = Model.load(model)
    columns = kernels_of(loaded)
    saturations, structures = [saturation(each) for each in columns], [structure(each) for each in columns]
    grown = growth_of(model, columns).kernels
    starts = [structure(each) for each in grown[0]] if grown else [None] * len(columns)
    by_chance = structure_by_chance(columns[0].shape[1:])
    files = [folder / f"figure-3{suffix}" for suffix in SUFFIXES]
    for file in files:
        draw_kernels(columns, file, size, model=model_name(model))
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
        "with which training begins, have 2/3. Structure is the share of a kernel's energy in its strongest wave: "
        f"1 for a wave, 0 for a plain colour, {by_chance:.3f} for random kernels. In the paper one column turned out "
        "nearly grey and the other coloured; it gives no number.",
        command=command,
        facts={
            "saturation": [each.tolist() for each in saturations],
            "structure": [each.tolist() for each in structures],
            "structure_at_the_start": [None if each is None else each.tolist() for each in starts],
            "structure_of_random_kernels": by_chance,
            "model": loaded.fingerprint,
        },
        figures=[file.name for file in files],
    )
    report.write(folder, {loaded.recipe.name: loaded.recipe})
    return report
