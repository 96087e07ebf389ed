"""How `--help` is written: plain text in the usual notation, SOURCE where Typer writes {SOURCE} and SOURCE <path>."""

from typing import Any

from typer.core import TyperCommand


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
