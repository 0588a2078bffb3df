"""Runs and their graded answers as pandas data frames."""

from pathlib import Path
from typing import Any

import pandas as pd

from lr_exp.report.read.run import WHO, AnswersMissingError, Run
from lr_exp.report.read.runs import find_runs

_CHOICES = ("sweep", "method", "expert", "amateur", "data", "prompt", "alpha", "beta", "seed")
_ANSWER_KEYS = {  # columns of an answer, and their keys in the file of answers
    **{name: name for name in ("question", "reference", "output", "correct", "rule", "tokens")},
    "question_id": "id",
    "predicted": "extracted",
}


def read_runs(folder: str | Path) -> pd.DataFrame:
    """Every run below a folder: one row for each run and benchmark.

    Columns: `run` (its folder); its choices `sweep`, `method`, `expert`, `amateur`, `data`,
    `prompt` (of the sampler), `alpha`, `beta` (nats) and `seed`, None if no stage read them;
    `benchmark`, `questions`; `gain` and, with the endings _before and _after, the accuracy and
    every other number of a result in `summary.json` (`stderr_before`, `ci95_low_before`,
    `read_by_box_after`, ...), shares in [0, 1];
    `trained`, which is False if nothing was trained, in which case the results after are the
    expert's; for the whole run `steps`, `kept`, `conflicts`, `moving`, `kl_mean_nats`,
    `tuned_tokens`, `peak_memory_bytes`, and `sample_seconds`, `sample_reused` and so on for each
    stage, where seconds are those of the run that did the work. A run without evaluation has
    one row without a benchmark. A run that failed or did not finish has one row with its `error`,
    None for others.

    Raises:
        UserError: the folder does not exist or contains no finished run.
    """
    found = find_runs(Path(folder))
    rows = [_choices(run) | values for run in found.runs for values in _results(run)]
    rows += [_choices(run) | {"error": run.error} for run in found.failed]
    rows += [_choices(run) | {"error": "not finished"} for run in found.unfinished]
    return pd.DataFrame(rows, columns=list(dict.fromkeys(key for row in rows for key in row)))


def read_answers(folder: str | Path) -> pd.DataFrame:
    """Every graded answer below a folder: one row for each run, prompt, model and question.

    Columns: `run`, `who` (`expert` or `tuned`), `benchmark`, `prompt` (its form), `question_id`,
    `question`, `reference`, `output`, `predicted` (extracted from the output, or None), `rule`
    (that extracted it: box, statement or last), `correct`, `tokens` (generated), and as booleans
    `truncated` (at the token limit), `boxed`, `no_answer` and `strict` (correct, boxed and
    finished). Join with `read_runs` on `run` for the choices of the run.

    Raises:
        UserError: as `read_runs`.
        FileNotFoundError: a run's answers are missing or do not match its summary.
    """
    rows = [
        row
        for run in find_runs(Path(folder)).runs
        for prompt in run.prompts
        for who in WHO
        for benchmark in run.results(who, prompt)
        for row in _answer_rows(run, who, benchmark, prompt)
    ]
    names = ["run", "who", "benchmark", "prompt", *_ANSWER_KEYS, "truncated"]
    answers = pd.DataFrame(rows, columns=names).astype({"correct": bool, "truncated": bool})
    answers["boxed"], answers["no_answer"] = answers["rule"] == "box", answers["rule"].isna()
    answers["strict"] = answers["correct"] & answers["boxed"] & ~answers["truncated"]
    return answers


def _choices(run: Run) -> dict[str, Any]:
    return {"run": run.name, **{name: getattr(run, name) for name in _CHOICES}}


def _results(run: Run) -> list[dict[str, Any]]:
    """The columns after the choices, once per benchmark."""
    whole = {
        "trained": run.summary.distill is not None,
        "steps": run.sample.steps,
        "kept": run.sample.kept,
        "conflicts": run.sample.conflicts,
        "moving": run.sample.moving,
        "kl_mean_nats": run.sample.kl_mean,
        "tuned_tokens": run.distill.tuned_tokens,
        "peak_memory_bytes": run.summary.peak_memory_bytes,
    }
    stages = {"sample": run.sample, "distill": run.distill, "evaluate": run.evaluate}
    for stage, part in stages.items():
        whole |= {f"{stage}_seconds": part.seconds, f"{stage}_reused": part.reused}
    whole["error"] = None
    rows = []
    for benchmark in run.benchmarks or [None]:
        models = {"before": "expert", "after": run.final_model}
        results = {when: run.results(who).get(benchmark or "") for when, who in models.items()}
        before, after = results.values()
        known = before or after
        row = {"benchmark": benchmark, "questions": known.total if known else None}
        for when, one in results.items():
            numbers = {"accuracy": None, "stderr": None} | (one.numbers if one else {})
            row |= {f"{name}_{when}": value for name, value in numbers.items()}
        row["gain"] = after.accuracy - before.accuracy if before and after else None
        rows.append(row | whole)
    return rows


def _answer_rows(run: Run, who: str, benchmark: str, prompt: str) -> list[dict[str, Any]]:
    try:
        records = run.records(who, benchmark, prompt)
    except AnswersMissingError as reason:
        raise FileNotFoundError(str(reason)) from reason
    place = {"run": run.name, "who": who, "benchmark": benchmark, "prompt": prompt}
    columns = _ANSWER_KEYS.items()
    return [
        place
        | {column: record.get(key) for column, key in columns}
        | {"truncated": not record.get("finished", True)}
        for record in records
    ]
