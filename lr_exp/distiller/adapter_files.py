"""The files of a finished training, read without importing torch or peft."""

import json
from pathlib import Path

VERSION = 4  # of the training's code; part of the artifact's address

ADAPTER = "adapter"
HISTORY = "history.jsonl"
SNAPSHOTS = "snapshots"


def read_history(folder: Path) -> list[dict[str, float]]:
    """The training metrics of a finished artifact by logged optimizer step, with its `step`."""
    lines = (folder / HISTORY).read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


def read_snapshots(folder: Path) -> list[tuple[int, Path]]:
    """Optimizer steps and adapter folders of the snapshots of an artifact, in order."""
    folders = sorted((folder / SNAPSHOTS).glob("step-*"))
    return [(int(place.name.removeprefix("step-")), place) for place in folders]
