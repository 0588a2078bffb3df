"""The texts under tables and figures, and the notes of pages, from `texts.yaml`."""

from functools import cache
from importlib.resources import files

import yaml


def text_of(name: str, **values: object) -> str:
    """A text, with values in the place of the names in its braces."""
    return _texts()[name].format(**values)


@cache
def _texts() -> dict[str, str]:
    return yaml.safe_load((files("lr_exp.report") / "texts.yaml").read_text(encoding="utf-8"))
