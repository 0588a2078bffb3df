"""The cost of a method: time by stage, problems, tokens and memory."""

from collections.abc import Callable, Sequence
from typing import Any

from lr_exp.report.read.runs import Run

HOUR = 3600.0  # seconds


def costs(runs: Sequence[Run]) -> dict[str, float | None]:
    """Means over the seeds of a row, including reused artifacts; None if no run has the number.

    First `STAGE_seconds` of each stage of sampling that one of the runs has. `hours` is the sum of
    sampling and tuning, and `flops` that of sampling, scoring and tuning; `solved` is of rejection
    SFT; `peak_memory_gib` of sampling and tuning is the maximum over seeds.
    """

    def over(read: Callable[[Run], Any]) -> float | None:
        return mean([read(run) for run in runs])

    by_stage = [run.sample.seconds_by_stage or {} for run in runs]
    stages = dict.fromkeys(stage for one in by_stage for stage in one)
    sampling = over(lambda run: run.sample.seconds)
    tuning = over(lambda run: 0 if run.stopped else run.distill.seconds)
    sampling_flops = over(lambda run: run.sample.flops)
    flops = over(lambda run: 0 if run.stopped else run.distill.flops)
    parts = [part for run in runs for part in (run.sample, run.distill)]
    memory = max((part.peak_memory_bytes or 0 for part in parts), default=0)
    return {
        **{f"{stage}_seconds": mean([one.get(stage) for one in by_stage]) for stage in stages},
        "sampling_seconds": sampling,
        "tuning_seconds": tuning,
        "hours": None if sampling is None or tuning is None else (sampling + tuning) / HOUR,
        "evaluation_seconds": over(lambda run: run.evaluate.seconds),
        "problems": over(lambda run: run.sample.questions),
        "solved": over(lambda run: run.sample.verified and run.sample.verified.solved),
        "generated_tokens": over(lambda run: run.sample.generated_tokens),
        "tuned_tokens": over(lambda run: 0 if run.stopped else run.distill.tuned_tokens),
        "kept_steps": over(lambda run: run.distill.kept_steps),
        "passes": over(lambda run: run.distill.passes),
        "tokens_read": over(lambda run: run.distill.tokens_read),
        "flops": None if sampling_flops is None or flops is None else sampling_flops + flops,
        "peak_memory_gib": memory / 2**30 if memory else None,
    }


def mean(values: Sequence[float | None]) -> float | None:
    """The mean of the known values; None if there are none."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
