"""The paths, functions, tests, settings and commands that PAPER.md names exist."""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from lr_exp.claims.declared import SHIPPED, read_claims
from lr_exp.config.composition import check_overrides, conf_dir

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "PAPER.md").read_text("utf-8")
QUOTED = sorted(set(re.findall(r"`([^`\n]+)`", PAGE)))


def quoted(pattern: str) -> list[str]:
    return [text for text in QUOTED if re.fullmatch(pattern, text)]


@pytest.mark.parametrize("name", quoted(r"[\w/]+\.(py|yaml)(::\w+)?"))
def test_its_files_and_functions_exist(name):
    path, _, function = name.partition("::")
    assert (ROOT / path).is_file()
    if function:
        assert f"\ndef {function}(" in (ROOT / path).read_text("utf-8")


@pytest.mark.parametrize("name", quoted(r"(alpha|beta|method|\w+\.[\w.]+)(=\w+)?"))
def test_its_settings_exist(name):
    key, _, value = name.partition("=")
    check_overrides([f"{key}={value or 1}" if key != "method" else "method=lightreasoner"])


@pytest.mark.parametrize("command", quoted(r"python -m lr_exp.*"))
def test_its_commands_are_valid(command):
    program, *words = command.split()[2:]
    assert find_spec(program) is not None
    check_overrides([word for word in words if "=" in word and "NAME" not in word])


def test_every_sweep_is_listed():
    for path in (conf_dir() / "sweep").glob("*.yaml"):
        assert f"`sweeps/{path.name}`" in PAGE, path.name


def test_every_claim_is_listed_with_what_it_needs():
    row = r"^\| .* \| (at (?:least|most) \S+(?: %)?) \|.* no runs \|$"
    rows = re.findall(row, PAGE, re.MULTILINE)
    needs = [claim.needs.removesuffix(" points") for claim in read_claims(SHIPPED).values()]
    assert [row.replace("−", "-") for row in rows] == needs  # noqa: RUF001


def test_files_of_the_architecture_page_and_folders_exist():
    page = (ROOT / "docs/architecture.md").read_text("utf-8")
    for path in re.findall(r"`([\w/]+\.py)`", page):
        assert (ROOT / "lr_exp" / path).is_file() or (ROOT / path).is_file(), path
    assert [folder for folder in quoted(r"[\w/]+/") if not (ROOT / folder).is_dir()] == []


def test_every_equation_is_listed():
    rows = re.findall(r"^\| (\d(?:-\d)?) \|", PAGE, re.MULTILINE)
    assert rows == ["1-2", "3", "4", "5", "6", "7-8"]
