"""Judges claims of the paper and of our pages on runs, or plans the runs that would.

python -m lr_exp.claims RUNS ...       supported, refuted or underpowered, with the numbers
python -m lr_exp.claims plan SWEEP     what a sweep can detect, and what it costs
"""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from lr_exp.errors import UserError, command, parser_of, run_program


@command
def main(words: Sequence[str] | None = None) -> int:
    """Prints the verdicts, or the plan."""
    from lr_exp.claims.declared import SHIPPED, read_claims
    from lr_exp.claims.table import judged
    from lr_exp.config.settings import check_value
    from lr_exp.report.build import write_and_print
    from lr_exp.report.texts import report_text

    parser = parser_of("lr_exp.claims", f"{__doc__}\n{textwrap.fill(report_text('verdicts'), 80)}")
    parser.add_argument("runs", nargs="+", metavar="RUNS", help="folders of sweeps")
    what = "other claims, in the form of the package's (docs/claims.md)"
    parser.add_argument("--claims", type=Path, default=SHIPPED, metavar="FILE", help=what)
    out = Path("runs/claims")
    what = f"folder of the table as claims.csv (default: {out})"
    parser.add_argument("--out", type=Path, default=out, metavar="FOLDER", help=what)
    what = "of a plan: at most N of each benchmark"
    parser.add_argument("--questions", type=int, metavar="N", help=what)
    what = "of a plan (default: the sweep's own)"
    parser.add_argument("--seeds", type=int, metavar="S", help=what)
    chosen = parser.parse_intermixed_args(words)
    claims = read_claims(chosen.claims)
    for key in ("questions", "seeds"):
        if (given := getattr(chosen, key)) is not None:
            check_value(f"--{key}", given, Annotated[int, "[1, 2**16]"])
    plans = chosen.runs[0] == "plan"
    if plans and len(chosen.runs) != 2:
        raise UserError("plan takes the name of one sweep, as in plan micro_ablation.")
    if not plans and (chosen.questions or chosen.seeds):
        raise UserError("--questions and --seeds are options of plan.")
    if plans:
        from lr_exp.claims.plan import plan

        print(plan(chosen.runs[1], claims, chosen.questions, chosen.seeds))
    else:
        write_and_print(judged(claims, [Path(run) for run in chosen.runs]), None, chosen.out)
    return 0


if __name__ == "__main__":
    run_program(main)
