"""The families of metrics: over what each is drawn, and what of it a table of runs shows.

Knows names only. `sample/…` is of sampling, `distill/…` of training, `eval/<benchmark>/…` of
accuracy; W&B's own metrics of the machine are beside them.
"""

# Each family's metrics are drawn over a counter of their own.
AXES = {"sample": "sample/step", "distill": "distill/step", "eval": "eval/step"}

# Curves that are known when sampling is done: over KL, and over the place in an answer.
KL_AXIS = "sample/kl_nats"  # where a bin begins
KL_PROFILE = "sample/kl_profile"  # share of the scored steps in it
POSITION_AXIS = "sample/position"  # generated tokens before a bin
KEPT_PROFILE = "sample/kept_profile"  # share of the bin's scored steps that were kept
CURVES = {KL_PROFILE: KL_AXIS, KEPT_PROFILE: POSITION_AXIS}

# What stands in a table of runs where it is not simply the last value. The lowest entropy tells a
# policy that collapsed on the way, the highest norm of the gradient a step that went wrong. Of
# accuracies the last one is shown and no best one: that would be chosen on the test questions.
SUMMARIES = {
    "distill/loss": "min,last",
    "distill/entropy": "min,last",
    "distill/grad_norm": "max,last",
    "distill/learning_rate": "max",
    "distill/tuned_tokens": "max",
    KL_PROFILE: "none",
    KEPT_PROFILE: "none",
}


def axis_of(family: str) -> str:
    """The counter of a family or a part of one: of `eval/gsm8k` it is `eval/step`."""
    first = family.partition("/")[0]
    return AXES.get(first, f"{first}/step")
