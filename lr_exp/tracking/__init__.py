"""Where a run's numbers go: `metrics.jsonl` always, Weights & Biases where it can be had.

Knows names and numbers; knows nothing of what they mean. W&B only ever records into a folder on
disk, and a process of its own sends that folder while it grows: so nothing that the service does
reaches the run, and the record is complete for `wandb sync`, under the same run id, sent or not.
The alternative, W&B's online mode, waits for the service at the start, at the end and when the
interpreter exits, and each of these waits would need a guard of its own.
"""

from lr_exp.tracking.recorder import Cell
from lr_exp.tracking.tracker import Tracker

__all__ = ["Cell", "Tracker"]
