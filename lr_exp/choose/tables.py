"""The tables and the figure of a choice."""

from collections.abc import Sequence

from lr_exp.choose.candidates import Candidate
from lr_exp.choose.halving import CHOOSING, HELD_OUT, Trials, probability_better
from lr_exp.config.settings import ChooseSettings
from lr_exp.pipeline.context import RunContext
from lr_exp.report.figures.figure import Figure, legend_below, panel_grid
from lr_exp.report.figures.style import BLUE, FAINT, GREY, HUES, VERMILION, styled
from lr_exp.report.tables import cell
from lr_exp.report.tables.table import Column, Table, estimate_record

_SHOWN = 5  # curves with a colour of their own

_ABOUT = (
    "Amateurs are ranked by moving: the share of kept steps whose label's top token is not "
    "the expert's. Agreement: the share of a model's own sampled answers to a question that "
    "equal the most frequent one; gap: the expert's minus the amateur's, in points, with its 95 % "
    "interval. The CSV file has all reasons."
)


def candidate_table(
    found: Sequence[Candidate], context: RunContext, choose: ChooseSettings
) -> Table:
    """One row per candidate; the reasons of rejections are notes."""
    cells, records, notes = [], [], []
    for rank, one in enumerate(found, 1):
        shown = "rejected" if one.rejected else str(rank)
        profile, high = one.profile, one.profile.get("share_above_0.4")
        numbers = [
            cell.number(100 * one.moving if profile else None),
            cell.number(profile.get("kept"), ",d"),
            cell.number(None if high is None else 100 * high),
            cell.number(None if one.agreement is None else 100 * one.agreement),
            cell.with_interval(one.gap),
        ]
        cells.append([shown, one.name, *numbers])
        record = {"amateur": one.name, "rank": None if one.rejected else rank}
        record |= {"moving_of_kept": one.moving if profile else None, "kept": profile.get("kept")}
        record |= {"share_above_0.4": high, "agreement": one.agreement}
        records.append(
            record | estimate_record("gap", one.gap) | {"rejected": " ".join(one.rejected)}
        )
        notes += [f"{one.name} is rejected: {reason}" for reason in one.rejected[:1]]
    titles = ("rank", "amateur", "moving, %", "kept", "above 0.4 nats, %", "agreement, %", "gap")
    columns = [Column(one, is_text=one in titles[:2]) for one in titles]
    questions = len(next(iter(context.inputs.benchmark_questions.values())))
    drawn = f"{questions} questions, {choose.samples} answers each"
    settings = context.inputs.settings
    where = f"alpha {settings.alpha:g}, beta {settings.beta:g}; agreement: {drawn}."
    return Table("candidates", "Amateurs", columns, cells, records, [f"{_ABOUT} {where}", *notes])


def trial_table(trials: Trials, choose: ChooseSettings) -> Table:
    """One row per trial, with its scores after each rung and on the questions held out."""
    winner, survivors = trials.ranked[0], trials.survivors
    rungs = [one for one in choose.rungs if one in winner.scores]
    cells, records = [], []
    for trial in trials.ranked:
        by_rung = [trial.mean(CHOOSING, one) if one in trial.scores else None for one in rungs]
        held, better = None, None
        if any(trial is one for one in survivors):
            held = trial.mean(HELD_OUT)
            mine, other = (one.scores[rungs[-1]][HELD_OUT] for one in (winner, trial))
            better = None if trial is winner else probability_better(mine, other)
        numbers = [*by_rung, held, better]
        setup = [trial.candidate.name, f"{trial.alpha:g}", f"{trial.beta:g}"]
        cells.append([*setup, *(cell.number(one, ".2f") for one in numbers)])
        names = [*(f"after_{one}" for one in rungs), "held_out", "winner_is_better"]
        record = {"amateur": setup[0], "alpha": trial.alpha, "beta": trial.beta}
        records.append(record | dict(zip(names, numbers, strict=True)))
    titles = ["amateur", "alpha", "beta", *(f"after {one}" for one in rungs), "held out", "P"]
    columns = [Column(one, is_text=one in titles[:3]) for one in titles]
    untuned = trials.untuned
    halves = [len(untuned[half]) for half in (CHOOSING, HELD_OUT)]
    share = trials.steps / trials.grid_steps
    notes = [
        f"Score: {trials.measure}, after optimizer steps at a constant learning rate, on "
        f"{halves[0]} questions (untuned: {untuned[CHOOSING].mean():.2f}); held out: on "
        f"{halves[1]} others (untuned: {untuned[HELD_OUT].mean():.2f}). P: bootstrap probability "
        "over the questions held out that the first row is better.",
        f"Training: {trials.steps:,} optimizer steps, {100 * share:.0f} % of the "
        f"{trials.grid_steps:,} of the whole grid. Combinations with the labels of another one: "
        f"{trials.same}.",
    ]
    return Table("choose", "Amateur, alpha and beta", columns, cells, records, notes)


@styled()
def figure_of(found: Sequence[Candidate], trials: Trials | None) -> Figure:
    """The moving share of each candidate and, with references, the scores by optimizer steps."""
    height = max(2.2, 0.22 * len(found) + 0.8)
    mpl_figure, panels = panel_grid(2 if trials else 1, 2 if trials else 1, height)
    places, drawn = range(len(found)), {}
    for label, hue, rejected in (("passes", BLUE, False), ("rejected", GREY, True)):
        own = [place for place in places if bool(found[place].rejected) == rejected]
        widths = [100 * found[place].moving for place in own]
        if own:
            drawn[label] = panels[0].barh(own, widths, color=hue, height=0.6)
    panels[0].set_yticks(places, [one.name for one in found])
    panels[0].set_ylim(len(found) - 0.5, -0.5)
    panels[0].set_xlabel("moving (% of kept steps)")
    if trials:
        hues = [VERMILION, *HUES[3:]]
        for number, trial in enumerate(trials.ranked):
            name = f"{trial.candidate.name}, α {trial.alpha:g}, β {trial.beta:g}"  # noqa: RUF001
            points = [(0, trials.untuned[CHOOSING].mean())]
            points += [(steps, trial.mean(CHOOSING, steps)) for steps in trial.scores]
            is_shown = number < _SHOWN
            (line,) = panels[1].plot(
                *zip(*points, strict=True),
                color=hues[number] if is_shown else FAINT,
                marker="o" if is_shown else "",
                zorder=2 + is_shown - number / 1000,
            )
            drawn |= {name: line} if is_shown else {}
        panels[1].set_xlabel("optimizer steps")
        panels[1].set_ylabel(trials.measure)
    legend_below(mpl_figure, drawn)
    caption = "Amateurs by the share of kept steps that move; scores of the better trials by steps."
    return Figure("candidates", "Choice of the amateur, alpha and beta", caption, mpl_figure)
