"""Sampled answers: avg@k, pass@k and maj@k, and which won questions the untuned expert covers."""

from typing import Any

from lr_exp.report.analyse.paired import Estimate, accuracy_from_counts
from lr_exp.report.analyse.rows import Row, Sweep
from lr_exp.report.analyse.samples import estimate_of
from lr_exp.report.read.run import Run
from lr_exp.report.read.summary import Samples
from lr_exp.report.tables import cell
from lr_exp.report.tables.table import Line, Table, estimate_record, table_by_benchmark
from lr_exp.report.texts import report_text


def samples_table(sweep: Sweep, name: str) -> Table | None:
    """One row per run and benchmark; None if no answers were sampled."""
    variants = [row for row in sweep.rows if not row.is_baseline]
    lines = [
        _line(row, run, sampled, benchmark)
        for row in variants or sweep.rows  # a baseline is part of its variants' runs
        for run in row.runs
        if (sampled := run.evaluate.samples)
        for benchmark in sampled.expert
    ]
    about = report_text("samples")
    return table_by_benchmark(name, "Sampled answers", lines, about, ("seed",))


def _line(row: Row, run: Run, sampled: Samples, benchmark: str) -> Line:
    cells = {"seed": str(run.seed), "T": f"{sampled.temperature:g}"}
    record: dict[str, Any] = {"seed": run.seed, "k": sampled.samples}
    record["temperature"] = sampled.temperature
    estimates: dict[str, Estimate] = {}  # `untuned_greedy`, `untuned_avg_at_8`, ..., `tuned_greedy`
    models = {"untuned": ("expert", sampled.expert), "tuned": ("tuned", sampled.tuned or {})}
    for name, (who, results) in models.items():
        if greedy := run.results(who).get(benchmark):
            estimates[f"{name}_greedy"] = accuracy_from_counts(greedy)
        if own := results.get(benchmark):
            estimates |= {f"{name}_{key}": estimate_of(one) for key, one in own.by_name.items()}
    for key, estimate in estimates.items():
        record |= estimate_record(key, estimate)
        if key.endswith(("_greedy", f"_at_{sampled.samples}")):
            cells[key.replace("_at_", "@").replace("_", " ")] = cell.percent(estimate)
    if covered := (sampled.coverage or {}).get(benchmark):
        record |= covered.to_dict()
        cells["won, covered"] = cell.part_of(covered.had_right, covered.won)
        wrong = covered.both_wrong_had_right, covered.both_wrong
        cells["both wrong, covered"] = cell.part_of(*wrong)
    return Line(row, benchmark, cells, record)
