"""Groups runs into the rows of a table: runs that differ only in their seed form one row."""

from collections.abc import Collection, Sequence
from dataclasses import astuple, dataclass, field, replace

from lr_exp.report import published
from lr_exp.report.analyse import comparable
from lr_exp.report.analyse.accuracies import Results, average_of, gain_of, read_results
from lr_exp.report.analyse.comparable import grouped
from lr_exp.report.analyse.paired import Estimate
from lr_exp.report.names import BASELINE, Setup
from lr_exp.report.read.incomplete import Failed
from lr_exp.report.read.runs import Found, Run

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
    published_setup: Setup | None = None  # None for models that are not the paper's
    paper_differences: tuple[str, ...] = ()  # settings that differ from the paper's

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
    def seed_count(self) -> int:
        """Number of seeds that were run, with or without results."""
        return len(self.seeds) + len(self.missing_seeds)

    @property
    def trained_count(self) -> int:
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
        warnings = [(text, row) for row in self.rows for text in row.warnings]
        return [
            f"Warning: {text} ({'; '.join(f'{row.label} of {row.setup.expert}' for _, row in own)})"
            for text, own in grouped(warnings, lambda warning: warning[0]).items()
        ]

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
    comparable.check_benchmarks(runs)
    comparable.check_histograms(runs)
    for of_expert in grouped(runs, lambda run: run.expert).values():
        comparable.check_expert(of_expert)
    notes = comparable.machine_notes(runs)
    benchmarks = list(dict.fromkeys(b for run in runs for b in run.benchmarks))
    benchmarks = [b for b in benchmarks if any(b in run.results("expert") for run in runs)]
    rows = [*_baselines(runs, notes), *_variants(runs, failed, notes)]
    rows.sort(key=lambda row: row.setup.order)
    rows = [_completed(row, rows, benchmarks) for row in rows]
    return Sweep(name, runs, failed, rows, benchmarks, notes)


def _completed(row: Row, rows: Sequence[Row], benchmarks: Sequence[str]) -> Row:
    """The row with what depends on the other rows or on the paper."""
    baseline = next((other for other in rows if _is_untuned(other, row.setup.expert)), None)
    settings = row.runs[0].settings if row.runs else None
    gain = None
    if baseline is not None and baseline is not row:
        gain = gain_of(row.results, baseline.results, benchmarks)
    return replace(
        row,
        label=row.label or _label(row.setup, rows),
        average=average_of(row.results, benchmarks),
        gain=gain,
        published_setup=published.paper_setup(row.setup, settings) if settings else None,
        paper_differences=published.differences(row.setup, settings) if settings else (),
    )


def _is_untuned(row: Row, expert: str) -> bool:
    """Whether the row is this expert's baseline.

    It always uses greedy decoding, whichever decoder the other rows use.
    """
    return row.is_baseline and (row.setup.expert, row.setup.decoder) == (expert, "greedy")


def _baselines(runs: Sequence[Run], notes: list[str]) -> list[Row]:
    """One row per expert and decoder: every run's summary repeats the same evaluation."""
    measured = [run for run in runs if run.results("expert")]
    rows = []
    for setup, own in grouped(measured, _baseline_setup).items():
        fullest = max(own, key=lambda run: len(run.results("expert")))
        comparable.check_agree(f"{setup.label} of {setup.expert}", fullest, own, notes)
        rows.append(Row(setup, (fullest,), read_results([(fullest, "expert")])))
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
    groups = grouped(tuning, _setup)
    failures: dict[Setup, list[Failed]] = {}
    rows = []
    for run in failed:
        setup = _setup_of_failed(run, groups)
        if setup is not None:
            failures.setdefault(setup, []).append(run)
        elif run.expert or run.overrides:
            rows.append(_row_of_unknown(run))
    for setup in dict.fromkeys([*groups, *failures]):
        label = ", ".join([setup.label, setup.expert, *_listed(setup, _CHOICES)])
        own = groups.get(setup, [])
        notes += comparable.check_row(label, own)
        kept = comparable.one_per_seed(label, own, notes)
        rows.append(_variant(setup, kept, failures.get(setup, [])))
    return rows


def _variant(setup: Setup, runs: Sequence[Run], failed: Sequence[Failed]) -> Row:
    """The row of one setup.

    Args:
        setup: of the row.
        runs: one per seed.
        failed: runs that ended in an error; ignored if the same seed also finished.
    """
    measured = [run for run in runs if run.results(run.final_model)]
    counted = measured or runs  # without evaluation, a row has only costs
    missing = [run for run in runs if run not in counted]
    finished = {run.seed for run in runs}
    failures = {run.seed: run for run in failed if run.seed not in finished}
    total = len(runs) + len(failures)
    stops = [run.stopped for run in runs if run.stopped]
    outcomes = {run.outcome for run in failures.values()}
    remarks = [
        _remark(len(stops), total, "nothing trained", stops, colon=":"),
        _remark(len(missing), total, "not evaluated", []),
        _remark(
            len(failures),
            total,
            "damaged" if outcomes == {"damaged"} else "failed",
            [run.error for run in failures.values()],
        ),
    ]
    return Row(
        setup,
        tuple(runs),
        read_results([(run, run.final_model) for run in measured]) if measured else Results(),
        remarks=tuple(filter(None, remarks)),
        seeds=tuple(run.seed for run in counted),
        missing_seeds=(*(run.seed for run in missing), *failures),
    )


def _remark(count: int, total: int, what: str, reasons: Sequence[str], colon: str = "") -> str:
    """`1 of 3 seeds failed: out of memory`, or `failed: out of memory` if all seeds did."""
    if not count:
        return ""
    if count < total:
        what = f"{count} of {total} seeds{colon} {what}"
    return f"{what}: {' / '.join(dict.fromkeys(reasons))}" if reasons else what


def _setup(run: Run | Failed) -> Setup:
    expert = run.expert or "unknown expert"
    return Setup(expert, run.method, run.amateur, run.data, run.alpha, run.beta, run.decoder)


def _setup_of_failed(failed: Failed, known: Collection[Setup]) -> Setup | None:
    """The setup of a failed run; None if it is unknown.

    The saved settings of a damaged run always include beta, even if its method does not use it. If
    exactly one finished setup matches them, that setup is used.
    """
    if failed.expert is None:
        return None
    setup = _setup(failed)
    if failed.is_damaged and setup not in known:
        matches = [other for other in known if _agrees(other, setup)]
        setup = matches[0] if len(matches) == 1 else setup
    return setup if failed.method or setup in known else None


def _agrees(known: Setup, configured: Setup) -> bool:
    """Whether every choice of `known` is None or as configured."""
    choices = zip(astuple(known), astuple(configured), strict=True)
    return known.method == configured.method and all(own in (None, set_) for own, set_ in choices)


def _row_of_unknown(failed: Failed) -> Row:
    expert = failed.expert or failed.override("expert") or "unknown expert"
    return Row(
        Setup(expert, failed.method or "unknown method"),
        label=" ".join(failed.overrides) or failed.name,
        remarks=(f"{failed.outcome}: {failed.error}",),
        missing_seeds=(failed.seed,),
    )


def _label(setup: Setup, rows: Sequence[Row]) -> str:
    """The variant, and the choices in which the variant's rows differ."""
    variant = setup.expert, setup.label
    siblings = [row.setup for row in rows if (row.setup.expert, row.setup.label) == variant]
    varied = [
        key for key in _CHOICES if len({getattr(other, key) for other in siblings} - {None}) > 1
    ]
    return ", ".join([setup.label, *_listed(setup, varied)])


def _listed(setup: Setup, keys: Collection[str]) -> list[str]:
    """`amateur micro`, `data gsm8k`, ...; choices that no stage read are left out."""
    signs = {"alpha": "α", "beta": "β"}  # noqa: RUF001
    values = {key: getattr(setup, key) for key in _CHOICES if key in keys}
    return [
        f"{signs[key]} {value:g}" if key in signs else f"{key} {value}"
        for key, value in values.items()
        if value is not None
    ]
