"""The cost of a method: time by stage, problems, tokens and memory."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from lr_exp.report.read.runs import Run


@dataclass(frozen=True)
class Cost:
    """Means over the seeds of a row; None if no run has the number."""

    by_stage: dict[str, float]  # seconds of each sampling stage
    sampling: float | None  # seconds
    tuning: float | None  # seconds
    evaluation: float | None  # seconds, for expert and tuned expert
    problems: float | None
    solved: float | None  # problems with a correct answer, for rejection SFT
    generated_tokens: float | None
    tuned_tokens: float | None
    memory: float | None  # bytes, the maximum over seeds

    @property
    def total(self) -> float | None:
        """Seconds of sampling and tuning."""
        if self.sampling is None or self.tuning is None:
            return None
        return self.sampling + self.tuning


def cost(runs: Sequence[Run]) -> Cost:
    """The cost of a row's runs, including reused artifacts."""

    def over(read: Callable[[Run], Any]) -> float | None:
        return mean([read(run) for run in runs])

    stages = dict.fromkeys(s for run in runs for s in run.sample.seconds_by_stage or {})
    by_stage = {
        stage: over(lambda run, s=stage: (run.sample.seconds_by_stage or {}).get(s))
        for stage in stages
    }
    memory = [_memory(run) for run in runs]
    return Cost(
        {stage: seconds for stage, seconds in by_stage.items() if seconds is not None},
        over(lambda run: run.sample.seconds),
        over(lambda run: 0 if run.stopped else run.distill.seconds),
        over(lambda run: run.evaluate.seconds),
        over(lambda run: run.sample.questions),
        over(lambda run: run.sample.verified.solved if run.sample.verified else None),
        over(lambda run: run.sample.generated_tokens),
        over(lambda run: 0 if run.stopped else run.distill.tuned_tokens),
        max((value for value in memory if value is not None), default=None),
    )


def _memory(run: Run) -> float | None:
    """Peak bytes of sampling and tuning; for older runs, of any stage."""
    stages = (run.sample.peak_memory_bytes, run.distill.peak_memory_bytes)
    known = [peak for peak in stages if peak]
    return max(known) if known else run.summary.peak_memory_bytes


def mean(values: Sequence[float | None]) -> float | None:
    """The mean of the known values; None if there are none."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
