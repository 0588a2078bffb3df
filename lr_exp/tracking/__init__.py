"""Experiment tracking: `metrics.jsonl` always, Weights & Biases if it is available."""

# ruff: noqa: F401  the names of the package
from lr_exp.tracking.sink import RunIdentity
from lr_exp.tracking.tracker import Tracker
