"""Inspect and clean up the artifact store.

python -m lr_exp.store list                 list artifacts with their sizes and runs
python -m lr_exp.store verify               check every file against its checksum
python -m lr_exp.store prune RUNS …         list artifacts that no run below RUNS uses, and what
                                            other runs would lose
python -m lr_exp.store prune RUNS … --yes   delete them
"""

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from lr_exp.errors import UserError, command, counted, parser_of, printable, run_program
from lr_exp.store.artifacts import problem_of
from lr_exp.store.inventory import RUNS, Entry, find_unreferenced, list_entries, prune, users
from lr_exp.store.run_folder import FAILED, SUMMARY

_SHOWN_RUNS = 3  # of each artifact


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
    is_used = (root / RUNS).exists() or any(root.glob("*/*.lock"))
    if not entries and any(root.iterdir()) and not is_used:
        raise UserError(
            f"{root} is not a store: it holds no artifacts (STAGE/ADDRESS). Set --store to the "
            "store's folder."
        )
    if args.command == "list":
        return _list(root, entries)
    if args.command == "verify":
        return _verify(entries)
    return _prune(root, args.runs, args.yes)


def _list(root: Path, entries: Sequence[Entry]) -> int:
    known = users(root)
    for entry in entries:
        _print_table([entry])
        runs = [run for run, names in known.items() if entry.name in names]
        left = len(runs) - _SHOWN_RUNS
        more = [f"and {counted(left, 'more run')}"] if left > 0 else []
        for text in (*map(_described, runs[:_SHOWN_RUNS]), *more):
            print(printable(f"    {text}"))
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
    print(f"{counted(len(checked) - len(damaged), 'intact artifact')}, {len(damaged):,} damaged")
    if damaged:
        print("The next run that needs a damaged artifact builds it again.")
    return 1 if damaged else 0


def _prune(root: Path, runs: Sequence[Path], delete: bool) -> int:
    entries = find_unreferenced(root, runs)
    sizes = {entry.name: entry.bytes for entry in entries if entry.state != "set aside"}
    for run, names in users(root).items():
        lost = names & sizes.keys()
        if lost:
            size = _size(sum(map(sizes.__getitem__, lost)))
            verb = "loses" if delete else "would lose"
            text = f"Another run {verb} {counted(len(lost), 'artifact')}, {size}"
            print(printable(f"{text}: {_described(run)}"))
    if delete:
        entries = prune(entries, runs)
    _print_table(entries)
    size = _size(sum(entry.bytes for entry in entries))
    kept = len(list_entries(root)) - (0 if delete else len(entries))
    done = "deleted" if delete else "would be deleted (use --yes to delete them)"
    print(f"{counted(len(entries), 'artifact')}, {size}: {done}; {kept:,} kept")
    return 0


def _print_table(entries: Sequence[Entry]) -> None:
    for entry in entries:
        modified = entry.modified.astimezone().strftime("%Y-%m-%d %H:%M")
        stage, size = printable(entry.stage), _size(entry.bytes)
        print(f"{stage:<12} {entry.address}  {size:>10}  {modified}  {entry.state}")


def _described(run: Path) -> str:
    """`lightreasoner, runs/demo`, with the run's folder relative to this one if it is below it."""
    method = None
    for name in (SUMMARY, FAILED):
        with suppress(OSError, ValueError, AttributeError):
            method = method or json.loads((run / name).read_text("utf-8")).get("method")
    here = Path.cwd()
    place = run.relative_to(here) if run.is_relative_to(here) else run
    return f"{method or 'no method recorded'}, {place}"


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


if __name__ == "__main__":
    run_program(main)
