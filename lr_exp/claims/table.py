"""The table of claims: a verdict for the micro world and one for real models."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from lr_exp.claims.declared import WORLDS, Claim
from lr_exp.claims.judge import NO_RUNS, NOT_JUDGED, Finding, judge, overall
from lr_exp.config.composition import axis_words
from lr_exp.config.options import conf_dir, option_files, read_option
from lr_exp.errors import UserError
from lr_exp.report.analyse.comparable import grouped
from lr_exp.report.analyse.rows import Sweep, sweeps
from lr_exp.report.names import ABSENT
from lr_exp.report.read.runs import Found, find_runs
from lr_exp.report.tables.cell import signed
from lr_exp.report.tables.table import Table, notes_on_rows, table_of, text_column
from lr_exp.report.texts import report_text

_ONE_SEED = "the intervals do not cover other training runs."
_OTHER = ("+sweep=", "seed=", "wandb.", "store=", "device=", "hub_root=")  # overrides not compared
_CHANCE = 0.025  # of an interval that lies on one side of the true value


def judged(claims: Mapping[str, Claim], folders: Sequence[Path]) -> Table:
    """Each claim with its verdicts, then its numbers for each expert.

    Raises UserError if there are no runs that a claim is about, or they cannot be reported.
    """
    wanted = {sweep for claim in claims.values() for sweep in claim.sweeps.values()}
    every = [find_runs(folder) for folder in folders]
    runs = [run for found in every for run in found.runs if run.sweep in wanted]
    failed = [run for found in every for run in found.failed if run.sweep in wanted]
    if not runs:
        where = ", ".join(map(str, folders))
        listed = ", ".join(sorted(wanted))
        raise UserError(f"no claim can be judged: {where} has no finished run of {listed}.")
    known = {sweep.name: sweep for sweep in sweeps(Found(runs, failed, []))}
    lines, records = [], []
    missing: dict[str, list[str]] = {}  # claims without runs, by sweep
    for name, claim in claims.items():
        verdicts, numbers = dict.fromkeys(WORLDS, ABSENT), []
        for world, sweep in claim.sweeps.items():
            found = judge(claim, world, known[sweep]) if sweep in known else []
            verdicts[world] = overall(found)
            if verdicts[world] == NO_RUNS:
                missing.setdefault(sweep, []).append(name)
            for one in found:
                cells = dict.fromkeys(WORLDS, "") | {world: _text(claim, one)}
                numbers.append([f"of {one.expert}", *cells.values()])
                about = {"claim": name, "world": WORLDS[world], "sweep": sweep}
                records.append(about | vars(one) | {"needs": claim.needs})
        lines += [[name, *verdicts.values()], *numbers]
    heads = ("claim", *WORLDS.values())
    columns = [text_column(head, [line[i] for line in lines]) for i, head in enumerate(heads)]
    count = sum(one["low"] != one["high"] for one in records)  # without exact counts
    commands = [f"{sweep} ({', '.join(names)})" for sweep, names in missing.items()]
    notes = [
        *(f"{name}: {one.claim} ({one.source}; {one.needs})" for name, one in claims.items()),
        report_text("verdicts"),
        f"Intervals are not corrected for their number: if all {count} true values lay at the end "
        f"of what their claims need, {count * _CHANCE:.1f} would be supported by chance, and as "
        "many refuted.",
        *(
            [f"No runs of {', '.join(commands)}: python -m lr_exp -m +sweep=NAME"]
            if missing
            else []
        ),
        *(
            f"Not judged: {', '.join(one['claim'] for one in own)} of {expert}: {reason}."
            for (expert, reason), own in grouped(
                (one for one in records if one["verdict"] == NOT_JUDGED),
                lambda one: (one["expert"], one["reason"]),
            ).items()
        ),
        *(note for sweep in known.values() for note in _limits(sweep)),
        *dict.fromkeys(note for sweep in known.values() for note in sweep.notes),
        *notes_on_rows(row for sweep in known.values() for row in sweep.rows if row.published),
    ]
    return table_of("claims", "Claims", columns, records, notes)


def _limits(sweep: Sweep) -> list[str]:
    """Notes on overrides and seeds that are not those of the sweep's file, and on a single seed."""
    ran = [word for run in sweep.runs for word in run.settings.get("overrides", [])]
    seeds = ",".join(map(str, sorted({run.seed for run in sweep.runs})))
    params = {}
    if path := option_files([conf_dir()], "sweep").get(sweep.name or ""):
        params = read_option(path)["hydra"]["sweeper"]["params"]
    own = {word for words in axis_words(params).values() for word in words}
    other = [word for word in dict.fromkeys(ran) if word not in own and not word.startswith(_OTHER)]
    if path and seeds != str(params.get("seed", 0)):
        other.append(f"seed={seeds}")
    notes = [f"{sweep.title} did not run as in its file: {', '.join(other)}."] if other else []
    if "," not in seeds:
        notes.append(f"{sweep.title} has one seed: {_ONE_SEED}")
    return notes


def _text(claim: Claim, one: Finding) -> str:
    """`+11.8 (+10.9 to +12.7)` in points, or `8.31 % (7.9 to 8.72)`."""
    numbers = [value for value in (one.value, one.low, one.high) if value is not None]
    if not numbers:
        return ABSENT
    if claim.kind == "ratio":
        return "{:.3g} % ({:.3g} to {:.3g})".format(*numbers)
    return "{} ({} to {})".format(*map(signed, numbers))
