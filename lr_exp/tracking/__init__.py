"""Experiment tracking: `metrics.jsonl` always, Weights & Biases if it is available.

`Tracker` passes everything to a list of sinks. To add a tracker such as MLflow, subclass `Sink` in
a new module and append it in `Tracker.__init__`.
"""

from lr_exp.tracking.sink import Cell, Sink
from lr_exp.tracking.tracker import Tracker

__all__ = ["Cell", "Sink", "Tracker"]
