"""Groups runs into the rows of a table: runs that differ only in their seed form one row."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace

from lr_exp.report import published
from lr_exp.report.analyse import comparable
from lr_exp.report.analyse.accuracies import Results, average_of, gain_of, read_results
from lr_exp.report.analyse.comparable import grouped
from lr_exp.report.analyse.paired import Estimate
from lr_exp.report.names import BASELINE, NO_SWEEP, SWEPT, Setup
from lr_exp.report.read.run import Incomplete, Run
from lr_exp.report.read.runs import Found

# May differ between a variant's rows.
_CHOICES = ("amateur", "data", "prompt", "alpha", "beta", "learning_rate", "swept")


@dataclass(frozen=True)
class Row:
    """One variant: its setup, runs and results.

    For a seed in which nothing was trained, the expert's results are used.
    """

    setup: Setup
    runs: tuple[Run, ...] = ()  # one per seed; for the baseline, the one with most benchmarks
    results: Results = field(default_factory=Results)
    average: Estimate | None = None  # over the table's benchmarks
    gain: Estimate | None = None  # of `average` over the baseline's
    label: str = ""
    remarks: tuple[str, ...] = ()  # about seeds that failed or trained nothing
    seeds: tuple[int, ...] = ()  # behind the numbers
    missing_seeds: tuple[int | None, ...] = ()  # seeds without results; None if unknown
    published: dict[str, float] = field(default_factory=dict)  # the paper's numbers
    paper_differences: tuple[str, ...] = ()  # settings that differ from the paper's
    mark: str = ""  # of its runs, at the end of the label

    @property
    def is_baseline(self) -> bool:
        return self.setup.method == BASELINE

    @property
    def full_label(self) -> str:
        """The label with the expert."""
        return f"{self.label} of {self.setup.expert}"

    @property
    def remark(self) -> str | None:
        """All remarks, not shortened."""
        return "; ".join(self.remarks) or None

    @property
    def seed_count(self) -> int:
        """Number of seeds that were run, with or without results."""
        return len(self.seeds) + len(self.missing_seeds)

    @property
    def trained_count(self) -> int:
        """Number of seeds with a tuned expert."""
        return sum(not run.stopped for run in self.runs)


@dataclass(frozen=True)
class Sweep:
    """The runs of one sweep and their rows. Runs of a bundle are a sweep of their own."""

    name: str | None
    runs: list[Run]
    rows: list[Row]
    benchmarks: list[str]
    notes: list[str]
    mark: str = ""  # of its runs

    @property
    def title(self) -> str:
        return f"{self.name or NO_SWEEP}{self.mark}"

    @property
    def best(self) -> list[Row]:
        """The row with the highest average of each expert that has several."""
        measured = [(row.average.mean, row) for row in self.rows if row.average]
        by_expert = grouped(measured, lambda pair: pair[1].setup.expert).values()
        return [max(own, key=lambda pair: pair[0])[1] for own in by_expert if len(own) > 1]

    @property
    def all_notes(self) -> list[str]:
        """The runs' warnings about pairs of models, each kind once with its rows, then notes."""
        trained = [row for row in self.rows if not row.is_baseline]
        found = [(text, row) for row in trained for run in row.runs for text in run.warnings]
        # Warnings of one kind differ in their numbers, which follow a colon.
        by_kind = grouped(found, lambda pair: pair[0].partition(":")[0]).values()
        labels = [dict.fromkeys(row.full_label for _, row in own) for own in by_kind]
        texts = [own[0][0] for own in by_kind]
        warnings = [
            f"Warning: {text} ({'; likewise '.join(rows)})"
            for text, rows in zip(texts, labels, strict=True)
        ]
        return [*warnings, *dict.fromkeys(self.notes)]

    @property
    def table(self) -> str:
        """The name of its main table: that of the paper's sweep that it repeats, if any."""
        return (self.name or "results").removeprefix("micro_")


def sweeps(found: Found) -> list[Sweep]:
    """All sweeps with a finished or failed run, by name; first the runs without a sweep.

    Raises UserError if runs of one table cannot be compared.
    """
    failed = [run for run in found.failed if run.expert]  # others have no row
    named = grouped([*found.runs, *failed], lambda run: (run.sweep or "", run.mark))
    return [_sweep(name or None, mark, named[name, mark]) for name, mark in sorted(named)]


def _sweep(name: str | None, mark: str, every: list[Run]) -> Sweep:
    failed = [run for run in every if isinstance(run, Incomplete)]
    runs = [run for run in every if not isinstance(run, Incomplete)]
    notes = comparable.check_sweep(runs)
    for of_expert in grouped(runs, lambda run: run.expert).values():
        comparable.check_expert(of_expert)
    benchmarks = list(dict.fromkeys(b for run in runs for b in run.benchmarks))
    benchmarks = [b for b in benchmarks if any(b in run.results("expert") for run in runs)]
    rows = [*_baselines(runs, notes), *_variants(runs, failed, notes)]
    rows.sort(key=lambda row: row.setup.order)
    rows = [_completed(row, rows, benchmarks, mark) for row in rows]
    return Sweep(name, runs, rows, benchmarks, notes, mark)


def _completed(row: Row, rows: Sequence[Row], benchmarks: Sequence[str], mark: str) -> Row:
    """The row with what depends on the other rows or on the paper."""
    # The untuned expert with greedy decoding, whichever decoder the row uses.
    greedy = Setup(row.setup.expert, BASELINE)
    baseline = next((other for other in rows if other.setup == greedy), row)
    gain = None if baseline is row else gain_of(row.results, baseline.results, benchmarks)
    settings = row.runs[0].settings if row.runs else {}
    is_papers = bool(row.runs) and published.has_papers_models(row.setup, settings)
    return replace(
        row,
        label=f"{_label(row.setup, rows)}{mark}",
        mark=mark,
        average=average_of(row.results, benchmarks),
        gain=gain,
        published=published.numbers(row.setup, benchmarks) if is_papers else {},
        paper_differences=published.differences(row.setup, settings),
    )


def _baselines(runs: Sequence[Run], notes: list[str]) -> list[Row]:
    """One row per expert and decoder: every run's summary repeats the same evaluation."""
    measured = [run for run in runs if run.results("expert")]
    rows = []
    for setup, own in grouped(measured, _baseline_setup).items():
        own.sort(key=lambda run: len(run.results("expert")), reverse=True)
        fullest, what = own[0], f"{setup.label} of {setup.expert}"
        notes += comparable.check_agree(
            what, own, lambda run: comparable.counts(run.results("expert"))
        )
        rows.append(Row(setup, (fullest,), read_results([(fullest, "expert")])))
    return rows


def _baseline_setup(run: Run) -> Setup:
    if run.decoder != "contrastive":
        return Setup(run.expert, BASELINE, decoder=run.decoder)
    # The decoder reads the amateur and alpha even if the method does not.
    amateur = run.amateur or run.settings.get("amateur", {}).get("name")
    alpha = run.settings.get("alpha")
    return Setup(run.expert, BASELINE, amateur=amateur, alpha=alpha, decoder=run.decoder)


def _variants(runs: Sequence[Run], failed: Sequence[Incomplete], notes: list[str]) -> list[Row]:
    """One row per setup, with all its seeds."""
    tuning = [run for run in runs if run.results("tuned") or run.summary.distill or run.stopped]
    swept = swept_keys(tuning)
    groups = grouped(tuning, lambda run: setup_of(run, swept))
    failures = grouped(failed, lambda run: setup_of(run, swept))
    rows = []
    for setup in dict.fromkeys([*groups, *failures]):
        label = ", ".join([setup.label, setup.expert, *setup.listed(*_CHOICES)])
        own = groups.get(setup, [])
        notes += comparable.check_row(label, own)
        kept = comparable.one_per_seed(label, own, notes)
        rows.append(_variant(setup, kept, failures.get(setup, [])))
    return rows


def _variant(setup: Setup, runs: Sequence[Run], failed: Sequence[Incomplete]) -> Row:
    """The row of one setup; a failed run is ignored if the same seed also finished."""
    measured = [run for run in runs if run.results(run.final_model)]
    counted = measured or runs  # without evaluation, a row has only costs
    missing = [run for run in runs if run not in counted]
    finished = {run.seed for run in runs}
    failures = {run.seed: run for run in failed if run.seed not in finished}
    total = len(runs) + len(failures)
    found = [("nothing trained", run.stopped) for run in runs if run.stopped]
    found += [("not evaluated", "") for _ in missing]
    found += [(run.outcome, run.error) for run in failures.values()]
    remarks = []
    for what, own in grouped(found, lambda one: one[0]).items():  # 1 of 3 seeds: failed: no memory
        reasons = " / ".join(dict.fromkeys(reason for _, reason in own))
        seeds = f"{len(own)} of {total} seeds" if len(own) < total else ""
        remarks.append(": ".join(filter(None, (seeds, what, reasons))))
    return Row(
        setup,
        tuple(runs),
        read_results([(run, run.final_model) for run in measured]) if measured else Results(),
        remarks=tuple(remarks),
        seeds=tuple(run.seed for run in counted),
        missing_seeds=(*(run.seed for run in missing), *failures),
    )


def swept_keys(runs: Sequence[Run]) -> list[str]:
    """The keys of `SWEPT` whose values differ between runs."""
    return [key for key in SWEPT if len({run.swept(key) for run in runs}) > 1]


def setup_of(run: Run, swept: Sequence[str] = ()) -> Setup:
    choices = {one.name: getattr(run, one.name) for one in fields(Setup) if one.name != "swept"}
    known = ((key, run.swept(key)) for key in swept)
    return Setup(**choices, swept=tuple((key, value) for key, value in known if value is not None))


def _label(setup: Setup, rows: Sequence[Row]) -> str:
    """The variant, and the choices in which the variant's rows differ."""
    variant = setup.expert, setup.label
    siblings = [row.setup for row in rows if (row.setup.expert, row.setup.label) == variant]
    varied = [
        key for key in _CHOICES if len({getattr(other, key) for other in siblings} - {None}) > 1
    ]
    return ", ".join([setup.label, *setup.listed(*varied)])
