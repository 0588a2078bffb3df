"""What gains are made of: the latent part and the format part."""

from collections.abc import Mapping

from lr_exp.report.analyse.paired import Estimate
from lr_exp.report.analyse.pooled import PARTS, Parts, parts_by_row
from lr_exp.report.analyse.rows import Row, Sweep
from lr_exp.report.names import ABSENT
from lr_exp.report.tables import cell
from lr_exp.report.tables.table import Line, Table, estimate_record, table_by_benchmark
from lr_exp.report.texts import report_text

_NAMES = {"strict": "the gain", "latent": "the latent part", "format": "the format part"}


def decomposition_table(sweep: Sweep, name: str) -> Table | None:
    """One row per variant and benchmark, with their average; None if no answer was forced."""
    lines = [
        _line(row, benchmark, parts)
        for row, by_benchmark in parts_by_row(sweep)
        for benchmark, parts in by_benchmark.items()
    ]
    texts = ("won from", "lost to")
    about = report_text("decomposition")
    return table_by_benchmark(name, "What the gain is made of", lines, about, texts)


def _line(row: Row, benchmark: str, parts: Parts) -> Line:
    before, after = map(cell.scaled, parts.cut_off)
    cells: dict[str, str] = {}
    record = {"n": parts.strict.questions, "cut_off_before": before, "cut_off_after": after}
    for part in PARTS:
        cells[part] = cell.with_interval(getattr(parts, part))
        record |= estimate_record(part, getattr(parts, part))
    cells |= {
        "latent share, %": cell.number(latent_share(parts.strict, parts.latent), ".0f"),
        "cut off, %": cell.change(*parts.cut_off),
        "n": f"{parts.strict.questions:,}",
        "seeds": str(parts.strict.seeds),
        "won from": _counts(parts.won_from),
        "lost to": _counts(parts.lost_to),
    }
    return Line(row, benchmark, cells, record)


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
