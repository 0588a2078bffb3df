"""What a sweep's cells are called: the parts of their folders' names in which they differ.

Knows names alone, of the form `method=neither,seed=0`, in folders or not. A long one was cut within
a part, and one with other signs than these changed; such a name ends with a digest.
"""

import re
from collections.abc import Sequence

_DIGEST = re.compile(r"-[0-9a-f]{12}$")
_LONG = 100  # characters: what is as long and has a digest was cut

_Name = list[list[str]]  # parts, by folder


def short_names(names: Sequence[str]) -> list[str]:
    """Each name without the parts that all of them have; whole where that tells them not apart."""
    split = [[_parts(folder) for folder in name.split("/")] for name in names]
    known = {part for one in split for own in one for part in own}
    shared = {
        part
        for part in known
        if all(_says(part, one, name) for one, name in zip(split, names, strict=True))
    }
    short = [_joined(one, shared) for one in split]
    if len(names) < 2 or not all(short) or len(set(short)) < len(set(names)):
        return list(names)
    return short


def _joined(name: _Name, shared: set[str]) -> str:
    folders = [",".join(part for part in own if part not in shared) for own in name]
    return "/".join(filter(None, folders))


def _says(part: str, name: _Name, whole: str) -> bool:
    """Whether a name has a part, or was cut before it and says nothing else of it."""
    if any(part in own for own in name):
        return True
    key = part.split("=")[0]
    other = any(one.split("=")[0] == key for own in name for one in own)
    return _DIGEST.search(whole) is not None and not other


def _parts(folder: str) -> list[str]:
    """`a=1,b=2` at its commas, without its digest and what was cut in the middle."""
    whole = _DIGEST.sub("", folder)
    parts = whole.split(",")
    return parts[:-1] if whole != folder and len(whole) >= _LONG and parts[1:] else parts
