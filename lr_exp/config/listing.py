"""The program `python -m lr_exp.list [KIND …]`: what there is to choose from, and what it costs.

    python -m lr_exp.list                  everything
    python -m lr_exp.list sweeps           the tables, with their runs and what they take
    python -m lr_exp.list experts --json   the same facts for a script

Knows columns and the terminal; the facts come from `lr_exp.catalogue`.
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

_WIDEST, _NARROWEST = 100, 50  # columns
_BESIDE = 36  # columns that a description needs to stand beside its facts

# What each kind is chosen with, and what else is to be known of all of it.
_CHOSEN_WITH = {
    "experts": "expert=NAME; bf16: weights alone",
    "amateurs": "amateur=NAME; bf16: weights alone",
    "methods": "method=NAME",
    "data": "data=NAME data.max_questions=N",
    "benchmarks": "benchmarks=[NAME,NAME]; evaluator.max_examples=N takes the first N",
    "experiments": "experiment=NAME",
    "sweeps": "-m +sweep=NAME, then python -m lr_exp.report runs/NAME",
}
_HEADS = {"bf16_bytes": "bf16", "examples_from": "examples", "trajectories": "learns from"}
_NOT_SHOWN = {"experiments": ("expert", "amateur", "method", "data"), "sweeps": ("table",)}


def main(words: Sequence[str] | None = None) -> int:
    """Prints what was asked for; returns 0, or 1 after an error that was printed in one line."""
    parser = argparse.ArgumentParser(
        prog="python -m lr_exp.list",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("--config-dir", metavar="DIR", help="lists your own options there, too")
    parser.add_argument("--json", action="store_true", help="one object, kind to rows")
    asked = parser.parse_args(words)
    try:
        for kind in asked.kinds:
            if kind not in KINDS:
                raise UserError(f"{kind!r} is no kind of thing to list.{did_you_mean(kind, KINDS)}")
        check_folder(asked.config_dir)
        folders = option_folders([asked.config_dir] if asked.config_dir else [])
        found = {kind: KINDS[kind](folders) for kind in asked.kinds or KINDS}
    except UserError as error:
        if os.environ.get("LR_EXP_DEBUG") == "1":
            raise
        print_error(error)
        return 1
    width = max(_NARROWEST, min(_WIDEST, shutil.get_terminal_size((_WIDEST, 24)).columns))
    try:
        print(json.dumps(found, indent=1) if asked.json else _page(found, width), flush=True)
    except BrokenPipeError:  # whoever reads has enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _page(found: dict[str, list[Row]], width: int) -> str:
    return "\n\n".join(
        "\n".join([*_title(kind, width), *_table(rows, _NOT_SHOWN.get(kind, ()), width)])
        for kind, rows in found.items()
    )


def _title(kind: str, width: int) -> list[str]:
    return textwrap.wrap(f"{kind} ({_CHOSEN_WITH[kind]})", width, subsequent_indent="  ")


def _table(rows: list[Row], left_out: Sequence[str], width: int) -> list[str]:
    """Aligned facts; the description beside them, or below where there is no room."""
    keys = [key for key in rows[0] if key not in (*left_out, "what")]
    cells = [{key: _SHOW.get(key, _plain)(row[key]) for key in keys} for row in rows]
    heads = {key: _HEADS.get(key, key) for key in keys}
    widths = {key: max(len(line[key]) for line in (heads, *cells)) for key in keys}
    below = ["cost"] if "cost" in keys else []  # texts told with the description
    keys = [key for key in keys if key not in below]
    while sum(widths[key] + 2 for key in keys) > width:
        below.append(keys.pop())
    numbers = {key for key in keys if any(isinstance(row[key], int) for row in rows)}
    used = 2 + sum(widths[key] + 2 for key in keys)
    beside = width - used >= _BESIDE
    indent = " " * (used if beside else 6)
    lines = [f"  {_line(heads, keys, widths, numbers)}".rstrip()]
    for row, cell in zip(rows, cells, strict=True):
        told = " ".join([row["what"], *(f"({cell[key]})" for key in below if row[key] is not None)])
        wrapped = textwrap.wrap(told, width, initial_indent=indent, subsequent_indent=indent)
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


_SHOW: dict[str, Callable[[Any], str]] = {"parameters": _parameters, "bf16_bytes": _size}

if __name__ == "__main__":
    guard_tracebacks()
    sys.exit(main())
