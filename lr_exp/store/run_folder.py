"""Names of the files in a run's folder."""

from pathlib import PurePath

SUMMARY = "summary.json"  # all headline numbers; written last
FAILED = "failed.json"  # instead of the summary, after an error
METRICS = "metrics.jsonl"  # one logged record a line
TRAJECTORIES = "trajectories.json.gz"  # a few sampled answers, token by token, for pages
AUDIT = "audit.jsonl"  # audited positions, if `python -m lr_exp.audit` wrote them
ANSWERS = "answers"  # folder of all graded answers; see `answers_file`
PAGE = "report.html"
LOCK = ".lock"  # held by the process that writes to the folder


def forced_file(who: str, benchmark: str) -> PurePath:
    """The path of graded forced answers, to the headline prompt, in a run's folder."""
    return PurePath("forced", who, f"{benchmark}.jsonl")


def answers_file(who: str, benchmark: str, prompt: str | None) -> PurePath:
    """The path of graded answers in a run's folder; `prompt` is None for the headline prompt."""
    return PurePath(ANSWERS, who, prompt or "", f"{benchmark.replace(':', '-')}.jsonl")
