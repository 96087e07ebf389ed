"""The commands: parse, call the library, show. Heavy libraries are imported inside the command using them."""

import errno
import sys
from pathlib import Path
from typing import Annotated

import typer

from alexnet_cli.console import Console, fail, show, show_json, show_table
from alexnet_cli.errors import AlexNetError, Interrupted
from alexnet_cli.workspace import Workspace

app = typer.Typer(
    name="alexnet",
    help="The 2012 ImageNet network: reproduce it, train it on your own pictures, search with it. "
    "`--debug` after any command shows the traceback of an error.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

WorkspaceOption = Annotated[
    Path,
    typer.Option("--workspace", "-w", help="The folder with data/, models/ and indexes/.", show_default="here"),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
HERE = Path(".")


@app.callback()
def _alexnet() -> None:
    pass


def main(arguments: list[str] | None = None) -> int:
    """Run one command. Returns 0 done, 1 an error (one line said what to do), 2 wrong usage, 130 interrupted."""
    given = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in given
    try:
        return int(app([word for word in given if word != "--debug"], standalone_mode=False) or 0)
    except typer.TyperException as error:
        fail(f"{error.format_message()} (see `alexnet --help`, or `--help` after a command)")
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort, Interrupted) as error:
        fail(str(error) or "interrupted")
        return 130
    except Exception as error:
        if debug:
            raise
        fail(_one_line(error))
        return 1


def _one_line(error: Exception) -> str:
    if isinstance(error, AlexNetError):
        return str(error)
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"the disk is full ({error.filename or 'while writing'}): free some space and run the command again"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    first = (str(error).splitlines() or [""])[0]
    return f"unexpected {type(error).__name__}: {first} (run again with --debug for the traceback)"
