"""Experiment tracking: `metrics.jsonl` always, Weights & Biases if it is available."""

from lr_exp.tracking.sink import RunIdentity
from lr_exp.tracking.tracker import Tracker

__all__ = ["RunIdentity", "Tracker"]
