"""From runs to the rows of a table: runs that differ in the seed alone are one row.

Knows which runs belong together and what makes them disagree; knows nothing of layouts.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from lr_exp.report import check, repeats, results
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


@dataclass(frozen=True)
class Row:
    """One variant: what it is, the runs it was measured in, what came."""

    setup: Setup
    runs: tuple[Run, ...] = ()  # one a seed; of the baseline, the first that measured it
    results: Results = field(default_factory=Results)
    average: Estimate | None = None  # over the table's benchmarks
    gain: Estimate | None = None  # of the average over the baseline's
    label: str = ""
    status: str | None = None  # why there are no numbers, or why they are the expert's
    seeds: tuple[int, ...] = ()

    @property
    def is_baseline(self) -> bool:
        return self.setup.method == BASELINE


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
    def table(self) -> str:
        """Which of the known tables it is."""
        plain = (self.name or "").removeprefix("micro_")
        return plain if plain in _TABLES else "results"


def sweeps(found: Found) -> list[Sweep]:
    """All sweeps that have a finished run, by name; runs of none come first.

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
    for of_expert in repeats.grouped(runs, lambda run: run.expert).values():
        check.check_expert(of_expert)
    notes = check.machine_notes(runs)
    benchmarks = list(dict.fromkeys(b for run in runs for b in run.benchmarks))
    benchmarks = [b for b in benchmarks if any(b in run.results("expert") for run in runs)]
    rows = [*_baselines(runs, notes), *_variants(runs, notes), *map(_failed_row, failed)]
    rows = _labelled(sorted(rows, key=lambda row: row.setup.order))
    rows = [replace(row, average=results.average(row.results, benchmarks)) for row in rows]
    rows = [replace(row, gain=_gain(row, rows, benchmarks)) for row in rows]
    return Sweep(name, runs, failed, rows, benchmarks, notes)


def baseline_of(row: Row, rows: Iterable[Row]) -> Row | None:
    """The untuned expert, decoded greedily, else as the row is."""
    own = [one for one in rows if one.is_baseline and one.setup.expert == row.setup.expert]
    for decoder in ("greedy", row.setup.decoder):
        for one in own:
            if one.setup.decoder == decoder:
                return one
    return None


def _gain(row: Row, rows: Sequence[Row], benchmarks: Sequence[str]) -> Estimate | None:
    baseline = baseline_of(row, rows)
    if baseline is None or baseline is row:
        return None
    return results.gain(row.results, baseline.results, benchmarks)


def _baselines(runs: Sequence[Run], notes: list[str]) -> list[Row]:
    """One row an expert and decoder: the same evaluation stands in each cell's summary."""
    measured = [run for run in runs if run.results("expert")]
    rows = []
    for setup, own in repeats.grouped(measured, _baseline_setup).items():
        fullest = max(own, key=lambda run: len(run.results("expert")))
        repeats.check_agree(f"{setup.label} of {setup.expert}", fullest, own, notes)
        rows.append(Row(setup, (fullest,), results.read_results([fullest], "expert")))
    return rows


def _baseline_setup(run: Run) -> Setup:
    if run.decoder != "contrastive":
        return Setup(run.expert, BASELINE, decoder=run.decoder)
    # The decoder itself asks the amateur and masks by alpha, whatever the method reads.
    settings = run.summary["settings"]
    amateur = run.amateur or (settings.get("amateur") or {}).get("name")
    alpha = settings.get("alpha")
    return Setup(run.expert, BASELINE, amateur=amateur, alpha=alpha, decoder=run.decoder)


def _variants(runs: Sequence[Run], notes: list[str]) -> list[Row]:
    """One row a setup, and one more for its seeds in which nothing was trained."""
    rows = []
    tuning = [run for run in runs if run.results("tuned") or run.part("distill") or _stopped(run)]
    for setup, own in repeats.grouped(tuning, _setup).items():
        check_label = f"{setup.label}, {_choices(setup)}"
        notes += check.check_row(check_label, own)
        finished = repeats.one_a_seed(check_label, [run for run in own if not _stopped(run)], notes)
        if finished:
            # A seed without an evaluation has nothing to average.
            evaluated = [run for run in finished if run.results("tuned")]
            got = results.read_results(evaluated, "tuned") if evaluated else Results()
            seeds = tuple(run.seed for run in evaluated or finished)
            rows.append(Row(setup, tuple(finished), got, seeds=seeds))
        stopped = repeats.one_a_seed(check_label, [run for run in own if _stopped(run)], notes)
        if stopped:
            status = f"nothing trained: {_stopped(stopped[0])}"
            seeds = tuple(run.seed for run in stopped)
            # What the method leaves is the expert as it was, and that was measured.
            got = results.read_results(stopped, "expert")
            rows.append(Row(setup, tuple(stopped), got, status=status, seeds=seeds))
    return rows


def _stopped(run: Run) -> str | None:
    return None if run.results("tuned") else run.summary.get("stopped")


def _setup(run: Run) -> Setup:
    numbers = {"alpha": run.number("alpha"), "beta": run.number("beta")}
    return Setup(run.expert, run.method, run.amateur, run.data, decoder=run.decoder, **numbers)


def _failed_row(failed: Failed) -> Row:
    told = dict(word.split("=", 1) for word in failed.overrides if "=" in word)
    setup = Setup(
        failed.expert or "unknown expert",
        failed.method or "unknown method",
        failed.amateur,
        failed.data,
        failed.alpha,
        failed.beta,
        told.get("evaluator.decoder", "greedy"),
    )
    label = "" if failed.method else (" ".join(failed.overrides) or failed.name)
    seeds = () if failed.seed is None else (failed.seed,)
    return Row(setup, label=label, status=f"failed: {failed.error}", seeds=seeds)


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
            key
            for key in ("amateur", "data", "alpha", "beta")
            if len({getattr(setup, key) for setup in alike} - {None}) > 1
        }
        label = ", ".join([row.setup.label, *_told(row.setup, apart)])
        made.append(row if row.label else replace(row, label=label))
    return made


def _choices(setup: Setup) -> str:
    return ", ".join([setup.expert, *_told(setup, {"amateur", "data", "alpha", "beta"})])


def _told(setup: Setup, keys: set[str]) -> list[str]:
    named = [f"{key} {getattr(setup, key)}" for key in ("amateur", "data") if key in keys]
    signs = {"alpha": "α", "beta": "β"}  # noqa: RUF001
    numbers = [
        f"{signs[key]} {getattr(setup, key):g}"
        for key in signs
        if key in keys and getattr(setup, key) is not None
    ]
    return [word for word in named if not word.endswith(" None")] + numbers
