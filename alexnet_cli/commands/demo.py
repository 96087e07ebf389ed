"""`alexnet demo`."""

import contextlib
import sys
from pathlib import Path
from typing import Annotated

import typer

from alexnet_cli.commands.common import JsonOption, command_line, next_line, refuse_torchrun, resumable
from alexnet_cli.console import show, show_json


def demo(
    workspace: Annotated[
        Path,
        typer.Option("--workspace", "-w", metavar="FOLDER", help="The folder for pictures, dataset, model and index."),
    ] = Path("demo"),
    as_json: JsonOption = False,
) -> None:
    """Run the whole chain on photographs.

    From prep to search it takes a minute or two. The photographs come with scikit-image. Each is a class, and random
    views of it are its pictures. Run again, the command keeps what is finished.

    Example: alexnet demo --workspace demo
    """
    from alexnet_cli.commands import app
    from alexnet_cli.demo import demonstrate

    def run(words: list[str]) -> None:
        if app(words, standalone_mode=False) == 130:  # how Typer returns from Ctrl-C
            raise KeyboardInterrupt

    refuse_torchrun("demo")
    output = contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext()
    with output, resumable(command_line(*sys.argv[1:])):
        done = demonstrate(workspace, run)
    if as_json:
        show_json(done)
        return
    show(f"\ntop-1 error {done['top1_error']:.1%} of {done['images']} views; by chance {done['chance']:.1%}")
    show("Trained and validated on views of the same photographs: this shows the chain, not generalization.")
    show(f"Look at {done['sheet']}, {done['page']} and {done['curves']}")
    show(next_line("serve", "--open", workspace=workspace))
