"""Short names for a sweep's runs: the parts in which their folders' names differ.

Names look like `method=neither,seed=0`, with or without parent folders. A name that was truncated,
or in which special characters were replaced, ends with a digest.
"""

import re
from collections.abc import Sequence

_DIGEST = re.compile(r"-[0-9a-f]{12}$")
_TRUNCATED_LENGTH = 100  # a name of at least this length that has a digest was truncated

_Name = list[list[str]]  # parts, by folder


def short_names(names: Sequence[str]) -> list[str]:
    """Each name without the parts common to all; the full names where these would not be unique."""
    split = [[_parts(folder) for folder in name.split("/")] for name in names]
    shared = {
        part
        for part in {part for name in split for folder in name for part in folder}
        if all(_may_have(part, own, name) for own, name in zip(split, names, strict=True))
    }
    short = [_joined(name, shared) for name in split]
    if len(names) < 2 or not all(short) or len(set(short)) < len(set(names)):
        return list(names)
    return short


def _joined(name: _Name, shared: set[str]) -> str:
    folders = [",".join(part for part in folder if part not in shared) for folder in name]
    return "/".join(filter(None, folders))


def _may_have(part: str, name: _Name, full: str) -> bool:
    """Whether a name has a part, or may have lost it to truncation."""
    if any(part in folder for folder in name):
        return True
    key = part.split("=")[0]
    has_key = any(own.split("=")[0] == key for folder in name for own in folder)
    return _DIGEST.search(full) is not None and not has_key


def _parts(folder: str) -> list[str]:
    """`a=1,b=2` split at its commas, without the digest and a truncated last part."""
    name = _DIGEST.sub("", folder)
    parts = name.split(",")
    truncated = name != folder and len(name) >= _TRUNCATED_LENGTH
    return parts[:-1] if truncated and parts[1:] else parts
