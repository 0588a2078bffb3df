"""Executes the notebooks' sources and writes them with their outputs: `python -m notebooks [NAME]`.

Knows the percent format and Jupyter's kernels; knows nothing of what the notebooks are about. What
differs between two machines (times, paths, versions, ids) is left out of the copies.
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
_SECONDS = 600  # that one cell may take
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def sources() -> dict[str, Path]:
    """Every notebook's source by its name."""
    return {path.stem: path for path in sorted(HERE.glob("*.py")) if not path.stem.startswith("_")}


def read_source(path: Path) -> NotebookNode:
    """A source as a notebook without outputs, its ids and metadata the same everywhere."""
    notebook = jupytext.read(path)
    notebook.metadata = nbformat.from_dict(METADATA)
    for number, cell in enumerate(notebook.cells):
        cell.id, cell.metadata = f"cell-{number}", NotebookNode()
    return notebook


def execute(path: Path) -> NotebookNode:
    """The notebook after its cells ran from top to bottom, in an empty folder.

    Raises:
        CellExecutionError: a cell ended in an error; the message has its traceback.
    """
    notebook = read_source(path)
    with TemporaryDirectory() as folder:
        os.environ.update(
            IPYTHONDIR=f"{folder}/.ipython",  # the kernel's own files go with the folder, too
            JUPYTER_RUNTIME_DIR=f"{folder}/.jupyter",
            PYTHONWARNINGS="ignore:IProgress not found",  # of tqdm, where there are no widgets
        )
        client = NotebookClient(
            notebook,
            kernel_name="python3",
            timeout=_SECONDS,
            record_timing=False,
            resources={"metadata": {"path": folder}},
        )
        # Sockets in the folder: no other user of the machine can talk to the kernel.
        kernel = client.create_kernel_manager()
        kernel.transport, kernel.ip = "ipc", f"{folder}/kernel"
        client.execute()
    notebook.metadata = nbformat.from_dict(METADATA)  # the kernel has added its version
    return notebook


def main(words: Sequence[str] | None = None) -> int:
    """Runs the program; returns the exit status."""
    known = sources()
    parser = argparse.ArgumentParser(prog="python -m notebooks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(known)}; all")
    parser.add_argument("--to", type=Path, default=EXECUTED, help="folder of the executed copies")
    asked = parser.parse_args(words)
    unknown = sorted({*asked.names} - {*known})
    if unknown:
        parser.error(f"{unknown[0]}: no such notebook; there are {', '.join(known)}")
    asked.to.mkdir(parents=True, exist_ok=True)
    for name in asked.names or known:
        try:
            notebook = execute(known[name])
        except CellExecutionError as error:
            print(f"error: {known[name].name}: {_COLOURS.sub('', str(error))}", file=sys.stderr)
            return 1
        nbformat.write(notebook, asked.to / f"{name}.ipynb")
        print(asked.to / f"{name}.ipynb", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
