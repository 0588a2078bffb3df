"""The families of metrics, the axis of each, and the summary values in W&B's run table."""

# Each family has its own step counter.
STEP_AXES = {"sample": "sample/step", "distill": "distill/step", "eval": "eval/step"}

# Curves that are logged once, after sampling.
KL_AXIS = "sample/kl_nats"  # lower edge of a bin
KL_PROFILE = "sample/kl_profile"  # share of scored steps in the bin
POSITION_AXIS = "sample/position"  # first token position of a bin
KEPT_PROFILE = "sample/kept_profile"  # share of the bin's scored steps that were kept
CURVES = {KL_PROFILE: KL_AXIS, KEPT_PROFILE: POSITION_AXIS}

# Summary values other than the last one. The lowest entropy shows a collapse of the student, the
# highest gradient norm a bad optimizer step. A best accuracy would be selected on test questions.
SUMMARIES = {
    "distill/loss": "min,last",
    "distill/entropy": "min,last",
    "distill/grad_norm": "max,last",
    "distill/learning_rate": "max",
    "distill/tuned_tokens": "max",
    KL_PROFILE: "none",
    KEPT_PROFILE: "none",
}


def step_axis(family: str) -> str:
    """The step counter of a family or of a part of it: `eval/step` for `eval/gsm8k`."""
    return f"{family.partition('/')[0]}/step"
