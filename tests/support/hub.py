"""Benchmark data in hub layout: the real data, which may be missing, and small data sets."""

import json
import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

HUB = Path(os.environ.get("LR_EXP_HUB_ROOT") or ROOT.parent / "shared" / "hub")

needs_hub = pytest.mark.skipif(not HUB.is_dir(), reason="no hub mirror: set LR_EXP_HUB_ROOT")


def mirror(folder, rows, split="test"):
    """Writes a data set in hub layout, as one JSON Lines file."""
    folder.mkdir(parents=True)
    (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


COUNTS = {
    "gsm8k": 1319,
    "math500": 500,
    "svamp": 300,
    "asdiv": 2215,
    "minerva_math": 272,
    "olympiadbench": 675,
    "mmlu_stem": 3018,
}
