"""The errors a user can mend; the entry points print them as one line. Knows nothing else."""

import difflib
from collections.abc import Iterable

_MOST_LISTED = 20


class UserError(ValueError):
    """Something the user gave is wrong; the message says what, where, and what to change."""


def first_line(error: Exception) -> str:
    """What a library's error says first; its kind, where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def nearest(name: str, known: Iterable[str]) -> str:
    """` Did you mean 'x'?` for the known name closest to `name`, else the list of known names."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if close:
        return f" Did you mean {close[0]!r}?"
    if len(names) > _MOST_LISTED:
        return " `python -m lr_exp --help` lists what there is."
    return f" Known: {', '.join(names)}." if names else ""
