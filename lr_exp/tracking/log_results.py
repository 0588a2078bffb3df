"""Logs the results of each stage: curves, tables and headline numbers."""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

from lr_exp.errors import first_line, printable
from lr_exp.report.read.summary import EvaluateSummary, SampleSummary, Summary
from lr_exp.store import Artifact
from lr_exp.tracking.metric_names import KEPT_PROFILE, KL_AXIS, KL_PROFILE, POSITION_AXIS
from lr_exp.tracking.tracker import Tracker

log = logging.getLogger(__name__)

TRAJECTORY_COLUMNS = (
    "question",
    "correct",
    "position",
    "token",
    "kl (nats)",
    "kept",
    "expert's top",
    "p by expert",
    "amateur's top",
    "p by amateur",
    "label",
    "expert entropy (nats)",
    "amateur entropy (nats)",
)
_MAX_ROWS = 5_000  # W&B shows at most 10,000 rows, and sorts this many without delay

_TOKEN, _EXPERT, _AMATEUR, _IN_MASK, _WEIGHT = range(5)  # fields of a candidate


def log_sampling(tracker: Tracker, sampled: SampleSummary, supervision: Artifact) -> None:
    """Logs sampling: its numbers, both profiles, and the supervision as an artifact."""
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


def log_trajectories(tracker: Tracker, path: Path) -> None:
    """Logs `trajectories.json` as a table with one row per token."""
    if not tracker.wandb.records_media or not path.exists():
        return
    try:
        rows = trajectory_rows(json.loads(path.read_text("utf-8")))
    except Exception as error:  # a table must not stop the training that follows
        log.warning("W&B: %s was not logged (%s)", path.name, first_line(error))
        return
    tracker.wandb.table("sample/trajectories", TRAJECTORY_COLUMNS, rows)


def log_evaluation(tracker: Tracker, evaluated: EvaluateSummary) -> None:
    """Logs a table of accuracies before and after training, if there was any training."""
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
    tracker.wandb.table("eval/before_after", columns, rows)


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
    gains = [value for name, value in flat.items() if name.endswith("/gain")]
    if gains:
        flat["eval/mean_gain"] = sum(gains) / len(gains)  # unweighted over benchmarks
    stages = {"sample": summary.sample, "distill": summary.distill, "eval": summary.evaluate}
    flat |= {f"{name}/seconds": s.seconds for name, s in stages.items() if s is not None}
    tracker.wandb.summarize({**flat, "peak_memory_bytes": summary.peak_memory_bytes})


def _shares(parts: list[int], totals: list[int], width: float) -> list[tuple[float, float]]:
    """The lower edge and `part / total` of each bin of this width whose total is not 0."""
    pairs = enumerate(zip(parts, totals, strict=True))
    return [(i * width, part / total) for i, (part, total) in pairs if total]


def trajectory_rows(trajectories: Mapping[str, Any], max_rows: int = _MAX_ROWS) -> list[list[Any]]:
    """One row per generated token, with the columns `TRAJECTORY_COLUMNS`.

    Answers are included whole while they fit; the first one is cut if it does not.
    """
    texts = [_escape(text) for text in trajectories["tokens"]]
    rows: list[list[Any]] = []
    for answer in trajectories["answers"]:
        if rows and len(rows) + len(answer["token"]) > max_rows:
            break
        rows += _answer_rows(answer, texts)
    return rows[:max_rows]


def _answer_rows(answer: Mapping[str, Any], texts: Sequence[str]) -> Iterator[list[Any]]:
    for position, token in enumerate(answer["token"]):
        candidates = answer["candidates"][position] or []
        yield [
            _escape(str(answer["id"])),
            answer["correct"],
            position,
            texts[token],
            answer["kl"][position],
            bool(answer["kept"][position]),
            *_top_token(candidates, _EXPERT, texts),
            *_top_token(candidates, _AMATEUR, texts),
            _label(candidates, texts),
            answer["expert_entropy"][position],
            answer["amateur_entropy"][position],
        ]


def _top_token(candidates: Sequence[Any], model: int, texts: Sequence[str]) -> tuple[Any, Any]:
    """A model's most probable token and its probability; (None, None) if it was not scored."""
    scored = [(texts[one[_TOKEN]], one[model]) for one in candidates if one[model] is not None]
    return max(scored, key=itemgetter(1), default=(None, None))


def _label(candidates: Sequence[Any], texts: Sequence[str]) -> str | None:
    """The soft label as text: `" 8" 0.93, " 9" 0.07`; None if the position was not kept."""
    ordered = sorted(candidates, key=lambda one: -(one[_WEIGHT] or 0))
    shown = [f'"{texts[one[_TOKEN]]}" {one[_WEIGHT]:.2f}' for one in ordered if one[_WEIGHT]]
    return ", ".join(shown) or None


def _escape(text: str) -> str:
    """Makes control characters visible, including newlines and tabs."""
    return printable(text).replace("\n", "\\n").replace("\t", "\\t")
