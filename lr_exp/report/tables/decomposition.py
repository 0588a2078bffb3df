"""What gains are made of: the latent part and the format part."""

from collections.abc import Mapping

from lr_exp.report.analyse.rows import Sweep
from lr_exp.report.names import ABSENT
from lr_exp.report.read.summary import PairedGain
from lr_exp.report.tables import cell
from lr_exp.report.tables.table import (
    Column,
    Table,
    label_columns,
    setup_record,
    table_of,
    text_column,
)

_PARTS = ("strict", "latent", "format")
_ABOUT = (
    "In points, with 95 % intervals. Strict: correct, boxed and finished. Latent: the gain with "
    "forced answers, where an answer that was cut off or has no box is asked once for its final "
    "answer. Format: the rest, which comes from ending answers and boxing them. Cut-off answers "
    "make the latent accuracy before too low: check with twice evaluator.max_new_tokens. The last "
    "two columns describe the questions won and lost, and attribute nothing."
)


def decomposition_table(sweep: Sweep, name: str) -> Table | None:
    """One row per run and benchmark; None if no answer was forced."""
    found = [
        (row, run, benchmark, gains.decomposition)
        for row in sweep.rows
        if not row.is_baseline
        for run in row.runs
        for benchmark, gains in (run.evaluate.gains or {}).items()
        if gains.decomposition
    ]
    if not found:
        return None
    columns = label_columns([row for row, *_ in found], [benchmark for *_, benchmark, _ in found])
    columns.insert(-1, text_column("seed", [str(run.seed) for _, run, *_ in found]))
    columns += [
        (Column(part), [_points(getattr(parts, part)) for *_, parts in found]) for part in _PARTS
    ]
    shares = [latent_share(parts.strict, parts.latent) for *_, parts in found]
    columns.append((Column("latent share, %"), [cell.number(share, ".0f") for share in shares]))
    columns.append(text_column("won from", [_counts(parts.won_from) for *_, parts in found]))
    columns.append(text_column("lost to", [_counts(parts.lost_to) for *_, parts in found]))
    records = [
        setup_record(row)
        | {"seed": run.seed, "benchmark": benchmark}
        | {part: cell.scaled(getattr(parts, part).gain) for part in _PARTS}
        | {f"{part}_low": cell.scaled(getattr(parts, part).ci95[0]) for part in _PARTS}
        | {f"{part}_high": cell.scaled(getattr(parts, part).ci95[1]) for part in _PARTS}
        for row, run, benchmark, parts in found
    ]
    return table_of(name, "What the gain is made of", columns, records, [_ABOUT])


def latent_share(strict: PairedGain, latent: PairedGain) -> float | None:
    """The latent part in percent of the gain; None if the gain's interval includes 0."""
    low, high = strict.ci95
    return None if low <= 0 <= high else 100 * latent.gain / strict.gain


def _points(one: PairedGain) -> str:
    return f"{cell.signed(100 * one.gain)} ({cell.between((one.ci95[0], one.ci95[1]))})"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {what}" for what, count in counts.items()) or ABSENT
