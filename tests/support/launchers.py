"""Marks for launchers whose package may be missing."""

from importlib.metadata import PackageNotFoundError, distribution
from typing import Any

import pytest


def is_installed(name: str) -> bool:
    try:
        distribution(f"hydra-{name.partition('_')[0]}-launcher")
    except PackageNotFoundError:
        return False
    return True


def launcher(name: str, *marks: pytest.MarkDecorator) -> Any:
    extra = name.partition("_")[0]
    skip = pytest.mark.skipif(not is_installed(name), reason=f"needs pip install 'lr_exp[{extra}]'")
    return pytest.param(name, marks=[skip, *marks])
