"""Compares single runs with the first of them, question by question."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from string import ascii_uppercase
from typing import Any

import numpy as np

from lr_exp.errors import UserError
from lr_exp.report.analyse.accuracies import Graded, Results
from lr_exp.report.analyse.comparable import machine
from lr_exp.report.analyse.compare import Comparison, comparisons
from lr_exp.report.names import AVERAGE
from lr_exp.report.read.run import Run, flat, shared_questions
from lr_exp.report.read.runs import find_runs

# Of the pair of runs rather than of their results, or listed under another name.
_NOT_COMPARED = (
    *("overrides", "store", "hub_root", "config_dirs", "wandb."),
    *("provenance.started", "provenance.device_name"),
)


@dataclass(frozen=True)
class Side:
    """A run, and which of its two models is compared: the tuned expert if it has one."""

    label: str  # A, B, ...
    place: Path
    run: Run
    who: str


@dataclass(frozen=True)
class RunComparison(Comparison):
    """The other run against the first one, on the questions that both answered."""

    first: float  # accuracies, in [0, 1]
    other: float
    unshared: int  # question ids without a common question


def sides_of(folders: Sequence[Path], where: Mapping[str, Any] | None) -> list[Side]:
    """One run for each folder. Raises UserError: a folder has none or several, or is repeated."""
    sides: list[Side] = []
    for label, folder in zip(ascii_uppercase, folders, strict=False):
        runs = find_runs(folder, where).runs
        if len(runs) > 1:
            raise UserError(
                f"{folder} contains {len(runs)} finished runs. To compare runs question by "
                f"question, give the folder of each, such as {runs[0].folder}, or choose one "
                "with --where KEY=VALUE."
            )
        run = runs[0]
        if any(run.folder.resolve() == one.run.folder.resolve() for one in sides):
            raise UserError(f"{folder} is given twice: give different runs.")
        who = "tuned" if run.results("tuned") else "expert"
        sides.append(Side(label, folder, run, who))
    if len(folders) > len(sides):
        raise UserError(f"{len(folders)} runs are given; at most {len(sides)} can be compared.")
    return sides


def compare(first: Side, other: Side) -> list[RunComparison]:
    """One comparison per common benchmark; of several, the last is their average.

    Raises UserError: the runs have no question in common. Raises AnswersMissingError.
    """
    theirs, ours = Results(), Results()
    unshared = {}
    for benchmark in first.run.results(first.who):
        if benchmark not in other.run.results(other.who):
            continue
        answers = [one.run.answers(one.who, benchmark) for one in (first, other)]
        if shared := tuple(shared_questions(*answers)):
            for results, own in zip((theirs, ours), answers, strict=True):
                correct = np.array([[own[key]["correct"] for key in shared]], dtype=float)
                results.graded[benchmark] = Graded(shared, correct)
            unshared[benchmark] = len(answers[0].keys() | answers[1].keys()) - len(shared)
    if not unshared:
        raise UserError(
            f"{first.place} and {other.place} have no question in common: compare runs on the "
            "same benchmarks."
        )

    def share(results: Results, benchmark: str) -> float:
        names = unshared if benchmark == AVERAGE else [benchmark]
        return fmean(results.graded[name].correct.mean() for name in names)

    return [
        RunComparison(
            **vars(one),
            first=share(theirs, one.benchmark),
            other=share(ours, one.benchmark),
            unshared=unshared.get(one.benchmark, 0),
        )
        for one in comparisons(ours, theirs)
        if one.benchmark in unshared or len(unshared) > 1
    ]


def differing_facts(sides: Sequence[Side]) -> dict[str, list[str]]:
    """The facts in which the runs differ, by name: their values, one for each run.

    Settings, digests of models, data and prompts, versions and the machine.
    """
    facts = [
        {"model compared": side.who, **machine(side.run), **flat(side.run.settings)}
        | flat(side.run.provenance.to_dict(), "provenance.")
        for side in sides
    ]
    names = dict.fromkeys(key for own in facts for key in own if not key.startswith(_NOT_COMPARED))
    found = {
        key: [str(own.get(key, "")) for own in facts]
        for key in names
        # Prompts are digested by benchmark: only those of common benchmarks can differ.
        if not key.startswith("provenance.prompts.") or all(key in own for own in facts)
    }
    return {key: values for key, values in found.items() if len({*values}) > 1}
