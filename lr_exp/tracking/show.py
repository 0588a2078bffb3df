"""What a run tells the tracker beside its metrics: curves, pictures, tables and headline numbers.

Knows the form of `summary.json`, `trajectories.json` and supervision; knows neither W&B nor where
sinks write.
"""

import json
import logging
from pathlib import Path
from typing import Any

from lr_exp.errors import first_line
from lr_exp.models.loading import load_tokenizer
from lr_exp.models.locating import ModelSource
from lr_exp.report.summary import EvaluateSummary, SampleSummary, Summary
from lr_exp.sampler.records import labelled_steps
from lr_exp.sampler.supervision import StoredSupervision
from lr_exp.store import Artifact
from lr_exp.tracking.families import KEPT_PROFILE, KL_AXIS, KL_PROFILE, POSITION_AXIS
from lr_exp.tracking.tracker import Tracker
from lr_exp.tracking.trajectories import COLUMNS, entropy_histogram, rows

log = logging.getLogger(__name__)

_SHOWN_STEPS = 200  # rows of the table of kept steps
_OF_RESULT = ("accuracy", "stderr", "correct", "total")


def sample(
    tracker: Tracker, sampled: SampleSummary, supervision: Artifact, expert: ModelSource
) -> None:
    """The numbers of sampling, KL as histogram and curve, kept steps by place and as a table."""
    tracker.log("sample", 0, _numbers(sampled.to_dict()))
    tracker.artifact(supervision)
    if sampled.histogram is not None:
        counts, width = sampled.histogram.counts, sampled.histogram.bin_nats
        tracker.histogram("sample/kl", counts, [i * width for i in range(len(counts) + 1)])
        shares = _shares(counts, [sum(counts)] * len(counts))
        tracker.curve(KL_PROFILE, KL_AXIS, [(i * width, y) for i, y in shares])
    if sampled.by_position is not None:
        counts = sampled.by_position
        points = [(i * counts.bin_tokens, y) for i, y in _shares(counts.kept, counts.steps)]
        tracker.curve(KEPT_PROFILE, POSITION_AXIS, points)
    if tracker.has_service:
        columns = ("question", "step", "prefix", "label", "kl (nats)")
        loaded, tokenizer = StoredSupervision(supervision.folder), load_tokenizer(expert)
        tracker.table("sample/kept_steps", columns, labelled_steps(loaded, tokenizer, _SHOWN_STEPS))


def trajectories(tracker: Tracker, path: Path) -> None:
    """Sampled answers, one row a token, and the expert's entropy over their tokens."""
    if not tracker.has_service or not path.exists():
        return
    try:
        told = json.loads(path.read_text("utf-8"))
        shown, (counts, edges) = rows(told), entropy_histogram(told)
    except Exception as error:  # a picture must not cost the training that comes next
        log.warning("W&B: %s is not shown (%s)", path.name, first_line(error))
        return
    tracker.table("sample/trajectories", COLUMNS, shown)
    if counts:
        tracker.histogram("sample/expert_entropy", counts, edges)


def evaluate(tracker: Tracker, evaluated: EvaluateSummary) -> None:
    """Accuracy before and after as a table, where something was trained."""
    tuned = evaluated.tuned
    if tuned is None:
        return
    columns = ("benchmark", "before", "stderr before", "after", "stderr after", "questions")
    before_after = [
        (
            *(name, before.accuracy, before.stderr),
            *(tuned[name].accuracy, tuned[name].stderr, before.total),
        )
        for name, before in (evaluated.expert or {}).items()
    ]
    tracker.table("eval/before_after", columns, before_after)


def headlines(tracker: Tracker, summary: Summary) -> None:
    """Flat numbers for the run's row in a table of runs, and for what is drawn of many runs.

    `eval/<benchmark>/expert` and `/tuned` are accuracies, `/gain` their difference (all in [0, 1]);
    `/accuracy` with `/stderr`, `/correct` and `/total` is that of the run's outcome, whichever was
    measured last. `eval/gap` is the expert's accuracy less the amateur's.
    """
    flat: dict[str, Any] = {}
    evaluated = summary.evaluate or EvaluateSummary()
    before, after = evaluated.expert or {}, evaluated.tuned or {}
    for who, results in (("expert", before), ("tuned", after)):
        for name, result in results.items():
            flat |= {f"eval/{name}/{key}": getattr(result, key) for key in _OF_RESULT}
            flat[f"eval/{name}/{who}"] = result.accuracy
            flat[f"eval/{name}/{who}_stderr"] = result.stderr
    for name, result in after.items():
        flat[f"eval/{name}/gain"] = result.accuracy - before[name].accuracy
    if evaluated.gap is not None:
        (expert,), (amateur,) = evaluated.gap.expert.values(), evaluated.gap.amateur.values()
        flat["eval/gap"] = expert.accuracy - amateur.accuracy
    gains = [value for name, value in flat.items() if name.endswith("/gain")]
    if gains:
        flat["eval/mean_gain"] = sum(gains) / len(gains)  # every benchmark counts alike
    stages = {"sample": summary.sample, "distill": summary.distill, "eval": summary.evaluate}
    for family, stage in stages.items():
        if stage is not None:
            flat[f"{family}/seconds"] = stage.seconds
    flat["peak_memory_bytes"] = summary.peak_memory_bytes
    tracker.summarize(flat)


def _shares(parts: list[int], wholes: list[int]) -> list[tuple[int, float]]:
    """Place and share of each part whose whole is not empty."""
    pairs = enumerate(zip(parts, wholes, strict=True))
    return [(i, part / whole) for i, (part, whole) in pairs if whole]


def _numbers(facts: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value
        for name, value in facts.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
