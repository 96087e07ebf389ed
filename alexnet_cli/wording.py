"""Words and numbers as people read them."""

from collections.abc import Sequence

ELLIPSIS = "…"


def counted(number: int, noun: str) -> str:
    """ "1 picture", "2,000 pictures", "3 classes"."""
    ending = "" if number == 1 else "es" if noun.endswith("ss") else "s"
    return f"{number:,} {noun}{ending}"


def distances(values: Sequence[float]) -> list[str]:
    """Distances to compare with each other: two decimals, or, if all are less than 1, four."""
    decimals = 4 if 0 < max(values, default=0.0) < 1 else 2
    return [f"{value:.{decimals}f}" for value in values]


def duration(seconds: float) -> str:
    """In seconds, in minutes, or in hours and minutes: "20 s", "12 min", "1 h 05 min"."""
    if round(seconds) < 60:
        return f"{round(seconds)} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"


def shortened(text: str, length: int) -> str:
    """``text`` with an ellipsis in the place of its middle if it has more than ``length`` letters."""
    if len(text) <= length:
        return text
    kept = max(length - 1, 2)
    return text[: kept - kept // 2] + ELLIPSIS + text[-(kept // 2) :]
