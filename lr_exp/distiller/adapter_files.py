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


def read_base(folder: Path) -> str:
    """The location of the model that the adapter of a finished artifact was trained on."""
    config = json.loads((folder / ADAPTER / "adapter_config.json").read_text("utf-8"))
    return config["base_model_name_or_path"]


def read_snapshots(folder: Path) -> list[tuple[int, Path]]:
    """Optimizer steps and adapter folders of the snapshots of an artifact, in order."""
    folders = sorted((folder / SNAPSHOTS).glob("step-*"))
    return [(int(place.name.removeprefix("step-")), place) for place in folders]
