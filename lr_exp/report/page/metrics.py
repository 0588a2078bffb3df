"""What a run logged while it tuned. Knows `metrics.jsonl`; knows nothing of HTML."""

import json
from pathlib import Path

from lr_exp.report.json_file import is_number
from lr_exp.report.runs import Run
from lr_exp.report.tables.table import Column, Table, number, without_empty
from lr_exp.store.run_folder import METRICS

_COLUMNS = {
    "loss": ("loss (nats)", ".4f"),
    "entropy": ("entropy (nats)", ".4f"),
    "grad_norm": ("gradient norm", ".3f"),
    "learning_rate": ("learning rate", ".2e"),
}
_MOST_ROWS = 12


def damaged_metrics(folder: Path) -> str | None:
    """What is to be said of a file whose lines cannot all be read."""
    path = folder / METRICS
    if not path.is_file():
        return None
    whole = 0
    try:
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                if not isinstance(json.loads(line), dict):
                    raise ValueError
                whole += 1
    except (OSError, ValueError, RecursionError):
        return f"{METRICS} is damaged at line {whole + 1}: what stands before it is shown."
    return None


def training_table(run: Run) -> Table | None:
    """Some of the logged steps, the first and the last among them; None where nothing was tuned."""
    logged = run.training()
    if not logged:
        return None
    last = len(logged) - 1
    count = min(len(logged), _MOST_ROWS)
    places = [round(i * last / (count - 1)) for i in range(count)] if count > 1 else [0]
    rows = []
    for place in dict.fromkeys(places):
        entry = logged[place]
        values = {key: entry.get(key) for key in _COLUMNS}
        cells = [
            number(value if is_number(value) else None, _COLUMNS[key][1])
            for key, value in values.items()
        ]
        rows.append([f"{entry['step']:,}", *cells])
    columns = [Column("step", is_text=True)]
    columns += [Column(title) for title, _ in _COLUMNS.values()]
    notes = [] if len(rows) == len(logged) else [f"{len(rows)} of {len(logged):,} logged steps."]
    return without_empty(Table("training", "Logged steps", columns, rows, [], notes))
