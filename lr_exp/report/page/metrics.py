"""The training log of a run, from `metrics.jsonl`."""

import json
from pathlib import Path

from lr_exp.report.read.json_file import is_number
from lr_exp.report.read.runs import Run
from lr_exp.report.tables.table import Column, Table, number, without_empty
from lr_exp.store.run_folder import METRICS

_COLUMNS = {
    "loss": ("loss (nats)", ".4f"),
    "entropy": ("entropy (nats)", ".4f"),
    "grad_norm": ("gradient norm", ".3f"),
    "learning_rate": ("learning rate", ".2e"),
}
_MAX_ROWS = 12


def damaged_metrics(folder: Path) -> str | None:
    """A message naming the first unreadable line; None where all lines can be read."""
    path = folder / METRICS
    if not path.is_file():
        return None
    readable = 0
    try:
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                if not isinstance(json.loads(line), dict):
                    raise ValueError
                readable += 1
    except (OSError, ValueError, RecursionError):
        return f"{METRICS} is damaged at line {readable + 1}; only the lines before it are shown."
    return None


def training_table(run: Run) -> Table | None:
    """Evenly spaced log entries, first and last included; None where nothing was tuned."""
    logged = run.training()
    if not logged:
        return None
    last = len(logged) - 1
    count = min(len(logged), _MAX_ROWS)
    indices = [round(i * last / (count - 1)) for i in range(count)] if count > 1 else [0]
    rows = []
    for index in dict.fromkeys(indices):
        entry = logged[index]
        values = {key: entry.get(key) for key in _COLUMNS}
        cells = [
            number(value if is_number(value) else None, _COLUMNS[key][1])
            for key, value in values.items()
        ]
        rows.append([f"{entry['step']:,}", *cells])
    columns = [Column("optimizer step", is_text=True)]
    columns += [Column(title) for title, _ in _COLUMNS.values()]
    notes = [] if len(rows) == len(logged) else [f"{len(rows)} of {len(logged):,} log entries."]
    return without_empty(Table("training", "Training log", columns, rows, [], notes))
