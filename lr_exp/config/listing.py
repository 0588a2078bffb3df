"""The program `python -m lr_exp.list [KIND …]`: lists the options of each kind and their costs.

python -m lr_exp.list                  everything
python -m lr_exp.list sweeps           the tables, with their number of runs and cost
python -m lr_exp.list experts --json   the same facts for a script
"""

import argparse
import json
import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

from lr_exp.config.catalogue import KINDS, Row
from lr_exp.config.command_line import check_folder
from lr_exp.config.options import option_folders
from lr_exp.errors import UserError, did_you_mean, guard_tracebacks, print_error

_MAX_COLUMNS, _MIN_COLUMNS = 100, 50
_MIN_DESCRIPTION_COLUMNS = 36  # with fewer beside the facts, a description goes below them

# How to choose each kind, and what holds for all of it.
_USAGE = {
    "experts": "expert=NAME; bf16: size of the weights",
    "amateurs": "amateur=NAME; bf16: size of the weights",
    "methods": "method=NAME",
    "data": "data=NAME data.max_questions=N",
    "benchmarks": "benchmarks=[NAME,NAME]; evaluator.max_examples=N limits each to its first N",
    "experiments": "experiment=NAME",
    "sweeps": "-m +sweep=NAME, then python -m lr_exp.report runs/NAME",
}
_HEADINGS = {"bf16_bytes": "bf16", "examples_from": "examples", "trajectories": "learns from"}
_HIDDEN = {"experiments": ("expert", "amateur", "method", "data"), "sweeps": ("table",)}


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the requested kinds; returns 0, or 1 after an error that was printed."""
    parser = argparse.ArgumentParser(
        prog="python -m lr_exp.list",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("--config-dir", metavar="DIR", help="a folder of your own options")
    parser.add_argument(
        "--json", action="store_true", help="print a JSON object of kinds and their rows"
    )
    args = parser.parse_args(argv)
    try:
        for kind in args.kinds:
            if kind not in KINDS:
                raise UserError(f"{kind!r} is not a kind of option.{did_you_mean(kind, KINDS)}")
        check_folder(args.config_dir)
        folders = option_folders([args.config_dir] if args.config_dir else [])
        rows = {kind: KINDS[kind](folders) for kind in args.kinds or KINDS}
    except UserError as error:
        if os.environ.get("LR_EXP_DEBUG") == "1":
            raise
        print_error(error)
        return 1
    columns = shutil.get_terminal_size((_MAX_COLUMNS, 24)).columns
    width = min(max(columns, _MIN_COLUMNS), _MAX_COLUMNS)
    try:
        print(json.dumps(rows, indent=1) if args.json else _page(rows, width), flush=True)
    except BrokenPipeError:  # as after `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _page(tables: dict[str, list[Row]], width: int) -> str:
    return "\n\n".join(
        "\n".join([*_title(kind, width), *_table(rows, _HIDDEN.get(kind, ()), width)])
        for kind, rows in tables.items()
    )


def _title(kind: str, width: int) -> list[str]:
    return textwrap.wrap(f"{kind} ({_USAGE[kind]})", width, subsequent_indent="  ")


def _table(rows: list[Row], hidden: Sequence[str], width: int) -> list[str]:
    """Aligned facts, with the description beside them or, if there is no room, below."""
    keys = [key for key in rows[0] if key not in (*hidden, "what")]
    cells = [{key: _FORMATS.get(key, _plain)(row[key]) for key in keys} for row in rows]
    headings = {key: _HEADINGS.get(key, key) for key in keys}
    widths = {key: max(len(line[key]) for line in (headings, *cells)) for key in keys}
    below = ["cost"] if "cost" in keys else []  # texts shown with the description
    keys = [key for key in keys if key not in below]
    while sum(widths[key] + 2 for key in keys) > width:
        below.append(keys.pop())
    numbers = {key for key in keys if any(isinstance(row[key], int) for row in rows)}
    used = 2 + sum(widths[key] + 2 for key in keys)
    beside = width - used >= _MIN_DESCRIPTION_COLUMNS
    indent = " " * (used if beside else 6)
    lines = [f"  {_line(headings, keys, widths, numbers)}".rstrip()]
    for row, cell in zip(rows, cells, strict=True):
        text = " ".join([row["what"], *(f"({cell[key]})" for key in below if row[key] is not None)])
        wrapped = textwrap.wrap(text, width, initial_indent=indent, subsequent_indent=indent)
        facts = f"  {_line(cell, keys, widths, numbers)}"
        if beside and wrapped:
            facts, wrapped = f"{facts}{wrapped[0].lstrip()}", wrapped[1:]
        lines += [facts.rstrip(), *wrapped]
    return lines


def _line(
    cell: dict[str, str], keys: Sequence[str], widths: dict[str, int], numbers: set[str]
) -> str:
    return "".join(
        f"{cell[key]:>{widths[key]}}  " if key in numbers else f"{cell[key]:<{widths[key]}}  "
        for key in keys
    )


def _plain(value: Any) -> str:
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def _parameters(count: int | None) -> str:
    if not count:
        return "-"
    return f"{count / 1e9:.3g} B" if count >= 1e9 else f"{count / 1e6:.3g} M"


def _size(count: int | None) -> str:
    if not count:
        return "-"
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


_FORMATS: dict[str, Callable[[Any], str]] = {"parameters": _parameters, "bf16_bytes": _size}

if __name__ == "__main__":
    guard_tracebacks()
    sys.exit(main())
