"""Writes `trajectories.json.gz`, with hostile text to put into it."""

import gzip
import json
from pathlib import Path
from typing import Any

from tests.support.run_folders import write_run

# Three tokens of a wrong answer: the first step is kept, the last was not scored.
ANSWER: dict[str, Any] = {
    "id": "q/0",
    "question": "How many?",
    "reference": "12",
    "correct": False,
    "predicted": "13",
    "finished": True,
    "tokens_total": 3,
    "token": [0, 1, 2],
    "kl": [1.25, 0.01, None],
    "kept": [1, 0, 0],
    "expert_entropy": [0.5, 0.02, None],
    "amateur_entropy": [0.75, 0.03, None],
    "mask_size": [2, 1, None],
    "moving": [1, None, None],
    "same_top1": [0, 1, None],
    "candidates": [
        [[0, 0.6, 0.1, 1, 0.9], [3, 0.3, 0.2, 1, 0.1], [1, 0.05, 0.5, 0, 0.0]],
        [[1, 0.95, 0.9, 1, None]],
        [],
    ],
}

# From a method without an amateur: nothing is scored, every step is kept.
UNSCORED: dict[str, Any] = ANSWER | {
    "correct": None,
    "predicted": None,
    "kept": [1, 1, 1],
    **dict.fromkeys(
        ("kl", "expert_entropy", "amateur_entropy", "mask_size", "moving", "same_top1"), [None] * 3
    ),
    "candidates": [[]] * 3,
}

TOKENS = ["1", "3", "\n", " 2"]

# Markup, a script's end tag, control characters, bidirectional marks, a lone surrogate and a
# replacement character.
NASTY = (
    "</script><script>document.title='taken'</script><img src=x onerror=alert(1)>"
    "&amp;\x1b[31m\x00\u202eright\u2066\u2028\u2029\ud800\ufffd'\"`{{x}}שלום"
)


def write_trajectories(folder: Path, *answers: dict[str, Any], **changed: Any) -> Path:
    """Writes a run's `trajectories.json.gz`; two answers by default."""
    right = ANSWER | {"id": "q/1", "correct": True, "predicted": "12", "kept": [0, 0, 0]}
    content = {
        "version": 1,
        "method": "lightreasoner",
        "expert": "micro",
        "amateur": "micro",
        "alpha": 0.2,
        "beta": 0.4,
        "answers_total": 300,
        "chosen": "the first ones",
        "tokens": TOKENS,
        "answers": list(answers) or [ANSWER, right],
        **changed,
    }
    folder.mkdir(parents=True, exist_ok=True)
    return write_compressed(folder / "trajectories.json.gz", json.dumps(content))


def write_compressed(path: Path, text: str) -> Path:
    path.write_bytes(gzip.compress(text.encode()))
    return path


def read_compressed(path: Path) -> str:
    return gzip.decompress(path.read_bytes()).decode()


def write_hostile_run(folder: Path, **changed: Any) -> Path:
    """A finished run with hostile text wherever users, models and data sets choose it."""
    plain = NASTY.replace("\ud800", "")  # a lone surrogate cannot be written to a summary
    texts = {"expert": plain, "sweep": plain, "warnings": [plain]}
    write_run(folder, **texts, settings__sampler={"system_prompt": plain}, **changed)
    nasty = ANSWER | {"id": NASTY, "question": NASTY, "reference": NASTY, "predicted": NASTY}
    tokens = [NASTY, "\u202eabc", "\x07\x1b]0;x\x07", "שלום"]
    write_trajectories(folder, nasty, tokens=tokens, chosen=NASTY)
    for path in (folder / "answers").rglob("*.jsonl"):
        change_answers(path, question=NASTY, output=NASTY)
    return folder


def change_answers(path: Path, **changed: Any) -> None:
    """Changes every record of a file of graded answers."""
    records = [json.loads(line) | changed for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
