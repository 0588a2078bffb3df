"""Logs the results of each stage: curves, tables and headline numbers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lr_exp.report.analyse.answer_pairs import changed_first
from lr_exp.report.read.json_file import read_json_lines
from lr_exp.report.read.summary import EvaluateSummary, SampleSummary, Summary
from lr_exp.store import Artifact
from lr_exp.store.run_folder import answers_file
from lr_exp.tracking.metric_names import KEPT_PROFILE, KL_AXIS, KL_PROFILE, POSITION_AXIS
from lr_exp.tracking.tracker import Tracker

# The table of answers; not finished: cut off at the token limit.
_FACTS, _SIDES = ("id", "question", "reference"), ("before", "after")
_SHOWN = ("output", "correct", "finished")
_MAX_QUESTIONS = 100  # of each benchmark; W&B shows at most 10,000 rows


def log_sampling(tracker: Tracker, sampled: SampleSummary, supervision: Artifact) -> None:
    numbers = {
        name: value
        for name, value in sampled.to_dict().items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
    tracker.log("sample", 0, numbers)
    tracker.artifact(supervision)
    if sampled.histogram is not None:
        counts, width = sampled.histogram.counts, sampled.histogram.bin_nats
        points = _shares(counts, [sum(counts)] * len(counts), width)
        tracker.wandb.curve(KL_PROFILE, KL_AXIS, points)
    if (profile := sampled.by_position) is not None:
        points = _shares(profile.kept, profile.steps, profile.bin_tokens)
        tracker.wandb.curve(KEPT_PROFILE, POSITION_AXIS, points)


def log_evaluation(tracker: Tracker, evaluated: EvaluateSummary, folder: Path) -> None:
    """Logs tables of results before and after training, if any; `folder` is the run's."""
    if (tuned := evaluated.tuned) is None:
        return
    results = [
        (name, when, result.numbers)
        for when, own in (("before", evaluated.expert or {}), ("after", tuned))
        for name, result in own.items()
    ]
    names = list(dict.fromkeys(key for *_, numbers in results for key in numbers))
    columns = ("benchmark", "when", *names)
    rows = [(name, when, *map(numbers.get, names)) for name, when, numbers in results]
    tracker.wandb.table("eval/before_after", columns, lambda: rows)
    if tracker.wandb.records_texts:
        pairs = [f"{key} {side}" for key in _SHOWN for side in _SIDES]
        head = ("benchmark", *_FACTS, *pairs)
        tracker.wandb.table("eval/answers", head, lambda: _answers(list(tuned), folder))


def _answers(benchmarks: Sequence[str], folder: Path) -> list[list[Any]]:
    """A row for each question; if there are too many, first for those that were won or lost."""
    rows = []
    for name in benchmarks:
        paths = (folder / answers_file(who, name, None) for who in ("expert", "tuned"))
        expert, tuned = map(read_json_lines, paths)
        for one in changed_first(expert, tuned, _MAX_QUESTIONS):
            answers = [one[side][key] for key in _SHOWN for side in _SIDES]
            rows.append([name, *map(one.get, _FACTS), *answers])
    return rows


def log_headlines(tracker: Tracker, summary: Summary) -> None:
    """Logs the flat numbers that tables and plots over several runs use.

    `eval/<benchmark>/expert` and `/tuned` are accuracies in [0, 1], `/gain` is their difference.
    `/accuracy` and the other `Result.numbers` belong to the tuned model, or to the expert if
    nothing was trained. `eval/gap` is the expert's accuracy minus the amateur's.
    """
    flat: dict[str, Any] = {}
    evaluated = summary.evaluate or EvaluateSummary()
    before, after = evaluated.expert or {}, evaluated.tuned or {}
    for name, result in (before | after).items():
        flat |= {f"eval/{name}/{key}": value for key, value in result.numbers.items()}
    for who, results in (("expert", before), ("tuned", after)):
        for name, result in results.items():
            flat[f"eval/{name}/{who}"] = result.accuracy
            flat[f"eval/{name}/{who}_stderr"] = result.stderr
    for name, result in after.items():
        flat[f"eval/{name}/gain"] = result.accuracy - before[name].accuracy
    if evaluated.gap is not None:
        (expert,), (amateur,) = evaluated.gap.expert.values(), evaluated.gap.amateur.values()
        flat["eval/gap"] = expert.accuracy - amateur.accuracy
    for key in ("accuracy", "gain"):  # means are unweighted over benchmarks
        values = [value for name, value in flat.items() if name.endswith(f"/{key}")]
        if values:
            flat[f"eval/mean_{key}"] = sum(values) / len(values)
    stages = {"sample": summary.sample, "distill": summary.distill, "eval": summary.evaluate}
    flat |= {f"{name}/seconds": s.seconds for name, s in stages.items() if s is not None}
    tracker.wandb.summarize({**flat, "peak_memory_bytes": summary.peak_memory_bytes})


def _shares(parts: list[int], totals: list[int], width: float) -> list[tuple[float, float]]:
    """The lower edge and `part / total` of each bin of this width whose total is not 0."""
    pairs = enumerate(zip(parts, totals, strict=True))
    return [(i * width, part / total) for i, (part, total) in pairs if total]
