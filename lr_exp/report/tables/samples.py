"""Sampled answers: avg@k, pass@k and maj@k, and which won questions the untuned expert covers."""

from lr_exp.report.analyse.paired import Estimate, accuracy_from_counts
from lr_exp.report.analyse.rows import Sweep
from lr_exp.report.analyse.samples import estimate_of
from lr_exp.report.names import ABSENT
from lr_exp.report.read.run import Run
from lr_exp.report.read.summary import Samples
from lr_exp.report.tables import cell
from lr_exp.report.tables.table import (
    Column,
    Table,
    estimate_record,
    label_columns,
    setup_record,
    table_of,
    text_column,
)

_ABOUT = (
    "In % ± the wider side of the 95 % interval over questions, for one draw of k samples of each "
    "question at temperature T. Greedy is pass@1; avg@k the share of correct samples; pass@k the "
    "share of questions with a correct one; maj@k the share whose most frequent answer is correct. "
    "Won, covered: of the questions that only the tuned expert answered correctly (greedy), those "
    "with a correct sample of the untuned expert. There, tuning may have brought out what the "
    "expert could do already. But a correct sample can be luck, such as a guess, and none among k "
    "does not show that the expert could not. The last column has the same for questions that both "
    "answered wrong: these may be harder, so a lower share there does not show why the others were "
    "won."
)


def samples_table(sweep: Sweep, name: str) -> Table | None:
    """One row per run and benchmark; None if no answers were sampled."""
    variants = [row for row in sweep.rows if not row.is_baseline]
    found = [
        (row, run, sampled, benchmark)
        for row in variants or sweep.rows  # a baseline is part of its variants' runs
        for run in row.runs
        if (sampled := run.evaluate.samples)
        for benchmark in sampled.expert
    ]
    if not found:
        return None
    columns = label_columns([row for row, *_ in found], [benchmark for *_, benchmark in found])
    columns.insert(-1, text_column("seed", [str(run.seed) for _, run, *_ in found]))
    lines: list[dict[str, str]] = []  # cells by title
    records = []
    for row, run, sampled, benchmark in found:
        line = {"T": f"{sampled.temperature:g}"}
        record = setup_record(row) | {"seed": run.seed, "benchmark": benchmark}
        record |= {"k": sampled.samples, "temperature": sampled.temperature}
        for key, estimate in _estimates(run, sampled, benchmark).items():
            record |= estimate_record(key, estimate)
            if key.endswith(("_greedy", f"_at_{sampled.samples}")):
                line[key.replace("_at_", "@").replace("_", " ")] = cell.percent(estimate)
        if covered := (sampled.coverage or {}).get(benchmark):
            record |= covered.to_dict()
            line["won, covered"] = cell.part_of(covered.had_right, covered.won)
            wrong = covered.both_wrong_had_right, covered.both_wrong
            line["both wrong, covered"] = cell.part_of(*wrong)
        lines.append(line)
        records.append(record)
    for title in dict.fromkeys(title for line in lines for title in line):
        columns.append((Column(title), [line.get(title, ABSENT) for line in lines]))
    return table_of(name, "Sampled answers", columns, records, [_ABOUT])


def _estimates(run: Run, sampled: Samples, benchmark: str) -> dict[str, Estimate]:
    """By name: `untuned_greedy`, `untuned_avg_at_8`, `untuned_pass_at_4`, `tuned_greedy`, ..."""
    found: dict[str, Estimate] = {}
    models = {"untuned": ("expert", sampled.expert), "tuned": ("tuned", sampled.tuned or {})}
    for name, (who, results) in models.items():
        if greedy := run.results(who).get(benchmark):
            found[f"{name}_greedy"] = accuracy_from_counts(greedy)
        if own := results.get(benchmark):
            found |= {f"{name}_{key}": estimate_of(one) for key, one in own.by_name.items()}
    return found
