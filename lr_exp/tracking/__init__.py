"""Experiment tracking: `metrics.jsonl` always, Weights & Biases if it is available.

`Tracker` passes everything to a list of sinks. To add a tracker such as MLflow, subclass `Sink` in
a new module and append it in `Tracker.__init__`.

The W&B sink records to disk only; a separate process uploads the record while the run continues.
W&B's online mode would block the run at startup, at the end and at interpreter exit whenever the
service is slow or down. The record on disk is complete, so `wandb sync` can upload it later.
"""

from lr_exp.tracking.sink import Cell, Sink
from lr_exp.tracking.tracker import Tracker

__all__ = ["Cell", "Sink", "Tracker"]
