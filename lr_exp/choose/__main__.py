"""Chooses the amateur for an expert and its questions; with a few references, alpha and beta, too.

python -m lr_exp.choose [--out FOLDER] choose.amateurs=[NAME,...] [choose.KEY=VALUE] OVERRIDE ...

The overrides are those of the run (`experiment=demo`), which reuses the results from the store.
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
from lr_exp.errors import UserError, command, did_you_mean, parser_of, run_program

_PREFIX = "choose."


@command
def main(words: Sequence[str] | None = None) -> int:
    """Writes and prints the tables, the figure and the chosen run's command."""
    parser = parser_of("lr_exp.choose", __doc__)
    parser.add_argument("overrides", nargs="*", metavar="OVERRIDE", help="settings of the run")
    out = Path("runs/choose")
    what = f"folder of the tables and the figure (default: {out})"
    parser.add_argument("--out", type=Path, default=out, metavar="FOLDER", help=what)
    parser.add_argument("--config-dir", metavar="DIR", help="a folder of your own options")
    chosen = parser.parse_intermixed_args(words)
    choose, overrides = split(chosen.overrides)

    from lr_exp.api import compose
    from lr_exp.choose.candidates import amateurs, measure, prepare
    from lr_exp.choose.halving import halve
    from lr_exp.choose.tables import candidate_table, figure_of, trial_table
    from lr_exp.models.locating import config_number
    from lr_exp.report.build import write_and_print

    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    progress.choose_for_cells(side_by_side=False)
    options = {"config_dir": chosen.config_dir}
    settings = compose(*overrides, **options)
    context = prepare(settings, choose)
    layers = config_number(context.inputs.expert, "num_hidden_layers") or 0
    found = measure(context, choose, amateurs(overrides, settings, choose, layers, **options))
    passed = [one for one in found if not one.rejected]
    trials = halve(context, passed, choose) if passed and choose.questions else None
    table = candidate_table(found, context, choose)
    write_and_print(table, figure_of(found, trials), chosen.out)
    if not passed:
        raise UserError("no candidate passes: list others in choose.amateurs.")
    best = [*passed[0].words]
    if trials:
        write_and_print(trial_table(trials, choose), None, chosen.out)
        winner = trials.ranked[0]
        best = [*winner.candidate.words, f"alpha={winner.alpha:g}", f"beta={winner.beta:g}"]
    given = ["--config-dir", chosen.config_dir] if chosen.config_dir else []
    program = ["python", "-m", "lr_exp", *given]
    print(f"\nThe chosen run:\n{shlex.join([*program, *overrides, *best])}")
    return 0


def split(words: Sequence[str]) -> tuple[ChooseSettings, list[str]]:
    """The settings `choose.*` and the other overrides.

    Raises UserError: a setting is unknown, or an override sets what is chosen here.
    """
    own: dict[str, Any] = {}
    rest = []
    for word in words:
        key = word.partition("=")[0].lstrip("+")
        if key.startswith(_PREFIX):
            override = parse_override(word)
            if override.is_sweep_override():
                raise UserError(f"{word} is several values: write a list, {key}=[...].")
            own[key.removeprefix(_PREFIX)] = override.value()
        elif key == "amateur" or key.startswith("amateur."):
            raise UserError(f"{word}: list the candidates, as choose.amateurs=[NAME,...].")
        else:
            rest.append(word)
    known = ChooseSettings.__dataclass_fields__
    for key in own.keys() - known.keys():
        raise UserError(f"{_PREFIX}{key} is not a setting.{did_you_mean(key, known)}")
    return ChooseSettings(**own), rest


if __name__ == "__main__":
    run_program(main)
