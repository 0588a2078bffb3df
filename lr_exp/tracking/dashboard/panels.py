"""What the pages draw: each panel with the metrics that it reads and the form that they have.

The names of metrics on the pages stand here and nowhere else. Knows names; knows neither W&B's
panels nor where pages are kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from lr_exp.report.names import benchmark_label
from lr_exp.tracking.families import KEPT_PROFILE, KL_AXIS, KL_PROFILE, POSITION_AXIS

# Forms of a panel, and what it reads of a run.
LINES = "lines"  # numbers of the history, over `x` of the history
HISTOGRAM = "histogram"  # a histogram of the history
BARS = "bars"  # numbers of the summary
SCATTER = "scatter"  # a number of the summary over another, or over a choice in the config
TABLE = "table"  # a table of the summary
MACHINE = "machine"  # W&B's own metrics of the machine, by a pattern

METHOD = "cell.method"  # in the config: what runs are grouped and coloured by
_SHARE = "accuracy (0 to 1)"


@dataclass(frozen=True)
class Panel:
    """One panel. `keys` are metrics as they are logged, of a machine's panel a pattern of them."""

    form: str
    title: str
    keys: tuple[str, ...]
    x: str | None = None  # a metric, or `config.<name>`
    x_title: str | None = None
    y_title: str | None = None
    log_y: bool = False


@dataclass(frozen=True)
class Section:
    """Panels that stand together."""

    name: str
    panels: tuple[Panel, ...]


_STEPS = ("distill/step", "optimizer steps")

KL_CURVE = Panel(
    LINES,
    "KL profile: share of the scored steps by divergence",
    (KL_PROFILE,),
    KL_AXIS,
    "KL of expert and amateur (nats; the last bin is open)",
    "share of steps",
    log_y=True,
)
KEPT_CURVE = Panel(
    LINES,
    "Kept steps by their place in the answer",
    (KEPT_PROFILE,),
    POSITION_AXIS,
    "generated tokens before",
    "share of steps kept",
)
KEPT_SHARE = Panel(BARS, "Share of steps kept", ("sample/kept_share",), x_title="share of steps")
KL_MEAN = Panel(
    BARS,
    "Mean KL, where the models' first tokens differ and where they agree",
    ("sample/kl_mean_other_top1", "sample/kl_mean_same_top1"),
    x_title="nats",
)
LOSS = Panel(LINES, "Loss", ("distill/loss",), *_STEPS, "nats a kept step")
ENTROPY = Panel(
    LINES,
    "Entropy of the policy at the kept steps (a fall to 0 is mode collapse)",
    ("distill/entropy",),
    *_STEPS,
    "nats",
)
GRADIENT = Panel(
    LINES, "Norm of the gradient, before clipping", ("distill/grad_norm",), *_STEPS, log_y=True
)
RATE = Panel(LINES, "Learning rate", ("distill/learning_rate",), *_STEPS)
LOSS_BY_TOKENS = Panel(
    LINES, "Loss by tuned tokens", ("distill/loss",), "distill/tuned_tokens", "tuned tokens", "nats"
)
MEAN_GAIN = Panel(BARS, "Mean gain over the benchmarks", ("eval/mean_gain",), x_title=_SHARE)
BEFORE_AFTER = Panel(TABLE, "Accuracy before and after", ("eval/before_after",))
TRAJECTORIES = Panel(TABLE, "Answers token by token", ("sample/trajectories",))
KEPT_STEPS = Panel(TABLE, "Kept steps with their labels", ("sample/kept_steps",))
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
    "accuracy of the expert less that of the amateur (0 to 1)",
    _SHARE,
)
COST = Panel(
    BARS,
    "Time of sampling, tuning and evaluating, whenever it was spent",
    ("sample/seconds", "distill/seconds", "eval/seconds"),
    x_title="seconds",
)

SAMPLING = Section(
    "Sampling",
    (
        KL_CURVE,
        KEPT_CURVE,
        Panel(HISTOGRAM, "KL of the scored steps (nats)", ("sample/kl",)),
        Panel(
            HISTOGRAM,
            "Entropy of the expert in the answers of the table below (nats)",
            ("sample/expert_entropy",),
        ),
        KEPT_SHARE,
        KL_MEAN,
    ),
)
DISTILLING = Section("Distilling", (LOSS, ENTROPY, GRADIENT, RATE, LOSS_BY_TOKENS))
READING = Section("Trajectories", (TRAJECTORIES, KEPT_STEPS))
SYSTEM = Section(
    "System",
    (
        Panel(
            MACHINE, "Use of processors (%)", (r"system/(cpu|proc\.cpu\.threads|gpu\.\d+\.gpu)",)
        ),
        Panel(
            MACHINE,
            "Memory of the run (MB; of a GPU, bytes)",
            (r"system/(proc\.memory\.rssMB|gpu\.\d+\.memoryAllocatedBytes)",),
        ),
    ),
)


def accuracy(benchmark: str) -> Panel:
    """Accuracy before and after, as bars."""
    keys = (f"eval/{benchmark}/expert", f"eval/{benchmark}/tuned")
    return Panel(BARS, f"{benchmark_label(benchmark)}: before and after", keys, x_title=_SHARE)


def accuracy_curve(benchmark: str) -> Panel:
    """Accuracy along the training; the expert's own is at step 0."""
    title = f"{benchmark_label(benchmark)}: accuracy along the training"
    return Panel(
        LINES, title, (f"eval/{benchmark}/accuracy",), "eval/step", "optimizer steps", _SHARE
    )


def evaluation(benchmarks: Sequence[str]) -> Section:
    """What was won, in all and on each benchmark."""
    each = [make(name) for name in benchmarks for make in (accuracy, accuracy_curve)]
    return Section("Evaluation", (MEAN_GAIN, BEFORE_AFTER, *each))


def sections(benchmarks: Sequence[str]) -> tuple[Section, ...]:
    """All of a workspace, from the first stage to the last, then texts and machine."""
    return (SAMPLING, DISTILLING, evaluation(benchmarks), READING, SYSTEM)
