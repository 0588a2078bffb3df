"""The tables and the figure of a choice."""

from collections.abc import Sequence
from typing import Any

from lr_exp.choose.candidates import Candidate
from lr_exp.choose.halving import CHOOSING, HELD_OUT, Trials, probability_better
from lr_exp.report.figures.figure import Figure, legend_below, panel_grid
from lr_exp.report.figures.style import BLUE, FAINT, GREY, HUES, styled
from lr_exp.report.tables import cell
from lr_exp.report.tables.table import Column, Table, estimate_record
from lr_exp.report.texts import report_text

_SHOWN = 5  # curves with a colour of their own


def candidate_table(found: Sequence[Candidate]) -> Table:
    """One row per candidate; the first reason of each rejection is a note."""
    cells, records, notes = [], [], [report_text("candidates")]
    for number, one in enumerate(found, 1):
        percent = {
            "moving_of_kept": one.moving if one.profile else None,
            "share_above_0.4": one.profile.get("share_above_0.4"),
            "agreement": one.agreement,
        }
        kept, numbers = one.profile.get("kept"), [_percent(value) for value in percent.values()]
        rank = "rejected" if one.rejected else str(number)
        shown = [rank, one.name, cell.number(kept, ",d")]
        cells.append([*shown, *numbers, cell.with_interval(one.gap)])
        record: dict[str, Any] = {"amateur": one.name, "rank": rank, "kept": kept, **percent}
        record |= estimate_record("gap", one.gap)
        records.append(record | {"rejected": " ".join(one.rejected)})
        notes += [f"{one.name} is rejected: {reason}" for reason in one.rejected[:1]]
    titles = ("rank", "amateur", "kept", "moving, %", "above 0.4 nats, %", "agreement, %", "gap")
    columns = [Column(one, is_text=one in titles[:2]) for one in titles]
    return Table("candidates", "Amateurs", columns, cells, records, notes)


def _percent(share: float | None) -> str:
    return cell.number(share and 100 * share)


def trial_table(trials: Trials) -> Table:
    """One row per trial, with its scores after each rung and on the questions held out."""
    winner, untuned = trials.ranked[0], trials.untuned
    cells, records, last = [], [], max(winner.scores)
    for trial in trials.ranked:
        setup = (trial.candidate.name, trial.alpha, trial.beta)
        record: dict[str, Any] = dict(zip(("amateur", "alpha", "beta"), setup, strict=True))
        for steps in winner.scores:
            scores = trial.scores.get(steps)
            record[f"after {steps}"] = None if scores is None else scores[CHOOSING].mean()
        held = trial.scores[last][HELD_OUT] if last in trial.scores else None
        best = winner.scores[last][HELD_OUT]
        record["held out"] = None if held is None else held.mean()
        compared = None if trial is winner else held
        record["P"] = None if compared is None else probability_better(best, compared)
        records.append(record)
        numbers = [cell.number(value, ".2f") for value in [*record.values()][len(setup) :]]
        cells.append([*map(str, setup), *numbers])
    columns = [Column(one, is_text=one in ("amateur", "alpha", "beta")) for one in records[0]]
    halves = [(len(untuned[half]), untuned[half].mean()) for half in (CHOOSING, HELD_OUT)]
    counts = [f"{count} questions (untuned: {mean:.2f})" for count, mean in halves]
    share = cell.part_of(trials.steps, trials.grid_steps)
    notes = [
        f"Score: {trials.measure}, on {counts[0]}; held out: on {counts[1]}. P: bootstrap "
        "probability over the questions held out that the first row is better. After: optimizer "
        f"steps at a constant learning rate, {share} of a whole run's for each row. {trials.same} "
        "combinations have the labels of another one and are left out."
    ]
    run = winner.context.inputs.settings.distiller
    equal = run.steps if run.schedule == "constant" else run.steps // 2  # sum of learning rates
    if last > equal:
        notes.append(
            f"The last rung trains longer than the run: distiller.steps={run.steps} with "
            f"distiller.schedule={run.schedule} are as much as {equal} at a constant learning rate."
        )
    return Table("choose", "Amateur, alpha and beta", columns, cells, records, notes)


@styled()
def figure_of(found: Sequence[Candidate], trials: Trials | None) -> Figure:
    """The moving share of each candidate and, with references, the scores by optimizer steps."""
    count, drawn = 2 if trials else 1, {}
    mpl_figure, panels = panel_grid(count, count, max(2.4, 0.22 * len(found) + 0.8))
    for label, hue in (("passes", BLUE), ("rejected", GREY)):
        own = [n for n, one in enumerate(found) if bool(one.rejected) == (label == "rejected")]
        if own:
            widths = [100 * found[n].moving for n in own]
            drawn[label] = panels[0].barh(own, widths, color=hue, height=0.6)
    panels[0].set_yticks(range(len(found)), [one.name for one in found])
    panels[0].set_ylim(len(found) - 0.5, -0.5)
    panels[0].set_xlabel("moving (% of kept steps)")
    if trials:
        panels[1].set_xlabel("optimizer steps")
        panels[1].set_ylabel(trials.measure)
        for number, trial in enumerate(trials.ranked):
            means = [one[CHOOSING].mean() for one in (trials.untuned, *trial.scores.values())]
            hue = HUES[2 + number] if number < _SHOWN else FAINT
            (line,) = panels[1].plot([0, *trial.scores], means, color=hue, zorder=3 - number / 1000)
            if number < _SHOWN:
                name = f"{trial.candidate.name}, α {trial.alpha}, β {trial.beta}"  # noqa: RUF001
                drawn[name] = line
    legend_below(mpl_figure, drawn)
    title = "Choice of the amateur, alpha and beta"
    return Figure("candidates", title, report_text("candidates_figure"), mpl_figure)
