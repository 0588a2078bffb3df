"""From runs to the rows of a table: runs that differ in the seed alone are one row.

Knows which runs belong together and what makes them disagree; knows nothing of layouts.
"""

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
_CHOICES = ("amateur", "data", "alpha", "beta")  # that rows of one variant can differ in


@dataclass(frozen=True)
class Row:
    """One variant: what it is, the runs it was measured in, what came.

    A seed in which nothing was trained counts with the expert's own results: that is what the
    method leaves.
    """

    setup: Setup
    runs: tuple[Run, ...] = ()  # one a seed; of the baseline, the fullest that measured it
    results: Results = field(default_factory=Results)
    average: Estimate | None = None  # over the table's benchmarks
    gain: Estimate | None = None  # of the average over the baseline's
    label: str = ""
    remarks: tuple[str, ...] = ()  # on seeds that failed, or in which nothing was trained
    seeds: tuple[int, ...] = ()  # that the numbers are over
    lost: tuple[int | None, ...] = ()  # seeds without results, as far as they are known
    papers: Setup | None = None  # what published numbers are asked for; None for other models
    differs: tuple[str, ...] = ()  # settings that the paper has otherwise

    @property
    def is_baseline(self) -> bool:
        return self.setup.method == BASELINE

    @property
    def remark(self) -> str | None:
        """All remarks, in full."""
        return "; ".join(self.remarks) or None

    @property
    def warnings(self) -> list[str]:
        """What its runs had to say about an odd pair of models, each once."""
        own = () if self.is_baseline else self.runs
        return list(dict.fromkeys(text for run in own for text in run.warnings))

    @property
    def asked(self) -> int:
        """How many seeds were run, whatever came of them."""
        return len(self.seeds) + len(self.lost)

    @property
    def trained(self) -> int:
        """How many seeds left a tuned expert."""
        return sum(not run.stopped for run in self.runs)


@dataclass(frozen=True)
class Sweep:
    """The runs of one sweep, and the rows they make."""

    name: str | None  # as the runs tell it
    runs: list[Run]
    failed: list[Failed]
    rows: list[Row]
    benchmarks: list[str]
    notes: list[str]

    @property
    def warnings(self) -> list[str]:
        """What runs had to say about odd pairs, with the rows that it is about."""
        about: dict[str, list[str]] = {}
        for row in self.rows:
            for text in row.warnings:
                about.setdefault(text, []).append(f"{row.label} of {row.setup.expert}")
        return [f"Warning: {text} ({'; '.join(rows)})" for text, rows in about.items()]

    @property
    def table(self) -> str:
        """Which of the known tables it is."""
        plain = (self.name or "").removeprefix("micro_")
        return plain if plain in _TABLES else "results"


def sweeps(found: Found) -> list[Sweep]:
    """All sweeps that have a finished or a failed run, by name; runs of none come first.

    Raises:
        UserError: runs of one table do not belong together.
    """
    names = sorted({run.sweep for run in found.runs} | {one.sweep for one in found.failed}, key=_no)
    made = []
    for name in names:
        runs = [run for run in found.runs if run.sweep == name]
        failed = [one for one in found.failed if one.sweep == name]
        made.append(_sweep(name, runs, failed))
    return made


def _no(name: str | None) -> str:
    return name or ""


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
    """The untuned expert, decoded greedily, however the row is decoded."""
    wanted = (True, row.setup.expert, "greedy")
    own = (one for one in rows if (one.is_baseline, one.setup.expert, one.setup.decoder) == wanted)
    return next(own, None)


def _gain(row: Row, rows: Sequence[Row], benchmarks: Sequence[str]) -> Estimate | None:
    baseline = baseline_of(row, rows)
    if baseline is None or baseline is row:
        return None
    return results.gain(row.results, baseline.results, benchmarks)


def _beside_the_paper(row: Row) -> Row:
    if not row.runs:  # nothing tells which models and settings it would have had
        return row
    settings = row.runs[0].settings
    papers = published.papers_own(row.setup, settings)
    return replace(row, papers=papers, differs=published.differences(row.setup, settings))


def _baselines(runs: Sequence[Run], notes: list[str]) -> list[Row]:
    """One row an expert and decoder: the same evaluation stands in each cell's summary."""
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
    # The decoder itself asks the amateur and masks by alpha, whatever the method reads.
    amateur = run.amateur or run.settings.get("amateur", {}).get("name")
    alpha = run.settings.get("alpha")
    return Setup(run.expert, BASELINE, amateur=amateur, alpha=alpha, decoder=run.decoder)


def _variants(runs: Sequence[Run], failed: Sequence[Failed], notes: list[str]) -> list[Row]:
    """One row a setup, of all its seeds."""
    tuning = [run for run in runs if run.results("tuned") or run.summary.distill or run.stopped]
    groups = repeats.grouped(tuning, _setup)
    failures: dict[Setup, list[Failed]] = {}
    rows = []
    for one in failed:
        setup = _setup_of_failed(one, groups)
        if setup is not None:
            failures.setdefault(setup, []).append(one)
        elif one.expert or one.overrides:
            rows.append(_row_of_unknown(one))
    for setup in dict.fromkeys([*groups, *failures]):
        own = groups.get(setup, [])
        kept = []
        if own:
            check_label = f"{setup.label}, {_choices(setup)}"
            notes += check.check_row(check_label, own)
            kept = repeats.one_a_seed(check_label, own, notes)
        rows.append(_variant(setup, kept, failures.get(setup, [])))
    return rows


def _variant(setup: Setup, runs: Sequence[Run], failed: Sequence[Failed]) -> Row:
    """The row of one setup.

    Args:
        setup: what it is of.
        runs: one a seed.
        failed: its cells that ended in an error; of a seed that also finished, they do not count.
    """
    measured = [run for run in runs if run.results(run.outcome)]
    counted = measured or runs  # where none was evaluated, a row tells costs alone
    missing = [run for run in runs if run not in counted]
    finished = {run.seed for run in runs}
    failures = {one.seed: one for one in failed if one.seed not in finished}
    asked = len(runs) + len(failures)
    stops = [run.stopped for run in runs if run.stopped]
    told = [
        _told_of_seeds(len(stops), asked, "nothing trained", stops, colon=True),
        _told_of_seeds(len(missing), asked, "not evaluated", []),
        _told_of_seeds(
            len(failures),
            asked,
            "damaged" if all(one.is_damaged for one in failures.values()) else "failed",
            [one.error for one in failures.values()],
        ),
    ]
    return Row(
        setup,
        tuple(runs),
        results.read_results([(run, run.outcome) for run in measured]) if measured else Results(),
        remarks=tuple(filter(None, told)),
        seeds=tuple(run.seed for run in counted),
        lost=(*(run.seed for run in missing), *failures),
    )


def _told_of_seeds(
    count: int, asked: int, what: str, reasons: Sequence[str], colon: bool = False
) -> str | None:
    """`1 of 3 seeds failed: out of memory`; of all seeds, `failed: out of memory`."""
    if not count:
        return None
    if count < asked:
        what = f"{count} of {asked} seeds{':' if colon else ''} {what}"
    return ": ".join([what, *([" / ".join(dict.fromkeys(reasons))] if reasons else [])])


def _setup(run: Run) -> Setup:
    return Setup(run.expert, run.method, run.amateur, run.data, run.alpha, run.beta, run.decoder)


def _setup_of_failed(failed: Failed, known: Collection[Setup]) -> Setup | None:
    """The setup that a failed cell was to be of.

    None where it failed before that was known, or where it names no method and nobody finished it.
    A cell without a summary is known by its settings, in which stands a beta that its method may
    not read: it is of the one finished setup that it agrees with, if there is one.
    """
    if failed.expert is None:
        return None
    told = dict(word.split("=", 1) for word in failed.overrides if "=" in word)
    setup = Setup(
        failed.expert,
        failed.method,
        failed.amateur,
        failed.data,
        failed.alpha,
        failed.beta,
        told.get("evaluator.decoder", "greedy"),
    )
    if failed.is_damaged and setup not in known:
        alike = [one for one in known if _agrees(one, setup)]
        setup = alike[0] if len(alike) == 1 else setup
    return setup if failed.method or setup in known else None


def _agrees(known: Setup, asked: Setup) -> bool:
    """Whether a setup may be what settings asked for: it has no choice that they have otherwise."""
    same = (known.expert, known.method, known.decoder) == (
        asked.expert,
        asked.method,
        asked.decoder,
    )
    return same and all(getattr(known, key) in (None, getattr(asked, key)) for key in _CHOICES)


def _row_of_unknown(failed: Failed) -> Row:
    told = dict(word.split("=", 1) for word in failed.overrides if "=" in word)
    expert = failed.expert or told.get("expert") or "unknown expert"
    return Row(
        Setup(expert, failed.method or "unknown method"),
        label=" ".join(failed.overrides) or failed.name,
        remarks=(f"{'damaged' if failed.is_damaged else 'failed'}: {failed.error}",),
        lost=(failed.seed,),
    )


def _labelled(rows: Sequence[Row]) -> list[Row]:
    """Each row's name: its variant, and those choices that its variant's rows differ in."""
    made = []
    for row in rows:
        alike = [
            one.setup
            for one in rows
            if (one.setup.expert, one.setup.label) == (row.setup.expert, row.setup.label)
        ]
        apart = {
            key for key in _CHOICES if len({getattr(setup, key) for setup in alike} - {None}) > 1
        }
        label = ", ".join([row.setup.label, *_told(row.setup, apart)])
        made.append(row if row.label else replace(row, label=label))
    return made


def _choices(setup: Setup) -> str:
    return ", ".join([setup.expert, *_told(setup, set(_CHOICES))])


def _told(setup: Setup, keys: set[str]) -> list[str]:
    named = [f"{key} {getattr(setup, key)}" for key in ("amateur", "data") if key in keys]
    signs = {"alpha": "α", "beta": "β"}  # noqa: RUF001
    numbers = [
        f"{signs[key]} {getattr(setup, key):g}"
        for key in signs
        if key in keys and getattr(setup, key) is not None
    ]
    return [word for word in named if not word.endswith(" None")] + numbers
