"""The command `python -m lr_exp.report DIR ...`: tables and figures of runs, or a comparison."""

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from lr_exp.errors import command, printable, redact, run_program
from lr_exp.store.run_folder import PAGE


@command
def main(words: Sequence[str] | None = None) -> int:
    """Writes and prints the report."""
    parser = argparse.ArgumentParser(
        prog="python -m lr_exp.report",
        description="Tables and figures of all runs below a folder, beside the published numbers. "
        "With several folders of single runs: their answers compared with those of the first, "
        "question by question. Bundles are not: report the folder of a bundle and the runs.",
    )
    what = "folder of a run or a sweep, or a bundle; several: folders of single runs to compare"
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR", help=what)
    default = "default: DIR/report, of a bundle without .zip, or DIR/comparison of the first"
    parser.add_argument("--out", type=Path, help=f"folder of the report ({default})")
    what = "only the runs with this setting, such as method=lightreasoner (several: all of them)"
    parser.add_argument(
        "--where",
        nargs="+",
        type=_condition,
        default=[],
        metavar="KEY=VALUE",
        help=what,
        action="extend",
    )
    chosen = parser.parse_args(words)
    from lr_exp.bundle.read import read_bundle
    from lr_exp.config.composition import parse_override
    from lr_exp.report.build import build, build_comparison, write
    from lr_exp.report.read.runs import BUNDLE

    where = {one.key_or_group: one.value() for one in map(parse_override, chosen.where)}
    first, *others = chosen.folders
    folder = first.with_suffix("") if first.name.endswith(BUNDLE) else first
    out = chosen.out or folder / ("comparison" if others else "report")
    with TemporaryDirectory(prefix="lr_exp_bundles_") as unpacked:
        if others:
            report = build_comparison(chosen.folders, where)
        else:
            report = build(first, out, where, partial(read_bundle, Path(unpacked)))
    write(report, out)
    print(printable(redact(report.shown)))
    place = f"Report: {out / PAGE} ({len(report.files)} files in {out})"
    print(printable(redact(place)))
    return 0


def _condition(word: str) -> str:
    if "=" not in word:
        raise argparse.ArgumentTypeError(f"{word} is not KEY=VALUE: put the folders before --where")
    return word


if __name__ == "__main__":
    run_program(main)
