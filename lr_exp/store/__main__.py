"""The store's keeper: `python -m lr_exp.store list|verify|prune`.

    python -m lr_exp.store list                 what is there, with sizes
    python -m lr_exp.store verify               every file against its checksum
    python -m lr_exp.store prune RUNS …         what no run below these folders refers to
    python -m lr_exp.store prune RUNS … --yes   the same, removed

Knows words and the terminal.
"""

import argparse
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from lr_exp.errors import UserError, guard_tracebacks, print_error, printable
from lr_exp.store.inventory import Entry, entries, problems, prune, unreferenced


def main(words: Sequence[str] | None = None) -> int:
    """Does what the words ask for; 1 after an error or where something is damaged."""
    parser = argparse.ArgumentParser(
        prog="python -m lr_exp.store",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--store", type=Path, default=Path("runs/store"), help="(%(default)s)")
    commands = parser.add_subparsers(dest="command", required=True)
    for command, what in (
        ("list", "what is there, with sizes"),
        ("verify", "every file against its checksum"),
        ("prune", "remove what no run refers to"),
    ):
        add = commands.add_parser(command, help=what).add_argument
        add("--store", type=Path, default=argparse.SUPPRESS, help="before or after the command")
        if command == "prune":
            add("runs", type=Path, nargs="+", help="folders of runs whose artifacts stay")
            add("--yes", action="store_true", help="remove; else it is only shown")
    asked = parser.parse_args(words)
    try:
        if asked.command == "list":
            return _list(asked.store)
        if asked.command == "verify":
            return _verify(asked.store)
        return _prune(asked.store, asked.runs, asked.yes)
    except (UserError, OSError) as error:
        if os.environ.get("LR_EXP_DEBUG") == "1":
            raise
        print_error(error)
        return 1


def _entries(root: Path) -> list[Entry]:
    """The store's; a folder of other things must not look like an empty store."""
    found = entries(root)
    if not found and any(root.iterdir()) and not any(root.glob("*/*.lock")):
        raise UserError(
            f"{root} is no store: nothing in it is an artifact (STAGE/ADDRESS). Give the store "
            "with --store."
        )
    return found


def _list(root: Path) -> int:
    found = _entries(root)
    _print_table(found)
    _print_total(found)
    return 0


def _verify(root: Path) -> int:
    found = _entries(root)
    damaged = problems(root)
    for entry, problem in damaged:
        print(printable(f"{entry.name}: {problem}"))
    ended = sum(entry.state in ("finished", "damaged") for entry in found)
    print(f"{ended - len(damaged):,} whole artifacts, {len(damaged):,} damaged")
    if damaged:
        print("The next run that needs a damaged one sets it aside and makes it again.")
    return 1 if damaged else 0


def _prune(root: Path, runs: Sequence[Path], really: bool) -> int:
    _entries(root)
    going = unreferenced(root, runs)
    if really:
        going = prune(going, runs)
    _print_table(going)
    size = _size(sum(entry.bytes for entry in going))
    kept = len(entries(root)) - (0 if really else len(going))
    done = "removed" if really else "would be removed (--yes removes them)"
    print(f"{len(going):,} artifacts, {size}: {done}; {kept:,} stay")
    return 0


def _print_table(found: Sequence[Entry]) -> None:
    for entry in found:
        when = entry.modified.astimezone().strftime("%Y-%m-%d %H:%M")
        stage, size = printable(entry.stage), _size(entry.bytes)
        print(f"{stage:<12} {entry.address}  {size:>10}  {when}  {entry.state}")


def _print_total(found: Sequence[Entry]) -> None:
    counts = Counter(entry.state for entry in found)
    told = ", ".join(f"{count:,} {state}" for state, count in sorted(counts.items()))
    print(f"{_size(sum(entry.bytes for entry in found))} in {told or 'no artifacts'}")


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


if __name__ == "__main__":
    guard_tracebacks()
    sys.exit(main())
