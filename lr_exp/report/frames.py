"""Runs and their graded answers as pandas data frames."""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from lr_exp.report.runs import WHO, AnswersMissingError, Failed, Run, Unfinished, find_runs

_CHOICES = ("sweep", "method", "expert", "amateur", "data", "alpha", "beta", "seed")


def read_runs(folder: str | Path) -> pd.DataFrame:
    """Every run below a folder: one row for each run and benchmark.

    Columns: `run` (its folder); its choices `sweep`, `method`, `expert`, `amateur`, `data`,
    `alpha`, `beta` (nats) and `seed`, None if no stage read them; `benchmark`, `questions`;
    `accuracy_before`, `accuracy_after`, `stderr_before`, `stderr_after` and `gain`, shares in
    [0, 1]; `trained`, which is False if nothing was trained, so that the accuracy stays the
    expert's; for the whole run `steps`, `kept`, `kl_mean_nats`, `tuned_tokens`,
    `peak_memory_bytes`, and `sample_seconds`, `sample_reused` and so on for each stage, where
    seconds are those of the run that did the work. A run without evaluation has one row without a
    benchmark. A run that failed or did not finish has one row with its `error`, None for others.

    Raises:
        UserError: the folder does not exist or contains no finished run.
    """
    found = find_runs(Path(folder))
    rows = [row for run in found.runs for row in _rows(run)]
    rows += [_row_without_results(run, run.error) for run in found.failed]
    rows += [_row_without_results(run, "not finished") for run in found.unfinished]
    return pd.DataFrame(rows, columns=[*rows[0]])


def read_answers(folder: str | Path) -> pd.DataFrame:
    """Every graded answer of the runs below a folder: one row for each run, model and question.

    Columns: `run`, `who` (`expert` or `tuned`), `benchmark`, `question_id`, `question`,
    `reference`, `output`, `predicted` (extracted from the output, or None), `correct`, `tokens`
    (generated). Join with `read_runs` on `run` for the choices of the run.

    Raises:
        UserError: as `read_runs`.
        FileNotFoundError: a run's answers are missing or do not match its summary.
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
    choices = {"run": run.name, **{name: getattr(run, name) for name in _CHOICES}}
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
    return [{**choices, **_result(run, name), **whole} for name in run.benchmarks or [None]]


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


def _row_without_results(run: Failed | Unfinished, error: str) -> dict[str, Any]:
    return {"run": run.name, **{name: getattr(run, name) for name in _CHOICES}, "error": error}


# Column: key in the file of answers.
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
        run.answers(who, benchmark)  # checks the file against the summary
    except AnswersMissingError as reason:
        raise FileNotFoundError(str(reason)) from reason
    place = {"run": run.name, "who": who, "benchmark": benchmark}
    # Not splitlines(): it also splits at U+2028 and others, which a model's output may contain.
    with run.answers_file(who, benchmark).open(encoding="utf-8") as lines:
        return [
            place | {ours: answer.get(theirs) for ours, theirs in _ANSWER_COLUMNS.items() if theirs}
            for answer in map(json.loads, lines)
        ]
