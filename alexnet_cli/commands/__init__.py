"""The command line: one module per command, and what holds for all of them, such as exit codes."""

import errno
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Annotated, Any

import typer

import alexnet_cli
from alexnet_cli.commands import (
    demo,
    duplicates,
    evaluate,
    export,
    features,
    import_,
    index,
    info,
    predict,
    prep,
    recipes,
    reproduce,
    search,
    serve,
    train,
)
from alexnet_cli.commands.usage import Command, meant
from alexnet_cli.commands.visualize import augmentation, curves, embedding, kernels, maps, saliency, units, views
from alexnet_cli.console import close_consoles, fail, show, use_any_encoding
from alexnet_cli.distributed import is_distributed
from alexnet_cli.errors import AlexNetError, Interrupted, LostProcess, first_line

GROUPS = {"visualize": "Draw what a network sees, as PNG or SVG."}
COMMANDS: dict[str, Callable[..., Any]] = {  # of two words: of a group
    "prep": prep.prep,
    "train": train.train,
    "eval": evaluate.evaluate,
    "export": export.export,
    "predict": predict.predict,
    "index": index.index,
    "search": search.search,
    "duplicates": duplicates.duplicates,
    "features": features.features,
    "serve": serve.serve,
    "visualize kernels": kernels.kernels,
    "visualize maps": maps.maps,
    "visualize saliency": saliency.saliency,
    "visualize units": units.units,
    "visualize views": views.views,
    "visualize augmentation": augmentation.augmentation,
    "visualize embedding": embedding.embedding,
    "visualize curves": curves.curves,
    "recipes": recipes.recipes,
    "info": info.info,
    "import": import_.import_weights,
    "reproduce": reproduce.reproduce,
    "demo": demo.demo,
}


def build_app(commands: dict[str, Callable[..., Any]]) -> typer.Typer:
    """The application with ``commands``, in this order."""
    app = typer.Typer(
        name="alexnet",
        help="The 2012 ImageNet network: reproduce it, train it on your own pictures, search with it.\n\n"
        "After any command, --help shows its options and --debug the traceback of an error.",
        no_args_is_help=True,
        context_settings={"help_option_names": ["-h", "--help"]},
        pretty_exceptions_enable=False,
        rich_markup_mode=None,  # plain text, which fits 60 columns
    )
    app.callback()(_options)
    groups = {"": app}
    for name, function in commands.items():
        group, _, word = name.rpartition(" ")
        if group not in groups:
            groups[group] = typer.Typer(help=GROUPS[group], no_args_is_help=True, rich_markup_mode=None)
            app.add_typer(groups[group], name=group)
        groups[group].command(name=word, cls=Command)(function)
    return app


def _show_version(wanted: bool) -> None:
    if wanted:
        show(f"alexnet {alexnet_cli.__version__}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    pass


app = build_app(COMMANDS)


def main(arguments: list[str] | None = None, app: typer.Typer = app) -> int:
    """Run one command. Returns the exit code: 0 done, 1 an error, 2 wrong usage, 130 interrupted."""
    given = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in given
    use_any_encoding()
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _interrupt)
    try:
        words = [word for word in given if word != "--debug"] or ["--help"]
        words += ["--help"] if words in [[group] for group in GROUPS] else []
        try:
            code = int(app(words, standalone_mode=False) or 0)
        finally:
            close_consoles()
        sys.stdout.flush()
        if code == 130:  # typer returns this after Ctrl-C and prints nothing
            raise KeyboardInterrupt
        return code
    except typer.TyperException as error:
        message = " ".join(error.format_message().split())  # the choices of an argument come one a line
        message = message.replace(": Value error, ", ": ").removeprefix("Invalid value: ")
        message = message.replace(" (Possible options: --help)", "")  # near to any --h…
        if advice := meant(message, getattr(error, "ctx", None)):
            message = f"{message.removesuffix('.')}: {advice}"
        fail(f"{message} (see `alexnet --help`, or `--help` after a command)")
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort, Interrupted) as error:
        fail("; ".join([str(error) or "interrupted", *_notes(error)]))
        return 130
    except (BrokenPipeError, SystemExit) as error:  # the next program of the pipe, such as head, has read enough
        if not any(isinstance(one, BrokenPipeError) for one in (error, error.__context__)):  # Typer exits with 1 then
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if debug:
            raise
        fail(_one_line(error))
        return 1


def _interrupt(_number: int, _frame: object) -> None:
    """SIGTERM does what Ctrl-C does. Under torchrun it tells that another process of the run has ended."""
    if is_distributed():
        error = LostProcess("torchrun ended this process, as it does when another process of a run is lost")
        error.add_note("run the same command again")
        raise error
    raise KeyboardInterrupt


def _notes(error: BaseException) -> list[str]:
    """What a command has added to ``error``: how to go on."""
    return list(getattr(error, "__notes__", []))


def _one_line(error: Exception) -> str:
    """The reason, and how to go on."""
    reason, notes = _reason(error), _notes(error)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT) and not notes:
        return f"{reason} and run the command again"
    return "; ".join([reason, *notes])


def _reason(error: Exception) -> str:
    if isinstance(error, AlexNetError):
        return str(error)
    if isinstance(error, MemoryError):
        return "out of memory: close other programs, or run it on a machine with more"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk is full ({error.filename or 'while writing'}): free some space"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return f"unexpected {type(error).__name__}: {first_line(error)} (run again with --debug for the traceback)"
