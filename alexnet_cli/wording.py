"""Words around numbers."""


def counted(number: int, noun: str) -> str:
    """ "1 picture", "2,000 pictures"; ``noun`` is one whose plural ends in s."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
