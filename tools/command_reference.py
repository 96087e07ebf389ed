"""Makes the page of the documentation that has every command's --help. mkdocs calls it while it builds the site."""

import contextlib
import io
import os
import re
from unittest import mock

from alexnet_cli.commands import COMMANDS, main

PAGE = "commands.md"
COLUMNS = "90"


def help_of(command: str) -> str:
    """What `alexnet COMMAND --help` shows."""
    with mock.patch.dict(os.environ, COLUMNS=COLUMNS), contextlib.redirect_stdout(io.StringIO()) as shown:
        main([*command.split(), "--help"])
    return re.sub(rf"Usage: .*? {command}\b", f"Usage: alexnet {command}", shown.getvalue().strip(), count=1)


def reference() -> str:
    """The page, in Markdown: a section for each command, in the order of `alexnet --help`."""
    parts = [
        "# Commands",
        "What `--help` shows of each command. The exit code is 0 if it is done, 1 after an error, 2 for wrong usage, "
        "and 130 if it was interrupted and has saved its work.",
    ]
    parts += [f"## alexnet {command}\n\n```text\n{help_of(command)}\n```" for command in COMMANDS]
    return "\n\n".join(parts) + "\n"


def on_files(files, config):
    """mkdocs asks for more pages before it reads them."""
    from mkdocs.structure.files import File

    files.append(File.generated(config, PAGE, content=reference()))
    return files
