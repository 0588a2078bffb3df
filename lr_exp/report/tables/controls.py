"""What else could explain LightReasoner's gain: its controls, in one table."""

from collections.abc import Callable

from lr_exp.report.analyse.controls import REFERENCE, Control, controls
from lr_exp.report.analyse.costs import costs
from lr_exp.report.analyse.rows import Sweep
from lr_exp.report.names import ABSENT, method_label
from lr_exp.report.tables import cell
from lr_exp.report.tables.table import Column, Table, estimate_record, table_of, text_column

_ABOUT = (
    "Gains over the untuned expert in points, averaged over benchmarks, with 95 % intervals over "
    "questions and, with several seeds, over seeds (Student's t). Each half of the questions is "
    "reported at the learning rate that is best on the other half; averages over 8 ways to halve "
    "the questions; of the intervals, those of the first two gains include this choice. Best "
    "prompts: each model is asked with the prompt, and at the learning rate, that is best on the "
    "other half. Latent: the gain with forced answers; format: the rest of the gain in strict "
    "accuracy (correct, boxed and finished). Against LightReasoner: the difference of the tuned "
    "experts, and the p-value of a two-sided paired permutation test of that difference, averaged "
    "over seeds, with Holm's correction for the number of methods in this table. A method that "
    "equals LightReasoner explains its gain at least as well as contrast; a large p-value alone "
    "does not show that two methods are equal: see the interval."
)
_COSTS = {
    "tuned_tokens": ("tokens tuned", ",.0f"),
    "tokens_read": ("tokens read in training", ",.0f"),
    "flops": ("FLOPs", ".2e"),
}


def controls_table(sweep: Sweep, name: str) -> Table | None:
    """One row per method; None if the sweep does not compare methods at several learning rates."""
    found = controls(sweep)
    if not found:
        return None

    def column(title: str, text: Callable[[Control], str]) -> tuple[Column, list[str]]:
        return Column(title), [text(one) for one in found]

    measured = [costs([run for row in one.rows for run in row.runs]) for one in found]
    columns = [
        text_column("method", [method_label(one.rows[0].setup.method) for one in found]),
        column("gain", lambda one: cell.with_interval(one.same_prompt)),
        column("gain, best prompts", lambda one: cell.with_interval(one.best_prompt)),
        column("latent", lambda one: cell.with_interval(one.latent)),
        column("format", lambda one: cell.with_interval(one.format)),
        column(f"against {method_label(REFERENCE)}", lambda one: cell.with_interval(one.against)),
        column("p (Holm)", lambda one: ABSENT if one.p_holm is None else cell.p_value(one.p_holm)),
        column("learning rates", lambda one: ", ".join(one.rates)),
        *(
            (Column(title), [cell.number(one[key], form) for one in measured])
            for key, (title, form) in _COSTS.items()
        ),
        column("seeds", lambda one: str(one.same_prompt.seeds)),
        column("n", lambda one: f"{one.same_prompt.questions:,}"),
    ]
    records = [
        {
            "method": one.rows[0].setup.method,
            **estimate_record("gain", one.same_prompt),
            **estimate_record("gain_best_prompts", one.best_prompt),
            **estimate_record("latent", one.latent),
            **estimate_record("format", one.format),
            **estimate_record("against_lightreasoner", one.against),
            "p_holm": one.p_holm,
            "learning_rates": " ".join(one.rates),
            **{key: cost[key] for key in _COSTS},
            "seeds": one.same_prompt.seeds,
            "n": one.same_prompt.questions,
        }
        for one, cost in zip(found, measured, strict=True)
    ]
    return table_of(name, "Controls", columns, records, [_ABOUT])
