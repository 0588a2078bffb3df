"""The panels of the pages: titles, axes and the metrics that each panel reads."""

from collections.abc import Sequence
from dataclasses import dataclass

from lr_exp.report.names import benchmark_label
from lr_exp.tracking.metric_names import KEPT_PROFILE, KL_AXIS, KL_PROFILE, POSITION_AXIS

# Forms of panels, and the data that each reads from a run.
LINES = "lines"  # history: numbers over `x`
HISTOGRAM = "histogram"  # history: a histogram
BARS = "bars"  # summary: numbers
SCATTER = "scatter"  # summary: a number over another number or over a config value
TABLE = "table"  # summary: a table
MACHINE = "machine"  # W&B's system metrics that match a pattern

METHOD = "cell.method"  # config key that runs are grouped and coloured by
_SHARE = "accuracy (0 to 1)"


@dataclass(frozen=True)
class Panel:
    """One panel. `keys` are metric names, or one regular expression for the form `MACHINE`."""

    form: str
    title: str
    keys: tuple[str, ...]
    x: str | None = None  # a metric, or `config.<name>`
    x_title: str | None = None
    y_title: str | None = None
    log_y: bool = False


@dataclass(frozen=True)
class Section:
    name: str
    panels: tuple[Panel, ...]


_STEPS = ("distill/step", "optimizer steps")

KL_CURVE = Panel(
    LINES,
    "KL profile: share of scored steps by KL",
    (KL_PROFILE,),
    KL_AXIS,
    "KL between expert and amateur (nats; the last bin is open-ended)",
    "share of steps",
    log_y=True,
)
KEPT_CURVE = Panel(
    LINES,
    "Share of steps kept by position in the answer",
    (KEPT_PROFILE,),
    POSITION_AXIS,
    "token position",
    "share of steps kept",
)
KEPT_SHARE = Panel(BARS, "Share of steps kept", ("sample/kept_share",), x_title="share of steps")
KL_MEAN = Panel(
    BARS,
    "Mean KL where the models' top tokens differ and where they agree",
    ("sample/kl_mean_other_top1", "sample/kl_mean_same_top1"),
    x_title="nats",
)
LOSS = Panel(LINES, "Loss", ("distill/loss",), *_STEPS, "nats per kept step")
ENTROPY = Panel(
    LINES,
    "Policy entropy at kept steps (a drop to 0 is mode collapse)",
    ("distill/entropy",),
    *_STEPS,
    "nats",
)
GRADIENT = Panel(
    LINES, "Gradient norm before clipping", ("distill/grad_norm",), *_STEPS, log_y=True
)
RATE = Panel(LINES, "Learning rate", ("distill/learning_rate",), *_STEPS)
LOSS_BY_TOKENS = Panel(
    LINES, "Loss by tuned tokens", ("distill/loss",), "distill/tuned_tokens", "tuned tokens", "nats"
)
MEAN_GAIN = Panel(BARS, "Mean accuracy gain over benchmarks", ("eval/mean_gain",), x_title=_SHARE)
BEFORE_AFTER = Panel(TABLE, "Accuracy before and after training", ("eval/before_after",))
TRAJECTORIES = Panel(TABLE, "Answers token by token", ("sample/trajectories",))
KEPT_STEPS = Panel(TABLE, "Kept steps and their labels", ("sample/kept_steps",))
GAIN_BY_TOKENS = Panel(
    SCATTER,
    "Gain by tuned tokens",
    ("eval/mean_gain",),
    "distill/tuned_tokens.max",
    "tuned tokens",
    _SHARE,
)
GAIN_BY_BETA = Panel(
    SCATTER, "Gain by beta", ("eval/mean_gain",), "config.cell.beta", "beta (nats)", _SHARE
)
GAIN_BY_ALPHA = Panel(
    SCATTER, "Gain by alpha", ("eval/mean_gain",), "config.cell.alpha", "alpha", _SHARE
)
GAIN_BY_GAP = Panel(
    SCATTER,
    "Gain by expertise gap",
    ("eval/mean_gain",),
    "eval/gap",
    "expert accuracy minus amateur accuracy (0 to 1)",
    _SHARE,
)
COST = Panel(
    BARS,
    "Time for sampling, distillation and evaluation (reused stages included)",
    ("sample/seconds", "distill/seconds", "eval/seconds"),
    x_title="seconds",
)

SAMPLING = Section(
    "Sampling",
    (
        KL_CURVE,
        KEPT_CURVE,
        Panel(HISTOGRAM, "KL of scored steps (nats)", ("sample/kl",)),
        Panel(
            HISTOGRAM,
            "Expert entropy in the answers listed under Trajectories (nats)",
            ("sample/expert_entropy",),
        ),
        KEPT_SHARE,
        KL_MEAN,
    ),
)
DISTILLATION = Section("Distillation", (LOSS, ENTROPY, GRADIENT, RATE, LOSS_BY_TOKENS))
EXAMPLES = Section("Trajectories", (TRAJECTORIES, KEPT_STEPS))
SYSTEM = Section(
    "System",
    (
        Panel(
            MACHINE,
            "CPU and GPU utilization (%), threads",
            (r"system/(cpu|proc\.cpu\.threads|gpu\.\d+\.gpu)",),
        ),
        Panel(
            MACHINE,
            "Process memory (MB) and GPU memory (bytes)",
            (r"system/(proc\.memory\.rssMB|gpu\.\d+\.memoryAllocatedBytes)",),
        ),
    ),
)


def accuracy(benchmark: str) -> Panel:
    keys = (f"eval/{benchmark}/expert", f"eval/{benchmark}/tuned")
    return Panel(
        BARS, f"{benchmark_label(benchmark)}: accuracy before and after", keys, x_title=_SHARE
    )


def accuracy_curve(benchmark: str) -> Panel:
    """Accuracy over optimizer steps; the untrained expert is at step 0."""
    title = f"{benchmark_label(benchmark)}: accuracy during training"
    return Panel(
        LINES, title, (f"eval/{benchmark}/accuracy",), "eval/step", "optimizer steps", _SHARE
    )


def evaluation(benchmarks: Sequence[str]) -> Section:
    each = [make(name) for name in benchmarks for make in (accuracy, accuracy_curve)]
    return Section("Evaluation", (MEAN_GAIN, BEFORE_AFTER, *each))


def sections(benchmarks: Sequence[str]) -> tuple[Section, ...]:
    """All sections of the workspace."""
    return (SAMPLING, DISTILLATION, evaluation(benchmarks), EXAMPLES, SYSTEM)
