"""Each variant against the baseline and LightReasoner; the CSV file has all pairs of rows."""

from lr_exp.report.analyse.compare import Pair, Pairs
from lr_exp.report.analyse.paired import FLIPS
from lr_exp.report.analyse.rows import Row
from lr_exp.report.tables.table import (
    Column,
    Table,
    between,
    p_value,
    scaled,
    signed,
    without_lone_expert,
)

EXPLANATION = (
    "Difference of the averages in points with its 95 % bootstrap interval (questions resampled "
    "within benchmarks, seeds averaged: it holds for these seeds). Won and lost: questions of all "
    "benchmarks that only the variant, or only the other, answered correctly, by majority vote "
    "over seeds. p (majority of seeds) is the exact two-sided McNemar test of these counts; it "
    "weights questions equally where AVG weights benchmarks equally, so the two can disagree. "
    "p (mean of seeds) is a two-sided paired permutation test of the shown difference, with "
    f"{FLIPS:,} random sign flips of each question's difference averaged over seeds. Neither "
    "accounts for variation between seeds. No correction for multiple tests."
)


def significance_table(pairs: Pairs, name: str) -> Table | None:
    """None if no two rows could be compared."""
    if not pairs.pairs:
        return None
    shown = [_line(pair, pair.ours, pair.theirs) for pair in pairs.pairs if _has_baseline(pair)]
    references = _references(pairs)
    for pair in pairs.pairs:
        if pair.ours.setup.expert != pair.theirs.setup.expert:
            continue
        reference = references.get(pair.ours.setup.expert)
        if pair.theirs is reference and not pair.ours.is_baseline:
            shown.append(_line(pair, pair.ours, pair.theirs))
        elif pair.ours is reference and not pair.theirs.is_baseline:
            shown.append(_line(pair, pair.theirs, pair.ours, swapped=True))
    columns = [
        *(Column(title, is_text=True) for title in ("expert", "variant", "against")),
        *map(Column, ("difference", "95 % interval", "won", "lost")),
        *map(Column, ("p (majority of seeds)", "p (mean of seeds)")),
    ]
    records = [
        {
            "expert": pair.ours.setup.expert,
            "variant": pair.ours.label,
            "against_expert": pair.theirs.setup.expert,
            "against": pair.theirs.label,
            "benchmark": comparison.benchmark,
            "n": comparison.questions,
            "won": comparison.won,
            "lost": comparison.lost,
            "p_majority": comparison.p_majority,
            "p_mean": comparison.p_mean,
            "difference": scaled(comparison.difference),
            "low": scaled(comparison.low),
            "high": scaled(comparison.high),
        }
        for pair in pairs.pairs
        for comparison in pair.comparisons
    ]
    return without_lone_expert(Table(name, "Significance", columns, shown, records, [EXPLANATION]))


def _has_baseline(pair: Pair) -> bool:
    ours, theirs = pair.ours, pair.theirs
    return theirs.is_baseline and ours.setup.expert == theirs.setup.expert


def _references(pairs: Pairs) -> dict[str, Row]:
    """The LightReasoner row with greedy decoding of each expert that has exactly one."""
    by_expert: dict[str, dict[int, Row]] = {}
    for pair in pairs.pairs:
        for row in (pair.ours, pair.theirs):
            if (row.setup.method, row.setup.decoder) == ("lightreasoner", "greedy"):
                by_expert.setdefault(row.setup.expert, {})[id(row)] = row
    return {
        expert: next(iter(rows.values())) for expert, rows in by_expert.items() if len(rows) == 1
    }


def _line(pair: Pair, ours: Row, theirs: Row, swapped: bool = False) -> list[str]:
    overall = pair.overall
    sign = -1 if swapped else 1
    low, high = sorted((sign * overall.low, sign * overall.high))
    won, lost = (overall.lost, overall.won) if swapped else (overall.won, overall.lost)
    return [
        ours.setup.expert,
        ours.label,
        theirs.label,
        signed(100 * sign * overall.difference),
        between(low, high),
        f"{won:,}",
        f"{lost:,}",
        p_value(overall.p_majority),
        p_value(overall.p_mean),
    ]
