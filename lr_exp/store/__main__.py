"""Inspect and clean up the artifact store.

python -m lr_exp.store list                 list artifacts with their sizes
python -m lr_exp.store verify               check every file against its checksum
python -m lr_exp.store prune RUNS …         list artifacts that no run below RUNS uses
python -m lr_exp.store prune RUNS … --yes   delete them
"""

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from lr_exp.errors import UserError, command, guard_tracebacks, parser_of, printable
from lr_exp.store.artifacts import problem_of
from lr_exp.store.inventory import Entry, find_unreferenced, list_entries, prune


@command
def main(words: Sequence[str] | None = None) -> int:
    """Runs a command line; returns 1 if an artifact is damaged, else 0."""
    parser = parser_of("lr_exp.store", __doc__)
    parser.add_argument("--store", type=Path, default=Path("runs/store"), help="(%(default)s)")
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("list", "verify", "prune"):
        add = commands.add_parser(name).add_argument
        add("--store", type=Path, default=argparse.SUPPRESS, help="before or after the command")
        if name == "prune":
            add("runs", type=Path, nargs="+", help="run folders whose artifacts are kept")
            add("--yes", action="store_true", help="delete them; otherwise they are only listed")
    args = parser.parse_args(words)
    root, entries = args.store, list_entries(args.store)
    if not entries and any(root.iterdir()) and not any(root.glob("*/*.lock")):
        raise UserError(
            f"{root} is not a store: it holds no artifacts (STAGE/ADDRESS). Set --store to the "
            "store's folder."
        )
    if args.command == "list":
        return _list(entries)
    if args.command == "verify":
        return _verify(entries)
    return _prune(root, args.runs, args.yes)


def _list(entries: Sequence[Entry]) -> int:
    _print_table(entries)
    counts = Counter(entry.state for entry in entries)
    states = ", ".join(f"{count:,} {state}" for state, count in sorted(counts.items()))
    print(f"{_size(sum(entry.bytes for entry in entries))} in {states or 'no artifacts'}")
    return 0


def _verify(entries: Sequence[Entry]) -> int:
    checked = [entry for entry in entries if entry.state in ("finished", "damaged")]
    found = [(entry.name, problem_of(entry.folder, entry.address)) for entry in checked]
    damaged = [(name, problem) for name, problem in found if problem is not None]
    for name, problem in damaged:
        print(printable(f"{name}: {problem}"))
    print(f"{len(checked) - len(damaged):,} intact artifacts, {len(damaged):,} damaged")
    if damaged:
        print("The next run that needs a damaged artifact builds it again.")
    return 1 if damaged else 0


def _prune(root: Path, runs: Sequence[Path], delete: bool) -> int:
    entries = find_unreferenced(root, runs)
    if delete:
        entries = prune(entries, runs)
    _print_table(entries)
    size = _size(sum(entry.bytes for entry in entries))
    kept = len(list_entries(root)) - (0 if delete else len(entries))
    done = "deleted" if delete else "would be deleted (use --yes to delete them)"
    print(f"{len(entries):,} artifacts, {size}: {done}; {kept:,} kept")
    return 0


def _print_table(entries: Sequence[Entry]) -> None:
    for entry in entries:
        modified = entry.modified.astimezone().strftime("%Y-%m-%d %H:%M")
        stage, size = printable(entry.stage), _size(entry.bytes)
        print(f"{stage:<12} {entry.address}  {size:>10}  {modified}  {entry.state}")


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


if __name__ == "__main__":
    guard_tracebacks()
    sys.exit(main())
