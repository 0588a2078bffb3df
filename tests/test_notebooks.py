"""The notebooks run, their executed copies are up to date, and they use only the public API.

`make notebooks` updates the copies, in which only numbers may depend on the machine.
"""

import ast
import re
import sys
from pathlib import Path

import nbformat
import pytest

import lr_exp
from notebooks import __main__ as program
from notebooks.__main__ import EXECUTED, METADATA, read_source, sources

ROOT = Path(__file__).resolve().parents[1]
NAMES = list(sources())
THIRD_PARTY = {"matplotlib", "pandas", "torch"}
SUBMODULES = {name for name in lr_exp.__all__ if isinstance(getattr(lr_exp, name), type(lr_exp))}


def cells(notebook) -> list[tuple[str, str]]:
    return [(cell.cell_type, cell.source) for cell in notebook.cells]


def executed_copy(name: str):
    return nbformat.read(EXECUTED / f"{name}.ipynb", as_version=4)


def outputs(notebook) -> list:
    return [one for cell in notebook.cells if cell.cell_type == "code" for one in cell.outputs]


def check_outputs(notebook) -> None:
    """Checks that every cell ran, in order, without an error or output on stderr."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == [*range(1, len(code) + 1)]
    types = {output.output_type for output in outputs(notebook)}
    assert types <= {"stream", "display_data", "execute_result"}
    streams = [output for output in outputs(notebook) if output.output_type == "stream"]
    assert {stream.name for stream in streams} <= {"stdout"}
    formats = [name for output in outputs(notebook) for name in output.get("data", {})]
    assert formats.count("image/png") >= 1
    assert formats.count("text/html") >= 3


def test_there_are_three_notebooks():
    assert NAMES == ["analysis", "tour", "your_own_pair"]
    assert sorted(path.stem for path in EXECUTED.iterdir()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_the_executed_copy_is_complete_up_to_date_and_machine_independent(name):
    notebook = executed_copy(name)
    assert cells(notebook) == cells(read_source(sources()[name])), "run `make notebooks`"
    nbformat.validate(notebook)
    check_outputs(notebook)
    assert notebook.metadata == METADATA
    assert [cell.id for cell in notebook.cells] == [f"cell-{i}" for i in range(len(notebook.cells))]
    assert not any(cell.metadata for cell in notebook.cells)
    path = EXECUTED / f"{name}.ipynb"
    assert path.stat().st_size < 500_000
    texts = [
        output.get("text", "") + output.get("data", {}).get("text/plain", "")
        for output in outputs(notebook)
    ]
    for text in texts:
        assert not re.search(r"(?<![\w.])/\w+/\w|\bC:\\|\d s\b|seconds:|0x[0-9a-f]{6}", text), text


@pytest.mark.parametrize("name", NAMES)
def test_it_uses_only_the_public_api(name):
    tree = ast.parse(sources()[name].read_text("utf-8"))
    exported = {*lr_exp.__all__}
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
        elif isinstance(node, ast.Attribute):
            assert not node.attr.startswith("_"), node.attr
            if isinstance(node.value, ast.Name) and node.value.id == "lr_exp":
                assert node.attr in exported, node.attr
            first, _, rest = ast.unparse(node).removeprefix("lr_exp.").partition(".")
            if first in SUBMODULES and rest.isidentifier():
                assert hasattr(getattr(lr_exp, first), rest), (first, rest)
        elif isinstance(node, ast.Name):
            assert node.id not in ("getattr", "importlib", "__import__", "exec", "eval")


@pytest.mark.parametrize("name", NAMES)
def test_its_links_are_valid_and_it_disables_wandb(name):
    text = sources()[name].read_text("utf-8")
    assert '"wandb.mode=disabled"' in text
    for target in re.findall(r"\]\((?!http)([^)]+)\)", text):
        assert (EXECUTED / target).is_file(), target


@pytest.fixture
def execute(monkeypatch, tmp_path):
    """Executes texts in place of the notebooks; returns the exit status and the copies' folder."""
    for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "PYTHONWARNINGS"):  # the program sets them
        monkeypatch.setenv(name, "")

    def call(**texts: str) -> tuple[int, Path]:
        paths = {name: tmp_path / f"{name}.py" for name in texts}
        for name, path in paths.items():
            path.write_text(texts[name], "utf-8")
        monkeypatch.setattr(program, "sources", lambda: paths)
        return program.main(["--to", str(tmp_path / "to")]), tmp_path / "to"

    return call


# Less work of the same kind; `make notebooks` runs them as they are.
SMALLER = {
    r"(?m)^import lr_exp$": "import gc, lr_exp, lr_exp.report.figures\n"
    "gc.freeze(); lr_exp.report.figures._OF_RUN = ()",  # as in the other tests' runs
    r'"data.max_questions=\d+"': '"data.count=60", "data.max_questions=12", '
    '"sampler.max_new_tokens=96", "evaluator.max_new_tokens=96"',
    r"max_examples=100": 'max_examples=24", "distiller.steps=40", "distiller.learning_rate=1e-3',
    r"max_examples=\d+": "max_examples=8",
    r"distiller.steps=25": "distiller.steps=3",
    r"BETAS, SEEDS = \(0.1, 0.4, 1.6\)": "BETAS, SEEDS = (0.1, 0.4)",
}


@pytest.mark.integration
@pytest.mark.parametrize("name", NAMES)
def test_it_runs_from_top_to_bottom(name, execute):
    text = sources()[name].read_text("utf-8")
    for pattern, smaller in SMALLER.items():
        text = re.sub(pattern, smaller, text)
    status, folder = execute(**{name: text})
    assert status == 0
    notebook = nbformat.read(folder / f"{name}.ipynb", as_version=4)
    check_outputs(notebook)
    # The same outputs as the copy, so that a cell that lost its table is noticed.
    assert [output.output_type for output in outputs(notebook)] == [
        output.output_type for output in outputs(executed_copy(name))
    ]


@pytest.mark.integration
def test_a_failing_cell_is_reported_and_no_copy_is_written(execute, capsys):
    status, folder = execute(broken="# %%\nprint('so far')\n\n# %%\n1 / 0\n")
    assert status == 1
    said = capsys.readouterr().err
    assert "broken.py" in said
    assert "ZeroDivisionError" in said
    assert "\x1b" not in said
    assert not list(folder.iterdir())
    with pytest.raises(SystemExit):
        program.main(["tuor"])
    assert "tuor: no such notebook" in capsys.readouterr().err
