"""Executes the notebooks and writes copies with outputs: `python -m notebooks [NAME ...]`.

The sources are in jupytext's percent format. Times, versions and random ids are left out of the
copies, so that they do not depend on the machine.
"""

import argparse
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import jupytext
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode

HERE = Path(__file__).resolve().parent
EXECUTED = HERE / "executed"
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
_CELL_TIMEOUT_SECONDS = 600
_ANSI_CODES = re.compile(r"\x1b\[[0-9;]*m")


def sources() -> dict[str, Path]:
    """The path of each notebook's source, by name."""
    return {path.stem: path for path in sorted(HERE.glob("*.py")) if not path.stem.startswith("_")}


def read_source(path: Path) -> NotebookNode:
    """A source as a notebook without outputs, with reproducible ids and metadata."""
    notebook = jupytext.read(path)
    notebook.metadata = nbformat.from_dict(METADATA)
    for number, cell in enumerate(notebook.cells):
        cell.id, cell.metadata = f"cell-{number}", NotebookNode()
    return notebook


def execute(path: Path) -> NotebookNode:
    """Runs the cells from top to bottom in an empty folder; returns the notebook with outputs.

    Raises CellExecutionError, with the traceback, if a cell fails.
    """
    notebook = read_source(path)
    with TemporaryDirectory() as folder:
        os.environ.update(
            IPYTHONDIR=f"{folder}/.ipython",  # the kernel's own files are temporary too
            JUPYTER_RUNTIME_DIR=f"{folder}/.jupyter",
            PYTHONWARNINGS="ignore:IProgress not found",  # from tqdm without widgets
        )
        client = NotebookClient(
            notebook,
            kernel_name="python3",
            timeout=_CELL_TIMEOUT_SECONDS,
            record_timing=False,
            coalesce_streams=True,  # printed text may arrive in any number of parts
            resources={"metadata": {"path": folder}},
        )
        # With sockets in the folder, other users of the machine cannot connect to the kernel.
        kernel = client.create_kernel_manager()
        kernel.transport, kernel.ip = "ipc", f"{folder}/kernel"
        client.execute()
    notebook.metadata = nbformat.from_dict(METADATA)  # the kernel adds its version
    return notebook


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the program; returns the exit status."""
    paths = sources()
    parser = argparse.ArgumentParser(prog="python -m notebooks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(paths))
    parser.add_argument("--to", type=Path, default=EXECUTED, help="output folder")
    options = parser.parse_args(arguments)
    unknown = sorted({*options.names} - {*paths})
    if unknown:
        parser.error(f"{unknown[0]}: no such notebook; choose from {', '.join(paths)}")
    options.to.mkdir(parents=True, exist_ok=True)
    for name in options.names or paths:
        try:
            notebook = execute(paths[name])
        except CellExecutionError as error:
            print(f"error: {paths[name].name}: {_ANSI_CODES.sub('', str(error))}", file=sys.stderr)
            return 1
        nbformat.write(notebook, options.to / f"{name}.ipynb")
        print(options.to / f"{name}.ipynb", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
