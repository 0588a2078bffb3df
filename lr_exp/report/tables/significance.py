"""Each variant against the baseline and against LightReasoner; the CSV file has every pair."""

from lr_exp.report.compare import Pair, Pairs
from lr_exp.report.paired import FLIPS
from lr_exp.report.rows import Row
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
    "benchmarks together that only the variant, or only the other, has right, where a question "
    "counts as right if more than half of the seeds have it right; p (majority of seeds) is the "
    "exact two-sided McNemar test of the two counts. It counts every question alike and AVG every "
    "benchmark alike, so the two can disagree. p (mean of seeds) tests the shown difference "
    f"itself: a paired permutation test, two-sided, in which {FLIPS:,} times each question's "
    "difference, averaged over seeds, gets a random sign. Neither says what other seeds would "
    "give. No correction for the number of tests."
)


def significance_table(pairs: Pairs, name: str) -> Table | None:
    """None where no two rows could be compared."""
    if not pairs.pairs:
        return None
    shown = [_line(pair, pair.ours, pair.theirs) for pair in pairs.pairs if _is_baselines(pair)]
    references = _references(pairs)
    for pair in pairs.pairs:
        if pair.ours.setup.expert != pair.theirs.setup.expert:
            continue
        reference = references.get(pair.ours.setup.expert)
        if pair.theirs is reference and not pair.ours.is_baseline:
            shown.append(_line(pair, pair.ours, pair.theirs))
        elif pair.ours is reference and not pair.theirs.is_baseline:
            shown.append(_line(pair, pair.theirs, pair.ours, turned=True))
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
            "benchmark": one.benchmark,
            "n": one.questions,
            "won": one.won,
            "lost": one.lost,
            "p_majority": one.p_majority,
            "p_mean": one.p_mean,
            "difference": scaled(one.difference),
            "low": scaled(one.low),
            "high": scaled(one.high),
        }
        for pair in pairs.pairs
        for one in pair.comparisons
    ]
    return without_lone_expert(Table(name, "Significance", columns, shown, records, [EXPLANATION]))


def _is_baselines(pair: Pair) -> bool:
    ours, theirs = pair.ours, pair.theirs
    return theirs.is_baseline and ours.setup.expert == theirs.setup.expert


def _references(pairs: Pairs) -> dict[str, Row]:
    """The LightReasoner row of each expert that has just one, decoded greedily."""
    found: dict[str, dict[int, Row]] = {}
    for pair in pairs.pairs:
        for row in (pair.ours, pair.theirs):
            if (row.setup.method, row.setup.decoder) == ("lightreasoner", "greedy"):
                found.setdefault(row.setup.expert, {})[id(row)] = row
    return {expert: next(iter(rows.values())) for expert, rows in found.items() if len(rows) == 1}


def _line(pair: Pair, ours: Row, theirs: Row, turned: bool = False) -> list[str]:
    one = pair.overall
    sign = -1 if turned else 1
    low, high = sorted((sign * one.low, sign * one.high))
    won, lost = (one.lost, one.won) if turned else (one.won, one.lost)
    return [
        ours.setup.expert,
        ours.label,
        theirs.label,
        signed(100 * sign * one.difference),
        between(low, high),
        f"{won:,}",
        f"{lost:,}",
        p_value(one.p_majority),
        p_value(one.p_mean),
    ]
