"""The notebooks: they run, their copies are of today's sources, and they use what any user can.

`make notebooks` makes the copies; they hold nothing that differs between machines but numbers.
"""

import ast
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

import lr_exp
from notebooks.__main__ import EXECUTED, METADATA, read_source, sources

ROOT = Path(__file__).resolve().parents[1]
NAMES = list(sources())
THIRD_PARTY = {"matplotlib", "pandas", "torch"}
SUBMODULES = {name for name in lr_exp.__all__ if isinstance(getattr(lr_exp, name), type(lr_exp))}


def cells(notebook) -> list[tuple[str, str]]:
    return [(cell.cell_type, cell.source) for cell in notebook.cells]


def copy_of(name: str):
    return nbformat.read(EXECUTED / f"{name}.ipynb", as_version=4)


def outputs(notebook) -> list:
    return [one for cell in notebook.cells if cell.cell_type == "code" for one in cell.outputs]


def check_outputs(notebook) -> None:
    """Every cell ran, in this order, and none ended in an error or wrote to stderr."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == [*range(1, len(code) + 1)]
    found = outputs(notebook)
    assert {one.output_type for one in found} <= {"stream", "display_data", "execute_result"}
    assert {one.name for one in found if one.output_type == "stream"} <= {"stdout"}
    kinds = [kind for one in found for kind in one.get("data", {})]
    assert kinds.count("image/png") >= 1
    assert kinds.count("text/html") >= 3


def test_there_are_the_three():
    assert NAMES == ["analysis", "tour", "your_own_pair"]
    assert sorted(path.stem for path in EXECUTED.iterdir()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_the_executed_copy_is_of_todays_source(name):
    assert cells(copy_of(name)) == cells(read_source(sources()[name])), "run `make notebooks`"


@pytest.mark.parametrize("name", NAMES)
def test_the_executed_copy_is_whole_and_says_nothing_of_the_machine(name):
    notebook = copy_of(name)
    nbformat.validate(notebook)
    check_outputs(notebook)
    assert notebook.metadata == METADATA
    assert [cell.id for cell in notebook.cells] == [f"cell-{i}" for i in range(len(notebook.cells))]
    assert not any(cell.metadata for cell in notebook.cells)
    path = EXECUTED / f"{name}.ipynb"
    assert path.stat().st_size < 500_000
    texts = [
        one.get("text", "") + one.get("data", {}).get("text/plain", "") for one in outputs(notebook)
    ]
    for text in texts:
        assert not re.search(r"(?<![\w.])/\w+/\w|\bC:\\|\d s\b|seconds:|0x[0-9a-f]{6}", text), text


@pytest.mark.parametrize("name", NAMES)
def test_it_uses_only_what_the_package_exports(name):
    tree = ast.parse(sources()[name].read_text("utf-8"))
    exported, modules = {*lr_exp.__all__}, {"lr_exp"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.partition(".")[0]
                assert alias.name == "lr_exp" or top in THIRD_PARTY | sys.stdlib_module_names
                assert top != "lr_exp" or alias.asname is None
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            assert module == "lr_exp" or module.partition(".")[0] in THIRD_PARTY
            if module == "lr_exp":
                assert {alias.name for alias in node.names} <= exported
                assert not any(alias.asname for alias in node.names)
                modules |= {alias.name for alias in node.names} & SUBMODULES
        elif isinstance(node, ast.Attribute):
            assert not node.attr.startswith("_"), node.attr
            if isinstance(node.value, ast.Name) and node.value.id == "lr_exp":
                assert node.attr in exported, node.attr
        elif isinstance(node, ast.Name):
            assert node.id not in ("getattr", "importlib", "__import__", "exec", "eval")
    # What is taken from an exported submodule is there, too.
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            told = ast.unparse(node)
            first, _, rest = told.removeprefix("lr_exp.").partition(".")
            if first in SUBMODULES and rest.isidentifier():
                assert hasattr(getattr(lr_exp, first), rest), told


@pytest.mark.parametrize("name", NAMES)
def test_it_says_that_nothing_is_to_be_sent(name):
    assert '"wandb.mode=disabled"' in sources()[name].read_text("utf-8")


@pytest.mark.parametrize("name", NAMES)
def test_its_links_lead_somewhere(name):
    for target in re.findall(r"\]\((?!http)([^)]+)\)", sources()[name].read_text("utf-8")):
        assert (EXECUTED / target).is_file(), target


@pytest.mark.parametrize("name", NAMES)
def test_it_runs_from_top_to_bottom(name, tmp_path):
    done = subprocess.run(  # noqa: S603  our own program
        [sys.executable, "-m", "notebooks", name, "--to", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    notebook = nbformat.read(tmp_path / f"{name}.ipynb", as_version=4)
    check_outputs(notebook)
    # As many outputs of the same kinds as the copy has: a cell that lost its table would show.
    assert [one.output_type for one in outputs(notebook)] == [
        one.output_type for one in outputs(copy_of(name))
    ]


def test_a_cell_that_fails_is_told_and_leaves_no_copy(tmp_path, capsys):
    from notebooks import __main__ as program

    source = tmp_path / "broken.py"
    source.write_text("# %%\nprint('so far')\n\n# %%\n1 / 0\n", "utf-8")
    code = (
        "import sys; from pathlib import Path; import notebooks.__main__ as program\n"
        f"program.sources = lambda: {{'broken': Path({str(source)!r})}}\n"
        f"sys.exit(program.main(['--to', {str(tmp_path / 'to')!r}]))"
    )
    done = subprocess.run(  # noqa: S603  our own words
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 1
    assert "broken.py" in done.stderr
    assert "ZeroDivisionError" in done.stderr
    assert "\x1b" not in done.stderr
    assert not list((tmp_path / "to").iterdir())
    with pytest.raises(SystemExit):
        program.main(["tuor"])
    assert "tuor: no such notebook" in capsys.readouterr().err
