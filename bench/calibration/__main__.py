"""Calibrates the decomposition of gains with experts whose cause of gains was planted.

python -m bench.calibration [--out FOLDER] [--seeds N,N] [--jobs N] [--experts NAME,NAME]
                            [--methods NAME,NAME] OVERRIDE ...

Planted models that the store lacks are trained first: eight, 20 seconds of CPU time each. With its
defaults a calibration has 60 runs and takes 44 minutes of CPU time in all. The overrides are those
of every run (evaluator.max_examples=50). A calibration that was stopped resumes.
"""

from argparse import ArgumentTypeError
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Annotated, Any

from lr_exp.config.options import conf_dir, option_files
from lr_exp.config.settings import STAGES, check_value
from lr_exp.errors import UserError, command, run_parser, run_program

_SET_HERE = ("expert", "amateur", "method", "seed", "data.configs", "benchmarks")


@command
def main(words: Sequence[str] | None = None) -> int:
    out, what = Path("runs/calibration"), "the runs, the table and the figure"
    parser = run_parser("bench.calibration", __doc__, out, what, of="every run")
    what = "of the runs (default: 0,1,2)"
    parser.add_argument("--seeds", type=_integers, default=[0, 1, 2], metavar="N,N", help=what)
    from bench.calibration.planted import DEFAULT, METHODS, PLANTED

    for name, default in (("experts", DEFAULT), ("methods", METHODS)):
        what = f"(default: {','.join(default)})"
        parser.add_argument(
            f"--{name}", type=_names, default=[*default], metavar="NAME,NAME", help=what
        )
    parser.add_argument("--jobs", type=int, default=2, help="processes (default: 2)")
    chosen = parser.parse_intermixed_args(words)
    check_value("--jobs", chosen.jobs, Annotated[int, "[1, 1000]"])
    check_value("--seeds", chosen.seeds, list[Annotated[int, "[0, 2**32)"]])
    known = {"experts": PLANTED, "methods": option_files([conf_dir()], "method")}
    for option, names in known.items():
        for name in getattr(chosen, option):
            check_value(f"--{option}", name, Annotated[str, (*names,)])
    for word in chosen.overrides:
        if (key := word.partition("=")[0].lstrip("+")) in _SET_HERE:
            raise UserError(
                f"{word}: the calibration sets {key} itself; it has --experts, --methods, --seeds."
            )

    from bench.calibration.planted import EXPERIMENT, benchmarks, run_all
    from bench.calibration.recovery import measured, oracle, recovery_figure, recovery_table
    from lr_exp.api import compose
    from lr_exp.report.build import write_and_print
    from lr_exp.report.read.runs import find_runs

    settings = compose(EXPERIMENT, *chosen.overrides)
    evaluator, is_whole = settings.evaluator, {*settings.stages} == {*STAGES}
    if not (is_whole and evaluator.force_answer and len(evaluator.prompts) > 1):
        raise UserError(
            "a calibration needs all stages, evaluator.force_answer=true and several "
            "evaluator.prompts: leave them as in experiment=calibration."
        )
    cells = product(*map(dict.fromkeys, (chosen.experts, chosen.methods, chosen.seeds)))
    folders: dict[tuple[str, str, int], Path] = {
        one: chosen.out / one[0] / one[1] / f"seed_{one[2]}" for one in cells
    }
    run_all(folders, (EXPERIMENT, *chosen.overrides), settings.store, chosen.jobs)
    runs: dict[tuple[str, str], list[Any]] = {}
    for (*key, _), folder in folders.items():
        runs.setdefault((key[0], key[1]), []).extend(find_runs(folder).runs)
    if stopped := [run for own in runs.values() for run in own if run.stopped]:
        raise UserError(f"{stopped[0].folder}: nothing was trained: {stopped[0].stopped}")
    found = {}
    for (expert, method), own in runs.items():
        asked = benchmarks(expert)
        found[expert, method] = measured(own, asked), oracle(own, asked)
    write_and_print(recovery_table(found), recovery_figure(found), chosen.out)
    return 0


def _names(text: str) -> list[str]:
    return text.split(",")


def _integers(text: str) -> list[int]:
    try:
        return [int(number) for number in text.split(",")]
    except ValueError as error:
        raise ArgumentTypeError(f"{text!r} is not a list of integers, as 0,1,2") from error


if __name__ == "__main__":
    run_program(main)
