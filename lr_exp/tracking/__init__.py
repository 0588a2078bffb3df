"""Experiment tracking: `metrics.jsonl` always, Weights & Biases if it is available."""

from lr_exp.tracking.tracker import Tracker as Tracker
from lr_exp.tracking.wandb_sink import RunIdentity as RunIdentity
