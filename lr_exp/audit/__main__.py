"""Audits the labels of a run: does the label's token lead to a right answer more often?

python -m lr_exp.audit [--out FOLDER] [--positions N] [--samples K] OVERRIDE ...
python -m lr_exp.audit --loss [--out FOLDER] OVERRIDE ...

The overrides are those of the run (`experiment=demo`), whose answers and scores are reused from the
store. Nothing is trained: answers are continued from the label's most probable token and from the
expert's, at kept positions, and graded. An audit that was stopped resumes. With `--out` the run's
folder, the table and the figure are also on the run's page; the labels must be those of the run.
`--loss` continues no answer: it shows the shares of the loss on wrong answers and around errors.
"""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

from lr_exp.config.settings import check_value
from lr_exp.errors import UserError, command, run_parser, run_program

_COUNT = Annotated[int, "[1, 1000000]"]
_BUDGET = {  # options: the values that they take, and what they are
    "positions": (_COUNT, "of each kind, one of each question at most"),
    "samples": (_COUNT, "continuations from each token"),
    "temperature": (Annotated[float, "(0, inf)"], "of the continuations"),
    "max_new_tokens": (_COUNT, "of a continuation"),
}


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


@command
def main(words: Sequence[str] | None = None) -> int:
    from lr_exp.api import compose
    from lr_exp.audit.continuations import Budget, audit
    from lr_exp.audit.errors import errors_table, losses
    from lr_exp.report.build import write_and_print
    from lr_exp.report.page import write_run_page
    from lr_exp.report.page.audit_figure import audit_figure
    from lr_exp.report.page.audit_table import audit_table
    from lr_exp.report.read.run import Run, read_run
    from lr_exp.store import json_lines
    from lr_exp.store.run_folder import SUMMARY

    what = "the audit's files; a run's own also shows them"
    parser = run_parser("lr_exp.audit", __doc__, Path("runs/audit"), what)
    what = "instead: where the loss lies before training (errors.csv)"
    parser.add_argument("--loss", action="store_true", help=what)
    for name, default in asdict(Budget()).items():
        about = f"{_BUDGET[name][1]} (default: {default})"
        parser.add_argument(_flag(name), type=type(default), default=default, help=about)
    chosen = parser.parse_intermixed_args(words)
    budget = {
        name: check_value(_flag(name), getattr(chosen, name), hint)
        for name, (hint, _) in _BUDGET.items()
    }
    if chosen.loss:
        for name, given in budget.items():
            if given != parser.get_default(name):
                raise UserError(f"{_flag(name)} has no effect with --loss: remove one of them.")
        lost = losses(compose(*chosen.overrides))
        write_and_print(errors_table(lost), None, chosen.out, jsonl=json_lines(lost))
        return 0
    has_run = (chosen.out / SUMMARY).exists()
    run = read_run(chosen.out, str(chosen.out), [SUMMARY]) if has_run else None
    of_run = run if isinstance(run, Run) else None
    records = audit(compose(*chosen.overrides), Budget(**budget), of_run)
    table, figure = audit_table(records, "audit"), audit_figure(records)
    short = replace(table, rows=[row for row in table.rows if row[1] == "all"])
    write_and_print(table, figure, chosen.out, short, jsonl=json_lines(records))
    if has_run:
        write_run_page(chosen.out)
    return 0


if __name__ == "__main__":
    run_program(main)
