"""A YAML group's files as entries: name, what the header says, its facts, and the settings.

Knows YAML and comments; knows nothing of what the settings mean. A header is the comment lines
before the first key: sentences, then facts as `Key: value`, and commands, indented.
"""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from lr_exp.errors import UserError

_FACT = re.compile(r"(Parameters|Questions|Cost): (.+)")
_SENTENCE = re.compile(r"(?<=[.:])\s+(?=[A-Z`])")  # where one ends and the next begins


@dataclass(frozen=True)
class Entry:
    """One option of a group."""

    name: str
    what: str  # the header's first sentence
    facts: dict[str, str]  # lower-case key to value
    content: dict[str, Any]  # the YAML as it stands, nothing composed


def entries(group: Path) -> list[Entry]:
    """Every option of a group's folder, by name."""
    return [_entry(path) for path in sorted(group.glob("*.yaml"))]


def _entry(path: Path) -> Entry:
    text = path.read_text("utf-8")
    told, facts = [], {}
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        line = line.removeprefix("#").removeprefix(" ")
        fact = _FACT.fullmatch(line)
        if fact:
            facts[fact[1].lower()] = fact[2]
        elif not line.startswith((" ", "@package")):
            told.append(line)
    what = _SENTENCE.split(" ".join(told))[0].rstrip(":.")
    return Entry(path.stem, f"{what}." if what else "", facts, load(path))


@cache
def load(path: Path) -> dict[str, Any]:
    """A YAML mapping as it stands: nothing is composed, no `${...}` looked up. To be read only."""
    content = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    if not isinstance(content, dict):
        raise UserError(f"{path}: not a mapping of keys to values.")
    return {str(key): value for key, value in content.items()}
