"""Which explanations of a gain the runs test, and which they do not."""

from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any

from lr_exp.report.analyse.paired import Estimate
from lr_exp.report.analyse.pooled import pooled
from lr_exp.report.analyse.rows import Row, Sweep
from lr_exp.report.names import ABSENT, is_generated
from lr_exp.report.read.summary import Gains, PairedGain, Result, Shrinkage
from lr_exp.report.tables import cell
from lr_exp.report.tables.table import Table, table_of, text_column

_ABOUT = (
    "Yes: tested by these runs. Partly: they show a part of it. No: they say nothing about it, so "
    "it may explain the gain. Gains are in points, averaged over benchmarks, with 95 % intervals; "
    "of several variants, the lowest and the highest. With LightReasoner in the table, the first "
    "rows are about it alone. Each model's best prompts are chosen for each seed here, and for all "
    "seeds together in the table of prompts."
)
_TITLES = ("explanation", "tested here", "seen", "how to test it")
_HOW = {  # to test each explanation
    "the prompt": "evaluator.prompts=[chat,none,plain]",
    "ending and boxing answers": "evaluator.force_answer=true",
    "the token limit": "twice evaluator.max_new_tokens",
    "answers that the expert samples already": "evaluator.samples=8 evaluator.temperature=0.7",
    "luck of the seed": "-m seed=0,1,2",
    "benchmarks in the training data": "benchmarks=[random_calculation]",
    "any sharpening, without the amateur": "the methods no_contrast, selective_ce, random_steps "
    "and entropy_steps in the same sweep: each leaves the amateur out of the label or the "
    "selection, none out of both",
    "learning rate and budget": "distiller.learning_rate and distiller.steps, for each method",
    "this pair of models only": "other values of expert and amateur",
}
_OURS = "lightreasoner"
_CONTROLS = ("no_contrast", "selective_ce", "random_steps", "entropy_steps")
_MIN_SEEDS = 3


def explanations_table(sweep: Sweep, name: str) -> Table | None:
    """One row per explanation; None if no gain was measured."""
    every = [row for row in sweep.rows if row.gain and row.runs and not row.is_baseline]
    if not every:
        return None
    rows = [row for row in every if row.setup.method == _OURS] or every
    cut_off = _change(rows, lambda one: one.truncated / one.total)
    is_complete = cut_off == cell.change(0, 0)
    seeds = min(len(row.seeds) for row in rows)
    generated, total = sum(map(is_generated, sweep.benchmarks)), len(sweep.benchmarks)
    budget = rows[0].runs[0].settings.get("distiller", {})
    pairs = len({(row.setup.expert, row.setup.amateur) for row in every if row.setup.amateur})
    found = [
        _prompt(rows),
        _form(rows),
        ("yes" if is_complete else "partly", f"{cut_off} % of the answers cut off"),
        _sampled(rows),
        (_tested(seeds - 1, _MIN_SEEDS - 1), f"{seeds} seed{'s' if seeds > 1 else ''}"),
        (
            "partly" if generated else "no",
            f"{generated} of {total} benchmarks are generated; what the models were trained on "
            "is not checked",
        ),
        _amateur(every),
        ("no", f"{budget.get('steps')} optimizer steps at {budget.get('learning_rate')}"),
        ("partly", f"{pairs} pairs") if pairs > 1 else ("no", "1 pair"),
    ]
    lines = [(one, *seen, how) for (one, how), seen in zip(_HOW.items(), found, strict=True)]
    columns = [text_column(*one) for one in zip(_TITLES, zip(*lines, strict=True), strict=True)]
    records: list[dict[str, Any]] = [dict(zip(_TITLES, line, strict=True)) for line in lines]
    return table_of(name, "What could explain this gain", columns, records, [_ABOUT])


def _prompt(rows: Sequence[Row]) -> tuple[str, str]:
    best = _pooled(rows, lambda one: one.best_prompt)
    less = _pooled(rows, lambda one: one.shrinkage)
    if not best:
        return "no", "one prompt"
    seen = f"{len(rows[0].runs[0].prompts)} prompts: {_range(best)} between each model's best"
    return _tested(len(best), len(rows)), seen + (f", smaller by {_range(less)}" if less else "")


def _form(rows: Sequence[Row]) -> tuple[str, str]:
    latent = _pooled(rows, lambda one: one.decomposition and one.decomposition.latent)
    form = _pooled(rows, lambda one: one.decomposition and one.decomposition.format)
    if latent:
        tested = _tested(len(latent), len(rows))
        return tested, f"latent {_range(latent)}, format {_range(form)}"
    boxed = _change(rows, lambda one: (one.boxed or 0) / one.total)
    strict = _change(rows, lambda one: one.strict_accuracy or 0)
    return "partly", f"boxed {boxed} %, strictly correct {strict} %"


def _amateur(rows: Sequence[Row]) -> tuple[str, str]:
    ours, controls = (
        [row.gain for row in rows if row.gain and row.setup.method in methods]
        for methods in ([_OURS], _CONTROLS)
    )
    if not ours or not controls:
        return "no", ABSENT
    return "partly", f"LightReasoner {_range(ours)}, controls {_range(controls)}"


def _sampled(rows: Sequence[Row]) -> tuple[str, str]:
    runs = [run for row in rows for run in row.runs]
    sampled = [one.coverage for run in runs if (one := run.evaluate.samples) and one.coverage]
    if not sampled:
        return "no", "one greedy answer to each question"
    found = [one for coverage in sampled for one in coverage.values()]
    covered = cell.part_of(sum(one.had_right for one in found), sum(one.won for one in found))
    seen = f"the untuned expert has a correct sample for {covered} questions won"
    return _tested(len(sampled), len(runs)), seen


def _tested(count: int, total: int) -> str:
    return "no" if count == 0 else "yes" if count >= total else "partly"


def _pooled(
    rows: Sequence[Row], read: Callable[[Gains], PairedGain | Shrinkage | None]
) -> list[Estimate]:
    """The average over benchmarks of each row that has it."""
    found = [[*pooled([run.evaluate for run in row.runs], read).values()] for row in rows]
    return [own[-1] for own in found if own]


def _range(estimates: Sequence[Estimate]) -> str:
    """`+20.7 (+10.3 to +31.1)`, or of several variants `+0.0 to +20.7`."""
    if len(estimates) == 1:
        return cell.with_interval(estimates[0])
    means = sorted(one.mean for one in estimates)
    return " to ".join(dict.fromkeys(cell.signed(100 * one) for one in (means[0], means[-1])))


def _change(rows: Sequence[Row], share: Callable[[Result], float]) -> str:
    """The means over variants, seeds and benchmarks, untuned → tuned."""
    runs = [run for row in rows for run in row.runs]
    before = [share(one) for run in runs for one in run.results("expert").values()]
    after = [share(one) for run in runs for one in run.results(run.final_model).values()]
    return cell.change(fmean(before), fmean(after))
