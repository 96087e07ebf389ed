"""How `--help` is written: plain text in the usual notation, SOURCE where Typer writes {SOURCE} and SOURCE <path>."""

import difflib
import re
from typing import Any

from typer.core import TyperCommand


def meant(message: str, context: Any) -> str:
    """What to type in place of what the ``message`` of a wrong usage refuses; empty if nothing is near.

    ``context``: Typer's, of the command; None if there is none.
    """
    if choice := re.search(r"'(.*?)' is not one of (.*)", message):
        near = difflib.get_close_matches(choice[1], re.findall(r"'(.*?)'", choice[2]), n=1)
        return f"did you mean {near[0]!r}?" if near else ""
    if option := re.match(r"No such option: --(\w+)", message):
        arguments = [each.metavar for each in context.command.params if each.param_type_name == "argument"]
        if (metavar := option[1].upper()) in arguments:
            return f"type {metavar} without --{option[1]}"
    if (extra := re.match(r"Got unexpected extra argument(?:\(s\)|s)? \((\S+)\)", message)) and any(
        "--model" in each.opts for each in context.command.params
    ):
        return f"a model is named by --model {extra[1]}"
    return ""


class Command(TyperCommand):
    """A command whose help names its arguments by their metavar alone."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        pieces = super().collect_usage_pieces(ctx)
        return [piece.replace("{", "").replace("}", "").replace("]...", "...]") for piece in pieces]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        parameters = self.get_params(ctx)
        for title, kind in {"Arguments": "argument", "Options": "option"}.items():
            records = [parameter.get_help_record(ctx) for parameter in parameters if parameter.param_type_name == kind]
            rows = [(name.split(" <")[0] if kind == "argument" else name, text) for name, text in filter(None, records)]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)
