"""Marks published numbers whose settings differ from ours."""

from collections.abc import Iterable, Sequence

from lr_exp.report.names import ABSENT
from lr_exp.report.repeats import grouped
from lr_exp.report.rows import Row

_ASTERISK = "*"


def asterisked(cell: str, differs: Sequence[object]) -> str:
    """A published number, with an asterisk if our run has other settings."""
    return f"{cell}{_ASTERISK}" if differs and cell != ABSENT else cell


def differing(labelled: Iterable[tuple[str, tuple[str, ...]]]) -> list[str]:
    """The notes that the asterisks refer to: one for all labels with the same differences.

    Args:
        labelled: pairs of a label and its differences.
    """
    notes = []
    for differs, labels in grouped(labelled, lambda pair: pair[1]).items():
        if differs:
            names = ", ".join(dict.fromkeys(label for label, _ in labels))
            notes.append(f"{_ASTERISK} {names}: ours {'; ours '.join(differs)}.")
    return notes


def differing_rows(rows: Iterable[Row]) -> list[str]:
    """The notes for rows with a published number."""
    return differing([(f"{row.label} of {row.setup.expert}", row.differs) for row in rows])
