"""Groups runs into the rows of a table: runs that differ only in their seed form one row."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace

from lr_exp.report import check, published, repeats, results
from lr_exp.report.names import BASELINE, Setup
from lr_exp.report.paired import Estimate
from lr_exp.report.results import Results
from lr_exp.report.runs import Failed, Found, Run

_TABLES = (
    "main_results",
    "ablation",
    "baselines",
    "contrastive_decoding",
    "expertise_gap",
    "efficiency",
    "alpha_beta",
    "kl_profile",
)
_CHOICES = ("amateur", "data", "alpha", "beta")  # that can differ between rows of a variant


@dataclass(frozen=True)
class Row:
    """One variant: its setup, runs and results.

    A seed in which nothing was trained counts with the expert's own results.
    """

    setup: Setup
    runs: tuple[Run, ...] = ()  # one per seed; for the baseline, the one with most benchmarks
    results: Results = field(default_factory=Results)
    average: Estimate | None = None  # over the table's benchmarks
    gain: Estimate | None = None  # of `average` over the baseline's
    label: str = ""
    remarks: tuple[str, ...] = ()  # about seeds that failed or trained nothing
    seeds: tuple[int, ...] = ()  # behind the numbers
    lost: tuple[int | None, ...] = ()  # seeds without results; None if unknown
    papers: Setup | None = None  # setup with published numbers; None for other models
    differs: tuple[str, ...] = ()  # settings that differ from the paper's

    @property
    def is_baseline(self) -> bool:
        return self.setup.method == BASELINE

    @property
    def remark(self) -> str | None:
        """All remarks, not shortened."""
        return "; ".join(self.remarks) or None

    @property
    def warnings(self) -> list[str]:
        """The runs' distinct warnings about the pair of models."""
        own = () if self.is_baseline else self.runs
        return list(dict.fromkeys(text for run in own for text in run.warnings))

    @property
    def asked(self) -> int:
        """Number of seeds that were run, with or without results."""
        return len(self.seeds) + len(self.lost)

    @property
    def trained(self) -> int:
        """Number of seeds with a tuned expert."""
        return sum(not run.stopped for run in self.runs)


@dataclass(frozen=True)
class Sweep:
    """The runs of one sweep and their rows."""

    name: str | None
    runs: list[Run]
    failed: list[Failed]
    rows: list[Row]
    benchmarks: list[str]
    notes: list[str]

    @property
    def warnings(self) -> list[str]:
        """The runs' warnings about pairs of models, with the rows that they apply to."""
        rows_by_text: dict[str, list[str]] = {}
        for row in self.rows:
            for text in row.warnings:
                rows_by_text.setdefault(text, []).append(f"{row.label} of {row.setup.expert}")
        return [f"Warning: {text} ({'; '.join(rows)})" for text, rows in rows_by_text.items()]

    @property
    def table(self) -> str:
        """The kind of table: one of the paper's, or `results`."""
        plain = (self.name or "").removeprefix("micro_")
        return plain if plain in _TABLES else "results"


def sweeps(found: Found) -> list[Sweep]:
    """All sweeps with a finished or failed run, by name; first the runs without a sweep.

    Raises:
        UserError: runs of one table cannot be compared.
    """
    names = {run.sweep for run in [*found.runs, *found.failed]}
    return [
        _sweep(
            name,
            [run for run in found.runs if run.sweep == name],
            [run for run in found.failed if run.sweep == name],
        )
        for name in sorted(names, key=lambda name: name or "")
    ]


def _sweep(name: str | None, runs: list[Run], failed: list[Failed]) -> Sweep:
    check.check_benchmarks(runs)
    check.check_histograms(runs)
    for of_expert in repeats.grouped(runs, lambda run: run.expert).values():
        check.check_expert(of_expert)
    notes = check.machine_notes(runs)
    benchmarks = list(dict.fromkeys(b for run in runs for b in run.benchmarks))
    benchmarks = [b for b in benchmarks if any(b in run.results("expert") for run in runs)]
    rows = [*_baselines(runs, notes), *_variants(runs, failed, notes)]
    rows = _labelled(sorted(rows, key=lambda row: row.setup.order))
    rows = [replace(row, average=results.average(row.results, benchmarks)) for row in rows]
    rows = [replace(row, gain=_gain(row, rows, benchmarks)) for row in rows]
    rows = [_beside_the_paper(row) for row in rows]
    return Sweep(name, runs, failed, rows, benchmarks, notes)


def baseline_of(row: Row, rows: Iterable[Row]) -> Row | None:
    """The untuned expert with greedy decoding, whatever the row's decoder."""
    for other in rows:
        setup = other.setup
        if other.is_baseline and (setup.expert, setup.decoder) == (row.setup.expert, "greedy"):
            return other
    return None


def _gain(row: Row, rows: Sequence[Row], benchmarks: Sequence[str]) -> Estimate | None:
    baseline = baseline_of(row, rows)
    if baseline is None or baseline is row:
        return None
    return results.gain(row.results, baseline.results, benchmarks)


def _beside_the_paper(row: Row) -> Row:
    if not row.runs:  # models and settings are unknown
        return row
    settings = row.runs[0].settings
    papers = published.paper_setup(row.setup, settings)
    return replace(row, papers=papers, differs=published.differences(row.setup, settings))


def _baselines(runs: Sequence[Run], notes: list[str]) -> list[Row]:
    """One row per expert and decoder: every run's summary repeats the same evaluation."""
    measured = [run for run in runs if run.results("expert")]
    rows = []
    for setup, own in repeats.grouped(measured, _baseline_setup).items():
        fullest = max(own, key=lambda run: len(run.results("expert")))
        repeats.check_agree(f"{setup.label} of {setup.expert}", fullest, own, notes)
        rows.append(Row(setup, (fullest,), results.read_results([(fullest, "expert")])))
    return rows


def _baseline_setup(run: Run) -> Setup:
    if run.decoder != "contrastive":
        return Setup(run.expert, BASELINE, decoder=run.decoder)
    # The decoder reads the amateur and alpha even if the method does not.
    amateur = run.amateur or run.settings.get("amateur", {}).get("name")
    alpha = run.settings.get("alpha")
    return Setup(run.expert, BASELINE, amateur=amateur, alpha=alpha, decoder=run.decoder)


def _variants(runs: Sequence[Run], failed: Sequence[Failed], notes: list[str]) -> list[Row]:
    """One row per setup, with all its seeds."""
    tuning = [run for run in runs if run.results("tuned") or run.summary.distill or run.stopped]
    groups = repeats.grouped(tuning, _setup)
    failures: dict[Setup, list[Failed]] = {}
    rows = []
    for run in failed:
        setup = _setup_of_failed(run, groups)
        if setup is not None:
            failures.setdefault(setup, []).append(run)
        elif run.expert or run.overrides:
            rows.append(_row_of_unknown(run))
    for setup in dict.fromkeys([*groups, *failures]):
        own = groups.get(setup, [])
        kept = []
        if own:
            label = f"{setup.label}, {_choices(setup)}"
            notes += check.check_row(label, own)
            kept = repeats.one_per_seed(label, own, notes)
        rows.append(_variant(setup, kept, failures.get(setup, [])))
    return rows


def _variant(setup: Setup, runs: Sequence[Run], failed: Sequence[Failed]) -> Row:
    """The row of one setup.

    Args:
        setup: of the row.
        runs: one per seed.
        failed: runs that ended in an error; ignored if the same seed also finished.
    """
    measured = [run for run in runs if run.results(run.outcome)]
    counted = measured or runs  # without evaluation, a row has only costs
    missing = [run for run in runs if run not in counted]
    finished = {run.seed for run in runs}
    failures = {run.seed: run for run in failed if run.seed not in finished}
    total = len(runs) + len(failures)
    stops = [run.stopped for run in runs if run.stopped]
    outcome = "damaged" if all(run.is_damaged for run in failures.values()) else "failed"
    errors = [run.error for run in failures.values()]
    remarks = [
        _remark(len(stops), total, "nothing trained", stops, colon=True),
        _remark(len(missing), total, "not evaluated", []),
        _remark(len(failures), total, outcome, errors),
    ]
    return Row(
        setup,
        tuple(runs),
        results.read_results([(run, run.outcome) for run in measured]) if measured else Results(),
        remarks=tuple(filter(None, remarks)),
        seeds=tuple(run.seed for run in counted),
        lost=(*(run.seed for run in missing), *failures),
    )


def _remark(
    count: int, total: int, what: str, reasons: Sequence[str], colon: bool = False
) -> str | None:
    """`1 of 3 seeds failed: out of memory`, or `failed: out of memory` if all seeds did."""
    if not count:
        return None
    if count < total:
        what = f"{count} of {total} seeds{':' if colon else ''} {what}"
    return ": ".join([what, *([" / ".join(dict.fromkeys(reasons))] if reasons else [])])


def _setup(run: Run) -> Setup:
    return Setup(run.expert, run.method, run.amateur, run.data, run.alpha, run.beta, run.decoder)


def _setup_of_failed(failed: Failed, known: Collection[Setup]) -> Setup | None:
    """The setup of a failed run; None if it is unknown.

    A damaged run is known only by its settings, which have a beta even if the method does not read
    it. Its setup is then the only finished one that agrees with these settings.
    """
    if failed.expert is None:
        return None
    overrides = dict(word.split("=", 1) for word in failed.overrides if "=" in word)
    setup = Setup(
        failed.expert,
        failed.method,
        failed.amateur,
        failed.data,
        failed.alpha,
        failed.beta,
        overrides.get("evaluator.decoder", "greedy"),
    )
    if failed.is_damaged and setup not in known:
        matches = [other for other in known if _agrees(other, setup)]
        setup = matches[0] if len(matches) == 1 else setup
    return setup if failed.method or setup in known else None


def _agrees(known: Setup, configured: Setup) -> bool:
    """Whether every choice of `known` is None or as configured."""
    return all(
        getattr(known, key) == getattr(configured, key) for key in ("expert", "method", "decoder")
    ) and all(getattr(known, key) in (None, getattr(configured, key)) for key in _CHOICES)


def _row_of_unknown(failed: Failed) -> Row:
    overrides = dict(word.split("=", 1) for word in failed.overrides if "=" in word)
    expert = failed.expert or overrides.get("expert") or "unknown expert"
    return Row(
        Setup(expert, failed.method or "unknown method"),
        label=" ".join(failed.overrides) or failed.name,
        remarks=(f"{'damaged' if failed.is_damaged else 'failed'}: {failed.error}",),
        lost=(failed.seed,),
    )


def _labelled(rows: Sequence[Row]) -> list[Row]:
    """Labels each row with its variant, and with the choices in which the variant's rows differ."""
    labelled = []
    for row in rows:
        siblings = [
            other.setup
            for other in rows
            if (other.setup.expert, other.setup.label) == (row.setup.expert, row.setup.label)
        ]
        varied = {
            key for key in _CHOICES if len({getattr(setup, key) for setup in siblings} - {None}) > 1
        }
        label = ", ".join([row.setup.label, *_listed(row.setup, varied)])
        labelled.append(row if row.label else replace(row, label=label))
    return labelled


def _choices(setup: Setup) -> str:
    return ", ".join([setup.expert, *_listed(setup, set(_CHOICES))])


def _listed(setup: Setup, keys: set[str]) -> list[str]:
    named = [f"{key} {getattr(setup, key)}" for key in ("amateur", "data") if key in keys]
    signs = {"alpha": "α", "beta": "β"}  # noqa: RUF001
    numbers = [
        f"{signs[key]} {getattr(setup, key):g}"
        for key in signs
        if key in keys and getattr(setup, key) is not None
    ]
    return [word for word in named if not word.endswith(" None")] + numbers
