"""How the answers behind the accuracies end and were read."""

from lr_exp.report.analyse.costs import mean
from lr_exp.report.analyse.rows import Row, Sweep
from lr_exp.report.read.summary import Result
from lr_exp.report.tables import cell
from lr_exp.report.tables.table import Line, Table, table_by_benchmark
from lr_exp.report.texts import report_text

_TITLES = {  # by key of `Result.numbers`; shares are shown in percent
    "accuracy": "accuracy",
    "strict_accuracy": "strict",
    "truncated": "cut off",
    "accuracy_truncated": "accuracy if cut off",
    "accuracy_finished": "accuracy if finished",
    "read_by_box": "box",
    "read_by_statement": "statement",
    "read_by_last": "last number",
    "no_answer": "no answer",
    "mean_tokens": "mean tokens",
    "median_tokens": "median tokens",
}


def answers_table(sweep: Sweep, name: str) -> Table | None:
    """One row per variant and benchmark; None if nothing was evaluated."""
    lines = [
        Line(row, benchmark, {_TITLES[key]: cell.number(numbers[key]) for key in _TITLES}, numbers)
        for row in sweep.rows
        for benchmark in sweep.benchmarks
        if (numbers := _numbers(row, benchmark))
    ]
    about = report_text("answers")
    return table_by_benchmark(name, "How the answers were read", lines, about)


def _numbers(row: Row, benchmark: str) -> dict[str, float | None]:
    """The means over seeds, shares in percent."""
    found = [run.results("expert" if row.is_baseline else run.final_model) for run in row.runs]
    results = [own[benchmark] for own in found if benchmark in own]
    return {key: mean([_value(one, key) for one in results]) for key in _TITLES} if results else {}


def _value(result: Result, key: str) -> float | None:
    value = result.numbers.get(key)
    if value is None or key.endswith("tokens"):
        return value
    return cell.scaled(value / result.total if key in ("truncated", "no_answer") else value)
