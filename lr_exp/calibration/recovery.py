"""What the report measures of planted causes, beside what the texts of the answers say."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np

from lr_exp.report.analyse.decomposition import is_strict
from lr_exp.report.analyse.paired import Correct, Estimate, difference
from lr_exp.report.analyse.pooled import parts_of
from lr_exp.report.analyse.prompts import BEST, gains_by_prompt
from lr_exp.report.figures.figure import Figure, legend_below, panel_grid, whiskers
from lr_exp.report.figures.style import HUES, MUTED, styled
from lr_exp.report.read.run import Run
from lr_exp.report.tables import cell
from lr_exp.report.tables.table import Column, Table, estimate_record, table_of, text_column

Parts = dict[str, Estimate]
# By expert and method: what the report measures, and what the oracle says.
Found = Mapping[tuple[str, str], tuple[Parts, Parts]]

_ABOUT = (
    "In points, with 95 % intervals over questions and seeds. Latent and format are the report's "
    "parts of the gain in strict accuracy; prompt is the gain at the same prompt minus the gain "
    "between best prompts. The oracle reads the answers' texts: latent is the change of the share "
    "whose last `so N` is right, whatever the box; format is the rest of the gain in strict "
    "accuracy; prompt is the same difference of gains as the report's, in that share."
)


def states_answer(graded: Mapping[str, Any]) -> bool:
    """Whether the last `so N` of an answer is the reference, whatever its box says.

    The number at the end of an answer that was cut off may lack digits, so it is ignored.
    """
    text = graded["output"] + ("\n" if graded["finished"] else "")
    stated = re.findall(r", so (\d+)\D", text)
    return stated[-1:] == [graded["reference"]]


def oracle(runs: Sequence[Run], benchmark: str) -> Parts:
    """The parts of the gain of runs that differ in their seed, from the texts of their answers."""
    headline, *_ = prompts = runs[0].prompts
    stated: dict[str, dict[str, Correct]] = {"before": {}, "after": {}}
    unstated: dict[str, Correct] = {}  # strict accuracy minus the share of right statements
    for when, by_prompt in stated.items():
        for prompt in prompts:
            graded = [
                run.records("expert" if when == "before" else run.final_model, benchmark, prompt)
                for run in runs
            ]
            by_prompt[prompt] = _table(graded, states_answer)
            if prompt == headline:
                unstated[when] = _table(graded, is_strict) - by_prompt[prompt]
    # What a model states with its best prompt more often than with the headline.
    hidden = {
        when: max(by_prompt.values(), key=np.mean) - by_prompt[headline]
        for when, by_prompt in stated.items()
    }
    return {
        "latent": difference(stated["after"][headline], stated["before"][headline]),
        "format": difference(unstated["after"], unstated["before"]),
        "prompt": difference(hidden["before"], hidden["after"]),
    }


def _table(graded: Sequence[Sequence[Mapping[str, Any]]], test: Any) -> Correct:
    return np.array([[test(one) for one in own] for own in graded], dtype=float)


def measured(runs: Sequence[Run], benchmark: str) -> Parts:
    """The same parts as the report shows them."""
    parts = parts_of([run.evaluate for run in runs])[benchmark]
    shrinkage = gains_by_prompt(runs, [benchmark])[benchmark][BEST].smaller_by
    return {"latent": parts.latent, "format": parts.format, "prompt": cast(Estimate, shrinkage)}


def recovery_table(found: Found, name: str) -> Table:
    """One row per expert, method and part."""
    rows = [
        (expert, method, part, own, planted[part])
        for (expert, method), (report, planted) in found.items()
        for part, own in report.items()
    ]
    inside = [own.ci95[0] <= true.mean <= own.ci95[1] for *_, own, true in rows]
    columns = [
        text_column("expert", [row[0] for row in rows]),
        text_column("method", [row[1] for row in rows]),
        text_column("part", [row[2] for row in rows]),
        (Column("measured"), [cell.with_interval(row[3]) for row in rows]),
        (Column("oracle"), [cell.signed(100 * row[4].mean) for row in rows]),
        text_column("inside", ["yes" if one else "NO" for one in inside]),
    ]
    records = [
        {"expert": expert, "method": method, "part": part}
        | {"n": own.questions, "seeds": own.seeds, "inside": is_inside}
        | estimate_record("measured", own)
        | estimate_record("oracle", true)
        for (expert, method, part, own, true), is_inside in zip(rows, inside, strict=True)
    ]
    first = rows[0][3]
    counts = f"Oracle inside the interval: {cell.part_of(sum(inside), len(inside))}."
    note = f"{counts} {first.questions} questions, {first.seeds} seeds."
    return table_of(name, "Calibration: planted causes", columns, records, [note, _ABOUT])


def recovery_figure(found: Found) -> Figure:
    """A panel per part: measured against oracle, with 95 % intervals and the diagonal."""
    experts = list(dict.fromkeys(expert for expert, _ in found))
    with styled():
        mpl_figure, panels = panel_grid(3, 3, 2.4, sharey=True)
        drawn = {}
        for axes, part in zip(panels, ("latent", "format", "prompt"), strict=True):
            axes.axline((0, 0), slope=1, color=MUTED.light, linewidth=0.8)
            for hue, marker, name in zip(HUES[1:], "osD^v", experts, strict=False):
                both = [pair for (expert, _), pair in found.items() if expert == name]
                pairs = [(own[part], true[part]) for own, true in both]
                drawn[name] = axes.errorbar(
                    [100 * true.mean for _, true in pairs],
                    [100 * own.mean for own, _ in pairs],
                    xerr=whiskers([true for _, true in pairs]),
                    yerr=whiskers([own for own, _ in pairs]),
                    color=hue.light,
                    linestyle="",
                    marker=marker,
                    elinewidth=0.8,
                )
            axes.set_xlabel(f"{part}: oracle (points)")
        panels[0].set_ylabel("measured (points)")
        legend_below(mpl_figure, drawn)
    caption = "Each point is a method. Whiskers show 95 % intervals over questions and seeds."
    return Figure("calibration", "Measured against planted causes", caption, mpl_figure)
