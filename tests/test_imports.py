"""Packages import in one direction, and the root package has few files."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from itertools import chain
from pathlib import Path

import pytest

import lr_exp

ROOT = Path(lr_exp.__file__).parent

# From the bottom up: a package imports itself and packages of earlier lines only.
LAYERS = (
    ("errors", "contrast", "progress"),
    ("distributed", "micro"),
    ("store",),
    ("config", "report"),
    ("data", "models"),
    ("inference",),
    ("sampler", "evaluator"),
    ("distiller", "tracking"),
    ("pipeline",),
    ("api",),
    ("audit", "bundle", "choose", "claims", "list", "dashboard"),
    ("__main__",),
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
ALIASES = {"__init__"}  # re-exports


def imported(path: Path) -> set[str]:
    """Subpackages and root modules that a file imports, also inside functions."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            base = node.module.split(".")
            if base == ["lr_exp"]:
                names |= {alias.name for alias in node.names}
            elif base[0] == "lr_exp":
                names.add(base[1])
        elif isinstance(node, ast.Import):
            modules = [alias.name.split(".") for alias in node.names]
            names |= {module[1] for module in modules if module[0] == "lr_exp" and len(module) > 1}
    return names - {"__version__"}


def part(path: Path) -> str:
    """The package of a file; the commands of packages are entry points as the program is."""
    if path.stem == "__main__":
        return path.stem
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: path.stem)
def test_a_module_imports_only_from_layers_below_its_own(path):
    name = part(path)
    if name in ALIASES:
        return
    above = {
        other for other in imported(path) - {name} if LEVEL.get(other, len(LAYERS)) >= LEVEL[name]
    }
    assert not above, f"{path.relative_to(ROOT)} imports {sorted(above)}"


def test_every_package_has_a_layer_and_the_root_has_at_most_nine_files():
    folders = {path.name for path in ROOT.iterdir() if (path / "__init__.py").exists()}
    files = {path.stem for path in ROOT.glob("*.py")}
    assert folders | files == set(LEVEL) | ALIASES
    assert len([*ROOT.glob("*.py*")]) <= 9


def test_the_equations_import_no_library_but_torch():
    nodes = ast.walk(ast.parse((ROOT / "contrast.py").read_text("utf-8")))
    roots = {
        (node.module or "") if isinstance(node, ast.ImportFrom) else node.names[0].name
        for node in nodes
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    assert {root.split(".")[0] for root in roots} == {"torch", "math"}


def test_dependencies_are_what_the_package_imports():
    """So that an installation pulls nothing needless and lacks nothing."""
    pyproject = tomllib.loads((ROOT.parent / "pyproject.toml").read_text("utf-8"))["project"]

    def names(requirements):
        return {re.split(r"[^\w-]", one, maxsplit=1)[0].lower() for one in requirements}

    declared = names(pyproject["dependencies"])
    extras = names(chain(*pyproject["optional-dependencies"].values()))
    nodes = [node for path in ROOT.rglob("*.py") for node in ast.walk(ast.parse(path.read_bytes()))]
    modules = {
        name.partition(".")[0]
        for node in nodes
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else [alias.name for alias in node.names]
        )
    } - {"lr_exp", *sys.stdlib_module_names}
    installed = packages_distributions()
    used = {
        package.lower().replace("_", "-")
        for module in modules
        for package in installed.get(module, [module])
    }
    assert declared <= used
    assert used - declared - extras == {
        *("huggingface-hub", "safetensors", "tokenizers"),  # come with transformers
        *("latex2sympy2-extended", "sympy"),  # with math-verify
        "typing-extensions",  # with pydantic
    }
