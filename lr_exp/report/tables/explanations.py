"""Which explanations of a gain the runs test, and which they do not."""

from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any

from lr_exp.report.analyse.comparable import grouped
from lr_exp.report.analyse.controls import rates_of
from lr_exp.report.analyse.paired import Estimate
from lr_exp.report.analyse.pooled import overall, parts_of
from lr_exp.report.analyse.prompts import BEST, gains_by_prompt
from lr_exp.report.analyse.rows import Row, Sweep
from lr_exp.report.names import ABSENT, method_label
from lr_exp.report.read.summary import Result
from lr_exp.report.tables import cell
from lr_exp.report.tables.table import Table, table_of, text_column
from lr_exp.report.texts import report_text

_TITLES = ("explanation", "tested here", "seen", "how to test it")
_HOW = {  # to test each explanation
    "the prompt": "evaluator.prompts=[chat,none,plain]",
    "ending and boxing answers": "evaluator.force_answer=true",
    "the token limit": "twice evaluator.max_new_tokens",
    "answers that the expert samples already": "evaluator.samples=8 evaluator.temperature=0.7",
    "luck of the seed": "-m seed=0,1,2",
    "benchmarks in the training data": "benchmarks=[random_calculation]",
    "any sharpening, without the amateur": "+sweep=controls: sharpened, truncated_expert",
    "the expert's second choice, whatever the amateur says": "+sweep=controls: runner_up",
    "the form of the expert's own answers": "+sweep=controls: format_only, format_wrong",
    "what the expert does with another prompt": "+sweep=controls: prompt_distillation",
    "learning rate and budget": "distiller.learning_rate and distiller.steps, for each method",
    "this pair of models only": "other values of expert and amateur",
}
_OURS = "lightreasoner"
_CONTROLS = (  # methods that test an explanation, in the order of the rows
    (
        "sharpened",
        "truncated_expert",
        "entropy_min",
        "no_contrast",
        "selective_ce",
        "random_steps",
        "entropy_steps",
    ),
    ("runner_up",),
    ("format_only", "format_tokens", "format_wrong"),
    ("prompt_distillation",),
)
_MIN_SEEDS = 3
_Seen = tuple[str, str]  # whether it is tested, and what the runs show


def explanations_table(sweep: Sweep, name: str) -> Table | None:
    """One row per explanation; None if no gain was measured."""
    every = [row for row in sweep.rows if row.gain and row.runs and not row.is_baseline]
    if not every:
        return None
    rows = [row for row in every if row.setup.method == _OURS] or every
    cut_off = _change(rows, lambda one: one.truncated / one.total)
    seeds = min(len(row.seeds) for row in rows)
    generated = {name for run in sweep.runs for name in run.evaluate.generated or ()}
    total = len(sweep.benchmarks)
    steps = max(run.distill.adapter_steps for row in rows for run in row.runs)
    pairs = len({(row.setup.expert, row.setup.amateur) for row in every if row.setup.amateur})
    found = [
        _prompt(rows, sweep.benchmarks),
        _form(rows, sweep.benchmarks),
        (
            "yes" if cut_off == cell.change(0, 0) else "partly",
            f"{cut_off} % of the answers cut off",
        ),
        _sampled(rows),
        (_tested(seeds - 1, _MIN_SEEDS - 1), f"{seeds} seed{'s' if seeds > 1 else ''}"),
        (
            "partly" if generated else "no",
            f"{len(generated)} of {total} benchmarks are generated; what the models were trained "
            "on is not checked",
        ),
        *(_control(every, methods) for methods in _CONTROLS),
        (
            "partly" if len(rates_of(rows)) > 1 else "no",
            f"{steps} optimizer steps at {', '.join(rates_of(rows))}",
        ),
        ("partly", f"{pairs} pairs") if pairs > 1 else ("no", "1 pair"),
    ]
    lines = [(one, *seen, how) for (one, how), seen in zip(_HOW.items(), found, strict=True)]
    columns = [text_column(*one) for one in zip(_TITLES, zip(*lines, strict=True), strict=True)]
    records: list[dict[str, Any]] = [dict(zip(_TITLES, line, strict=True)) for line in lines]
    title = "What could explain this gain"
    notes = [report_text("explanations")]
    return table_of(name, title, columns, records, notes, section="explanations")


def _prompt(rows: Sequence[Row], benchmarks: Sequence[str]) -> _Seen:
    if len(rows[0].runs[0].prompts) < 2:
        return "no", "one prompt"
    by_prompt = (overall(gains_by_prompt(row.runs, benchmarks), benchmarks) for row in rows)
    best = [found[BEST] for found in by_prompt if found]
    seen = f"{len(rows[0].runs[0].prompts)} prompts"
    if best:
        less = _range([one.smaller_by for one in best if one.smaller_by])
        seen += (
            f": {_range([one.gain for one in best])} between each model's best, smaller by {less}"
        )
    return _tested(len(best), len(rows)), seen


def _form(rows: Sequence[Row], benchmarks: Sequence[str]) -> _Seen:
    by_row = (overall(parts_of([run.evaluate for run in row.runs]), benchmarks) for row in rows)
    if found := [parts for parts in by_row if parts]:
        latent, form = ([getattr(one, part) for one in found] for part in ("latent", "format"))
        seen = f"latent {_range(latent)}, format {_range(form)}"
        return _tested(len(found), len(rows)), seen
    boxed = _change(rows, lambda one: (one.boxed or 0) / one.total)
    strict = _change(rows, lambda one: one.strict_accuracy or 0)
    return "partly", f"boxed {boxed} %, strictly correct {strict} %"


def _sampled(rows: Sequence[Row]) -> _Seen:
    runs = [run for row in rows for run in row.runs]
    sampled = [one.coverage for run in runs if (one := run.evaluate.samples) and one.coverage]
    if not sampled:
        return "no", "one greedy answer to each question"
    found = [one for coverage in sampled for one in coverage.values()]
    covered = cell.part_of(sum(one.had_right for one in found), sum(one.won for one in found))
    seen = f"the untuned expert has a correct sample for {covered} questions won"
    return _tested(len(sampled), len(runs)), seen


def _control(rows: Sequence[Row], methods: Sequence[str]) -> _Seen:
    """The gains of LightReasoner and of controls; a control at one learning rate tests a part."""
    ours, controls = (
        [row for row in rows if row.setup.method in chosen] for chosen in ([_OURS], methods)
    )
    if not ours or not controls:
        return "no", ABSENT
    by_method = grouped([*ours, *controls], lambda row: row.setup.method)
    tested = all(len(rates_of(own)) > 1 for own in by_method.values())
    seen = (
        f"{method_label(method)} {_range([row.gain for row in own if row.gain])}"
        for method, own in by_method.items()
    )
    return "yes" if tested else "partly", "; ".join(seen)


def _tested(count: int, total: int) -> str:
    return "no" if count == 0 else "yes" if count >= total else "partly"


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
