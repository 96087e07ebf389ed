"""`alexnet export`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from alexnet_cli.artefacts import ONNX_FILE
from alexnet_cli.commands import completion
from alexnet_cli.commands.common import HERE, JsonOption, WorkspaceOption, name_of, next_index
from alexnet_cli.console import Console, show, show_json
from alexnet_cli.wording import counted
from alexnet_cli.workspace import Workspace, path_of


class ExportPrecision(StrEnum):
    fp32 = "fp32"
    fp16 = "fp16"
    int8 = "int8"


def export(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL", help="Name or path of a model. Default: the newest.", autocompletion=completion.models
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The file. Default: model.onnx, model.fp16.onnx or model.int8.onnx in the model's folder.",
        ),
    ] = None,
    precision: Annotated[ExportPrecision, typer.Option(help="fp16 is for GPUs, int8 for CPUs.")] = ExportPrecision.fp32,
    workspace: WorkspaceOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Write a model as one ONNX file.

    The file is checked in ONNX Runtime on the CPU first: it has to compute what the network computes.

    Example: alexnet export --precision fp16
    """
    import alexnet_cli as alexnet
    from alexnet_cli.exporting.comparison import COSINE, SAME_CLASS

    console, space = Console(), Workspace(workspace)
    folder = space.find("model", model)
    console.note(f"exporting {folder}")
    result = alexnet.export(folder, out, precision=precision.value, datasets=space.all("dataset"), progress=console)
    if as_json:
        show_json(result.as_json())
        return
    show(f"wrote {result.path}: {result.path.stat().st_size / 1e6:.0f} MB, {precision}")
    show(
        f"largest difference from the network on {counted(result.pictures, 'picture')}: "
        f"{result.probabilities_difference:.1e} in probabilities, {result.features_difference:.1e} in {result.features}"
    )
    for what, agreement in result.agreement.items():
        show(
            f"on {counted(agreement.pictures, f'{what} picture')}: the same class for {agreement.same_class:.1%} "
            f"(needed: {SAME_CLASS:.0%}), cosine of {result.features} {agreement.cosine:.3f} (needed: {COSINE})"
        )
    is_default = result.path == folder / ONNX_FILE and precision == ExportPrecision.fp32
    named = name_of(folder, "model", space) if is_default else path_of(result.path)
    show(next_index(named, result.image_size, space))
