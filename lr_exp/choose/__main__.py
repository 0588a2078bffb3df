"""Chooses the amateur for an expert and its questions; with a few references, alpha and beta, too.

python -m lr_exp.choose [--out FOLDER] choose.amateurs=[NAME,...] [choose.KEY=VALUE] OVERRIDE ...

The overrides are those of the run (`experiment=demo`), whose results in the store are reused.
Candidates are scored once each, rejected by their limits, and ranked by the share of kept positions
whose label moves the expert. With `choose.questions=32` references, successive halving tries the
amateurs that pass with every alpha and beta (docs/choose.md). A command that was stopped resumes.
"""

import shlex
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lr_exp import progress
from lr_exp.config.composition import parse_override
from lr_exp.config.settings import ChooseSettings
from lr_exp.errors import UserError, command, did_you_mean, run_parser, run_program


@command
def main(words: Sequence[str] | None = None) -> int:
    """Writes and prints the tables, the figure and the chosen run's command."""
    out, what = Path("runs/choose"), "the tables and the figure"
    parser = run_parser("lr_exp.choose", __doc__, out, what)
    chosen = parser.parse_intermixed_args(words)
    choose, overrides = split(chosen.overrides)

    from lr_exp.choose.candidates import measure, prepare
    from lr_exp.choose.halving import halve
    from lr_exp.choose.tables import candidate_table, figure_of, trial_table
    from lr_exp.report.build import write_and_print

    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    progress.choose_for_cells(side_by_side=False)
    context = prepare(overrides, choose)
    found = measure(context, overrides, choose)
    passed = [one for one in found if not one.rejected]
    trials = halve(context, passed, choose) if passed and choose.questions else None
    write_and_print(candidate_table(found), figure_of(found, trials), chosen.out)
    if not passed:
        raise UserError("no candidate passes: list others in choose.amateurs.")
    best = [*overrides, *passed[0].words]
    if trials:
        write_and_print(trial_table(trials), None, chosen.out)
        winner = trials.ranked[0]
        best = [*overrides, *winner.candidate.words, f"alpha={winner.alpha}", f"beta={winner.beta}"]
    print(f"\nThe chosen run:\npython -m lr_exp {shlex.join(best)}")
    return 0


def split(words: Sequence[str]) -> tuple[ChooseSettings, list[str]]:
    """The settings `choose.*` and the other overrides; raises UserError for what is invalid."""
    own: dict[str, Any] = {}
    others, known = [], ChooseSettings.__dataclass_fields__
    for word in words:
        group, _, key = word.partition("=")[0].lstrip("+").partition(".")
        if group == "amateur" and key != "tokenizer":
            raise UserError(f"{word}: list the candidates, as choose.amateurs=[NAME,...].")
        if group != "choose":
            others.append(word)
        elif key not in known:
            nearest = did_you_mean(f"choose.{key}", [f"choose.{one}" for one in known])
            raise UserError(f"choose.{key} is not a setting.{nearest}")
        elif (override := parse_override(word)).is_sweep_override():
            raise UserError(f"{word} is several values: write a list, choose.{key}=[...].")
        else:
            own[key] = override.value()
    return ChooseSettings(**own), others


if __name__ == "__main__":
    run_program(main)
