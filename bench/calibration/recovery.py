"""What the report measures of planted causes, beside what the texts of the answers say."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from lr_exp.report.analyse.decomposition import is_strict
from lr_exp.report.analyse.paired import Correct, Estimate, average, difference
from lr_exp.report.analyse.pooled import overall, parts_of
from lr_exp.report.analyse.prompts import BEST, gains_by_prompt
from lr_exp.report.figures.figure import Figure, legend_below, panel_grid, whiskers
from lr_exp.report.figures.style import HUES, MUTED, styled
from lr_exp.report.read.run import Run
from lr_exp.report.tables import cell
from lr_exp.report.tables.table import Column, Table, estimate_record

PARTS = ("latent", "format", "prompt")
Parts = dict[str, Estimate]  # by PARTS
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
    return re.findall(r", so (\d+)\D", text)[-1:] == [graded["reference"]]


def oracle(runs: Sequence[Run], benchmarks: Sequence[str]) -> Parts:
    """The parts of the gain of runs that differ in their seed, from the texts of their answers."""
    found = [_oracle_on(runs, benchmark) for benchmark in benchmarks]
    return {part: average([one[part] for one in found]) for part in PARTS}


def _oracle_on(runs: Sequence[Run], benchmark: str) -> Parts:
    def shares(who: str, test: Callable[[Any], bool], prompt: str) -> Correct:
        graded = [run.records(who, benchmark, prompt) for run in runs]
        return np.array([[test(one) for one in own] for own in graded], dtype=float)

    headline, *_ = prompts = runs[0].prompts
    stated, form, hidden = [], [], []
    for who in ("tuned", "expert"):
        by_prompt = [shares(who, states_answer, prompt) for prompt in prompts]
        stated.append(by_prompt[0])
        form.append(shares(who, is_strict, headline) - by_prompt[0])
        hidden.append(by_prompt[0] - max(by_prompt, key=np.mean))
    values = (stated, form, hidden)
    return {part: difference(*own) for part, own in zip(PARTS, values, strict=True)}


def measured(runs: Sequence[Run], benchmarks: Sequence[str]) -> Parts:
    """The same parts as the report shows them."""
    parts: Any = overall(parts_of([run.evaluate for run in runs]), benchmarks)
    gains: Any = overall(gains_by_prompt(runs, benchmarks), benchmarks)
    return {"latent": parts.latent, "format": parts.format, "prompt": gains[BEST].smaller_by}


def recovery_table(found: Found) -> Table:
    cells, records = [], []
    for (expert, method), (report, planted) in found.items():
        for part, own in report.items():
            true, (low, high) = planted[part], own.ci95
            is_inside = low <= true.mean <= high
            numbers = [cell.with_interval(own), cell.signed(100 * true.mean)]
            cells.append([expert, method, part, *numbers, "yes" if is_inside else "NO"])
            records.append(
                {"expert": expert, "method": method, "part": part, "inside": is_inside}
                | {"n": own.questions, "seeds": own.seeds}
                | estimate_record("measured", own)
                | estimate_record("oracle", true)
            )
    titles = ("expert", "method", "part", "measured", "oracle", "inside")
    columns = [Column(one, is_text=one not in ("measured", "oracle")) for one in titles]
    inside = cell.part_of(sum(one["inside"] for one in records), len(records))
    counts = f"questions: {records[0]['n']}, seeds: {records[0]['seeds']}"
    notes = [f"Oracle inside the interval: {inside}; {counts}.", _ABOUT]
    return Table("calibration", "Calibration", columns, cells, records, notes)


def recovery_figure(found: Found) -> Figure:
    """A panel per part: measured against oracle, with 95 % intervals and the diagonal."""
    experts = dict.fromkeys(expert for expert, _ in found)
    with styled():
        mpl_figure, panels = panel_grid(3, 3, 2.4, sharey=True)
        drawn: dict[str, Any] = {}
        for axes, part in zip(panels, PARTS, strict=True):
            axes.axline((0, 0), slope=1, color=MUTED, linewidth=0.8)
            for hue, marker, name in zip(HUES[1:], "osD^v", experts, strict=False):
                both = [own for (expert, _), own in found.items() if expert == name]
                pairs = [(own[part], true[part]) for own, true in both]
                drawn[name] = axes.errorbar(
                    [100 * true.mean for _, true in pairs],
                    [100 * own.mean for own, _ in pairs],
                    xerr=whiskers([true for _, true in pairs]),
                    yerr=whiskers([own for own, _ in pairs]),
                    color=hue,
                    linestyle="",
                    marker=marker,
                    elinewidth=0.8,
                )
            axes.set_xlabel(f"{part}: oracle (points)")
        panels[0].set_ylabel("measured (points)")
        legend_below(mpl_figure, drawn)
    caption = "Each point is a method. Whiskers show 95 % intervals over questions and seeds."
    return Figure("calibration", "Measured and planted causes", caption, mpl_figure)
