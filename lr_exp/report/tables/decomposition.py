"""What gains are made of: the latent part and the format part."""

from collections.abc import Mapping

from lr_exp.report.analyse.paired import Estimate
from lr_exp.report.analyse.pooled import PARTS, Parts, parts_by_row
from lr_exp.report.analyse.rows import Sweep
from lr_exp.report.names import ABSENT
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
    "In points, with 95 % intervals over questions and, with several seeds, over seeds (Student's "
    "t). Strict: correct, boxed and finished. Latent: the gain with forced answers, where an "
    "answer that was cut off or has no box is asked once for its final answer. Format: the rest, "
    "which comes from ending answers and boxing them. Cut off: untuned → tuned; such answers make "
    "the latent accuracy before too low, and so the latent part too large: check with twice "
    "evaluator.max_new_tokens. The last two columns describe the questions won and lost, summed "
    "over seeds, and attribute nothing."
)
_NAMES = {"strict": "the gain", "latent": "the latent part", "format": "the format part"}


def decomposition_table(sweep: Sweep, name: str) -> Table | None:
    """One row per variant and benchmark, with their average; None if no answer was forced."""
    found = [
        (row, benchmark, parts)
        for row, by_benchmark in parts_by_row(sweep)
        for benchmark, parts in by_benchmark.items()
    ]
    if not found:
        return None
    every = [parts for *_, parts in found]
    columns = label_columns([row for row, *_ in found], [benchmark for _, benchmark, _ in found])
    columns += [
        (Column(part), [cell.with_interval(getattr(one, part)) for one in every]) for part in PARTS
    ]
    shares = [latent_share(one.strict, one.latent) for one in every]
    columns += [
        (Column("latent share, %"), [cell.number(share, ".0f") for share in shares]),
        (Column("cut off, %"), [cell.change(*one.cut_off) for one in every]),
        (Column("n"), [f"{one.strict.questions:,}" for one in every]),
        (Column("seeds"), [str(one.strict.seeds) for one in every]),
        text_column("won from", [_counts(one.won_from) for one in every]),
        text_column("lost to", [_counts(one.lost_to) for one in every]),
    ]
    records = []
    for row, benchmark, parts in found:
        record = setup_record(row) | {"benchmark": benchmark, "n": parts.strict.questions}
        for part in PARTS:
            record |= estimate_record(part, getattr(parts, part))
        before, after = map(cell.scaled, parts.cut_off)
        records.append(record | {"cut_off_before": before, "cut_off_after": after})
    return table_of(name, "What the gain is made of", columns, records, [_ABOUT])


def in_words(parts: Parts) -> str:
    """One sentence: the parts, and whose intervals include 0."""
    strict, latent, form = (cell.with_interval(getattr(parts, part)) for part in PARTS)
    text = f"Of the strict gain of {strict} points, {latent} are latent and {form} format"
    unsure = [name for part, name in _NAMES.items() if _has_zero(getattr(parts, part))]
    if unsure:
        text += f"; 0 is in the interval of {' and of '.join(unsure)}"
    return f"{text}."


def latent_share(strict: Estimate, latent: Estimate) -> float | None:
    """The latent part in percent of the gain; None if the gain's interval includes 0."""
    return None if _has_zero(strict) else 100 * latent.mean / strict.mean


def _has_zero(one: Estimate) -> bool:
    return one.ci95[0] <= 0 <= one.ci95[1]


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {what}" for what, count in counts.items()) or ABSENT
