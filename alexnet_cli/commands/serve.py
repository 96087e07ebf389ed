"""`alexnet serve`."""

import os
import signal
import sys
from contextlib import suppress
from typing import Annotated

import typer

from alexnet_cli.commands.common import HERE, JsonOption, WorkspaceOption, command_line, refuse_torchrun
from alexnet_cli.console import Console, close_consoles, show, show_json
from alexnet_cli.workspace import Workspace

PORT = 8224


def serve(
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="The address to serve at. Default: this machine alone.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, metavar="N", help="The port; 0 is any free one.")] = PORT,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    workspace: WorkspaceOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Search and browse your pictures on a page.

    Serves the page, for the indexes and models of the workspace, until it is stopped with Ctrl-C. It asks no other
    server for anything.

    Example: alexnet serve --open
    """
    refuse_torchrun("serve")
    from alexnet_cli.errors import AlexNetError
    from alexnet_cli.serving.app import create_app
    from alexnet_cli.serving.server import Server, bind
    from alexnet_cli.serving.thumbnails import cache_folder

    console, space = Console(), Workspace(workspace)
    try:
        address = bind(host, port)
    except AlexNetError as error:
        if error.__cause__ is not None:
            error.add_note(f"stop that one, or try `{command_line('serve', '--port', '0', workspace=workspace)}`")
        raise
    if not address.is_local:
        console.note(
            f"warning: at {host}, everyone who reaches this machine can see all pictures of these indexes and search "
            "them; there is no password, and nothing is encrypted"
        )

    def ready() -> None:
        if as_json:
            show_json({"url": address.url, "host": address.host, "port": address.port, "process": os.getpid()})
        else:
            show(f"serving {address.url} (stop with Ctrl-C)")
        if open_page:
            import webbrowser

            webbrowser.open(address.url)

    app = create_app(space, host=host, cache=cache_folder(), progress=console)
    with suppress(KeyboardInterrupt):  # none comes where the signal is ignored, as in the background of a script
        Server(app, ready).run(sockets=[address.socket])
    console.note("stopped")
    _leave()


def _leave() -> None:
    """End the process now: Python would wait for each thread, and one that decodes a picture cannot be stopped."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    close_consoles()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
