"""What a sweep can detect, and what it costs, before it runs."""

import json
import shlex
import textwrap
from collections.abc import Mapping, Sequence
from math import hypot, sqrt
from pathlib import Path
from statistics import fmean, median

from scipy.special import stdtrit

from lr_exp.api import compose
from lr_exp.claims.declared import Claim
from lr_exp.config.composition import axis_words, conf_dir, count_cells
from lr_exp.config.options import ABOUT, option_files, read_option
from lr_exp.errors import UserError, did_you_mean
from lr_exp.report.analyse.comparable import flat
from lr_exp.report.analyse.compare import compare
from lr_exp.report.analyse.paired import Z95, student_t95
from lr_exp.report.analyse.rows import sweeps
from lr_exp.report.read.runs import Found, scan_folder
from lr_exp.report.tables.cell import number
from lr_exp.report.tables.formats import plain_table
from lr_exp.report.tables.table import Column, Table
from lr_exp.report.texts import report_text

DISCORDANT, SPREAD = 0.2, 0.02  # assumed without runs
_Z80 = 0.8416  # the 80 % quantile of the normal distribution


def detectable(discordant: float, spread: float, sizes: Sequence[int], seeds: int) -> float:
    """The difference of averages that a paired comparison finds with 80 % power at 5 %.

    With e^2 = sum over benchmarks of (d n + 2) / (n + 2)^2 / B^2 and s = spread / sqrt(seeds), as
    in `paired`: hypot(1.96 e, t_97.5 s) + hypot(0.84 e, t_80 s); s is 0 with one seed.

    Args:
        discordant: d, the share of questions that one of the two answers correctly.
        spread: standard deviation of the difference over seeds, as a share.
        sizes: n, the number of questions of each of the B benchmarks.
    """
    error = sqrt(sum((discordant * n + 2) / (n + 2) ** 2 for n in sizes)) / len(sizes)
    if seeds == 1:
        return (Z95 + _Z80) * error
    by_seed, freedom = spread / sqrt(seeds), seeds - 1
    power = hypot(_Z80 * error, float(stdtrit(freedom, 0.8)) * by_seed)
    return hypot(Z95 * error, student_t95(freedom) * by_seed) + power


def plan(
    name: str, claims: Mapping[str, Claim], questions: int | None = None, seeds: int | None = None
) -> str:
    """The plan of a sweep as text; raises UserError if it is unknown or evaluates nothing."""
    files = option_files([conf_dir()], "sweep")
    if name not in files:
        raise UserError(f"{name!r} is not a sweep.{did_you_mean(name, files)}")
    content = read_option(files[name])
    hydra, about = content.pop("hydra"), content.pop(ABOUT)
    params = hydra["sweeper"]["params"]
    axes = axis_words(params).values()
    first = [words[0] for words in axes]
    own = {key: value for key, value in flat(content).items() if key not in (*params, "sweep")}
    settings = compose(*first, *(f"{key}={json.dumps(value)}" for key, value in own.items()))
    if "evaluate" not in settings.stages:
        raise UserError(f"{name} evaluates nothing: it has no difference to detect.")
    limits = [limit for limit in (settings.evaluator.max_examples, questions) if limit]
    sizes = {one: min([_questions(one), *limits]) for one in settings.benchmarks}
    given = [f"seed={','.join(map(str, range(seeds)))}"] if seeds else []
    runs = count_cells(given, params)
    seeds = seeds or count_cells([], {"seed": params.get("seed", 0)}) or 1
    rows = {"assumed": (DISCORDANT, SPREAD), **_measured(name, Path(hydra["sweep"]["dir"]))}
    cells = []
    for source, (discordant, spread) in rows.items():
        assumed = SPREAD if spread is None else spread
        found = detectable(discordant, assumed, [*sizes.values()], seeds)
        numbers = (number(one and 100 * one) for one in (discordant, spread, found))
        cells.append([source, *numbers])
    titles = ("from", "discordant, %", "over seeds, points", "detectable, points")
    table = Table("plan", "", [Column(one, is_text=one == "from") for one in titles], cells, [])
    each = ", ".join(f"{key} {size:,}" for key, size in sizes.items())
    asked = [f"{key} ({one.needs})" for key, one in claims.items() if name in one.sweeps.values()]
    title = f"{name}: runs: {runs}; seeds: {seeds}; questions: {sum(sizes.values()):,} ({each})"
    one_run = shlex.join([f"+sweep={name}", *(words[0] for words in axes if len(words) > 1)])
    unknown = (
        "unknown, because the sweep's file has no measured one. Time one run and multiply by the "
        f"number of runs: python -m lr_exp -m {one_run}"
    )
    notes = [
        report_text("plan"),
        f"Claims: {', '.join(asked) or 'none'}",
        f"Cost, of the sweep's own seeds and questions: {about.get('cost', unknown)}",
    ]
    filled = [textwrap.fill(text, 80) for text in (title, *notes)]
    return "\n".join([filled[0], "", plain_table(table), "", *filled[1:]])


def _questions(benchmark: str) -> int:
    content = read_option(option_files([conf_dir()], "benchmark")[benchmark])
    return content.get("count") or content[ABOUT]["questions"]


def _measured(name: str, folder: Path) -> dict[str, tuple[float, float | None]]:
    """Discordant share and spread over seeds of pairs of rows; None where all have one seed."""
    runs = [run for run in scan_folder(folder).runs if run.sweep == name]
    pairs = [
        pair
        for sweep in sweeps(Found(runs, [], []))
        for pair in compare(sweep).pairs
        if pair.ours.setup.expert == pair.theirs.setup.expert
    ]
    if not pairs:
        return {}
    shares = [fmean((c.won + c.lost) / c.questions for c in p.comparisons[:-1]) for p in pairs]
    differences = [one for pair in pairs if (one := pair.overall.difference).seeds > 1]
    spreads = [sqrt(one.seed_variance * one.seeds) for one in differences]
    return {
        f"{key} of {len(pairs)} pairs": (of(shares), of(spreads) if spreads else None)
        for key, of in {"median": median, "largest": max}.items()
    }
