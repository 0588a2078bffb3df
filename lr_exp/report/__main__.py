"""The command `python -m lr_exp.report DIR`: tables and figures of the runs below a folder."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from lr_exp.errors import command, guard_tracebacks, printable, redact


@command
def main(words: Sequence[str] | None = None) -> int:
    """Writes and prints the report."""
    parser = argparse.ArgumentParser(
        prog="python -m lr_exp.report",
        description="Tables and figures of all runs below a folder, beside the published numbers.",
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder of a run or a sweep")
    parser.add_argument("--out", type=Path, help="folder of the report (default: DIR/report)")
    chosen = parser.parse_args(words)
    from lr_exp.report.build import build, write
    from lr_exp.store.run_folder import PAGE

    out = chosen.out or chosen.folder / "report"
    report = build(chosen.folder, out)
    write(report, out)
    print(printable(redact(report.shown)))
    where = f"Report: {out / PAGE} ({len(report.files)} files in {out})"
    print(printable(redact(where)))
    return 0


if __name__ == "__main__":
    guard_tracebacks()
    sys.exit(main())
