"""The cost of a method: time by stage, problems, tokens and memory."""

from collections.abc import Callable, Sequence
from typing import Any

from lr_exp.report.read.runs import Run

HOUR = 3600.0  # seconds


def stage_costs(runs: Sequence[Run]) -> dict[str, float | None]:
    """`STAGE_seconds` of each stage of sampling that one of the runs has; see `costs`."""
    stages = dict.fromkeys(stage for run in runs for stage in run.sample.seconds_by_stage or {})
    return {
        f"{stage}_seconds": mean([(run.sample.seconds_by_stage or {}).get(stage) for run in runs])
        for stage in stages
    }


def costs(runs: Sequence[Run]) -> dict[str, float | None]:
    """Means over the seeds of a row, including reused artifacts; None if no run has the number.

    Those of `stage_costs`; `sampling_seconds`, `tuning_seconds` and their sum in `hours`;
    `evaluation_seconds` of expert and tuned expert; `problems` and, for rejection SFT, how many
    were `solved`; `generated_tokens`, `tuned_tokens`; distinct `kept_steps`, the
    `passes` over them and the `tokens_read` in training; `flops` of sampling, scoring and tuning;
    `peak_memory_gib` of sampling and tuning, the maximum over seeds.
    """

    def over(read: Callable[[Run], Any]) -> float | None:
        return mean([read(run) for run in runs])

    sampling = over(lambda run: run.sample.seconds)
    tuning = over(lambda run: 0 if run.stopped else run.distill.seconds)
    sampling_flops = over(lambda run: run.sample.flops)
    flops = over(lambda run: 0 if run.stopped else run.distill.flops)
    parts = [part for run in runs for part in (run.sample, run.distill)]
    memory = max((part.peak_memory_bytes or 0 for part in parts), default=0)
    return {
        **stage_costs(runs),
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
