"""The texts under tables and figures, and the notes of pages, from `texts.yaml`."""

from functools import cache
from pathlib import Path

import yaml


def report_text(name: str, **values: object) -> str:
    """A text, with values in the place of names in braces; raises KeyError if there is none."""
    return _texts()[name].format(**values)


@cache
def _texts() -> dict[str, str]:
    return yaml.safe_load(Path(__file__).with_name("texts.yaml").read_text(encoding="utf-8"))
