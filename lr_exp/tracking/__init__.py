"""Experiment tracking: `metrics.jsonl` always, Weights & Biases if it is available."""

from lr_exp.tracking.tracker import Tracker
from lr_exp.tracking.wandb_sink import RunIdentity

__all__ = ["RunIdentity", "Tracker"]
