"""Marks for launchers whose package may be missing."""

from importlib.metadata import PackageNotFoundError, distribution
from typing import Any

import pytest

from lr_exp.config import launchers


def is_installed(name: str) -> bool:
    try:
        distribution(launchers._PACKAGES[name][1])
    except PackageNotFoundError:
        return False
    return True


def launcher(name: str, *marks: pytest.MarkDecorator) -> Any:
    extra, _ = launchers._PACKAGES[name]
    skip = pytest.mark.skipif(not is_installed(name), reason=f"needs pip install 'lr_exp[{extra}]'")
    return pytest.param(name, marks=[skip, *marks])
