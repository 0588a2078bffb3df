"""Finished runs and their answers as pandas tables, a row each, for tables of one's own.

Knows the files of a run through the report's readers; computes nothing that they do not say.
Imports no torch.
"""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from lr_exp.report.runs import WHO, AnswersMissingError, Failed, Run, Unfinished, find_runs

_CHOICES = ("sweep", "method", "expert", "amateur", "data", "alpha", "beta", "seed")


def read_runs(folder: str | Path) -> pd.DataFrame:
    """Every run below a folder: one row for each run and benchmark.

    Columns: `run` (its folder), what it was (`sweep`, `method`, `expert`, `amateur`, `data`,
    `alpha`, `beta` in nats, `seed`; None where no stage read it), `benchmark`, `questions`;
    `accuracy_before` and `accuracy_after` with `stderr_before` and `stderr_after`, and `gain`, as
    shares in [0, 1]; `trained`: where it is False the expert stayed as it was, and so does the
    accuracy; of the whole run `steps`, `kept`, `kl_mean_nats`, `tuned_tokens`, `peak_memory_bytes`
    and for each stage `sample_seconds`, `distill_seconds`, `evaluate_seconds`, which are those of
    the run that did the work where `sample_reused` (and so on) is True. A run that evaluated
    nothing has one row without a benchmark; one that failed, or did not finish, has one with its
    `error`, which is None elsewhere.

    Raises:
        UserError: there is no such folder, no finished run in it, or a summary cannot be read.
    """
    found = find_runs(Path(folder))
    rows = [row for run in found.runs for row in _rows(run)]
    rows += [_row_without_results(one, one.error) for one in found.failed]
    rows += [_row_without_results(one, "not finished") for one in found.unfinished]
    return pd.DataFrame(rows, columns=[*rows[0]])


def read_answers(folder: str | Path) -> pd.DataFrame:
    """Every graded answer of the runs below a folder: one row for each run, model and question.

    Columns: `run`, `who` (`expert` or `tuned`), `benchmark`, `question_id`, `question`,
    `reference`, `output`, `predicted` (what was read from the output; None: nothing), `correct`,
    `tokens` (generated). Join them with `read_runs` on `run` for what the runs were.

    Raises:
        UserError: as `read_runs`.
        FileNotFoundError: a run's answers are not there, or are not those of its summary.
    """
    rows = [
        row
        for run in find_runs(Path(folder)).runs
        for who in WHO
        for benchmark in run.results(who)
        for row in _answer_rows(run, who, benchmark)
    ]
    return pd.DataFrame(rows, columns=list(_ANSWER_COLUMNS))


def _rows(run: Run) -> list[dict[str, Any]]:
    stages = {"sample": run.sample, "distill": run.distill, "evaluate": run.evaluate}
    what = {"run": run.name, **{name: getattr(run, name) for name in _CHOICES}}
    whole = {
        "trained": run.summary.distill is not None,
        "steps": run.sample.steps,
        "kept": run.sample.kept,
        "kl_mean_nats": run.sample.kl_mean,
        "tuned_tokens": run.distill.tuned_tokens,
        "peak_memory_bytes": run.summary.peak_memory_bytes,
        **{
            f"{stage}_{key}": getattr(part, key)
            for stage, part in stages.items()
            for key in ("seconds", "reused")
        },
        "error": None,
    }
    return [{**what, **_result(run, name), **whole} for name in run.benchmarks or [None]]


def _result(run: Run, benchmark: str | None) -> dict[str, Any]:
    before = run.results("expert").get(benchmark or "")
    after = run.results(run.outcome).get(benchmark or "")
    known = before or after
    return {
        "benchmark": benchmark,
        "questions": known.total if known else None,
        "accuracy_before": before.accuracy if before else None,
        "stderr_before": before.stderr if before else None,
        "accuracy_after": after.accuracy if after else None,
        "stderr_after": after.stderr if after else None,
        "gain": after.accuracy - before.accuracy if before and after else None,
    }


def _row_without_results(one: Failed | Unfinished, error: str) -> dict[str, Any]:
    return {"run": one.name, **{name: getattr(one, name) for name in _CHOICES}, "error": error}


# Ours, and what the file of answers calls it.
_ANSWER_COLUMNS = {
    "run": None,
    "who": None,
    "benchmark": None,
    "question_id": "id",
    "question": "question",
    "reference": "reference",
    "output": "output",
    "predicted": "extracted",
    "correct": "correct",
    "tokens": "tokens",
}


def _answer_rows(run: Run, who: str, benchmark: str) -> list[dict[str, Any]]:
    try:
        run.answers(who, benchmark)  # checks that the file is of this result
    except AnswersMissingError as reason:
        raise FileNotFoundError(str(reason)) from reason
    place = {"run": run.name, "who": who, "benchmark": benchmark}
    # Not splitlines(): it also breaks at U+2028 and others, which a model's output may hold.
    with run.answers_file(who, benchmark).open(encoding="utf-8") as lines:
        return [
            place | {ours: told.get(theirs) for ours, theirs in _ANSWER_COLUMNS.items() if theirs}
            for told in map(json.loads, lines)
        ]
