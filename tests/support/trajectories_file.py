"""Writes `trajectories.json`, with hostile text to put into it."""

import json
from pathlib import Path
from typing import Any

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
    "same_top1": [0, 1, None],
    "candidates": [
        [[0, 0.6, 0.1, 1, 0.9], [3, 0.3, 0.2, 1, 0.1], [1, 0.05, 0.5, 0, 0.0]],
        [[1, 0.95, 0.9, 1, None]],
        [],
    ],
}


TOKENS = ["1", "3", "\n", " 2"]


# Markup, a script's end tag, control characters, bidirectional marks, a lone surrogate and a
# replacement character.
NASTY = (
    "</script><script>document.title='taken'</script><img src=x onerror=alert(1)>"
    "&amp;\x1b[31m\x00\u202eright\u2066\u2028\u2029\ud800\ufffd'\"`{{x}}שלום"
)


def write_trajectories(folder: Path, *answers: dict[str, Any], **changed: Any) -> Path:
    """Writes a run's `trajectories.json`; two answers by default."""
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
    path = folder / "trajectories.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path
