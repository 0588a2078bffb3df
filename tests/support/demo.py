"""Small demo runs in this process."""

import json
from importlib import import_module
from pathlib import Path

import pytest

from lr_exp.api import compose
from lr_exp.config.composition import conf_dir
from lr_exp.pipeline.run import run
from lr_exp.store import MANIFEST
from lr_exp.store.inventory import RUNS

SMALL = [
    "experiment=demo",
    "data.count=24",
    "sampler.batch_size=12",
    "distiller.steps=8",
    "distiller.batch_size=16",
    "distiller.learning_rate=5e-3",
    "distiller.log_every=2",
    "benchmarks=[micro_add,micro_plain]",
    "evaluator.max_examples=12",
    "evaluator.batch_size=8",
    "wandb.mode=disabled",
]


def settings_for(tmp_path: Path, *overrides: str):
    return compose(*SMALL, f"store={tmp_path / 'store'}", *overrides)


def skip_figures(patch: pytest.MonkeyPatch) -> None:
    """Omits the figures of runs' pages, which take a second to draw."""
    module = import_module("lr_exp.report.page.run_page")  # whose name a function also has
    patch.setattr(module, "draw_run", lambda *_: [])


def go(tmp_path: Path, folder: str, *overrides: str, figures: bool = False) -> dict:
    settings = settings_for(tmp_path, *overrides)
    with pytest.MonkeyPatch.context() as patch:
        if not figures:
            skip_figures(patch)
        return run(settings, tmp_path / folder, [conf_dir()]).to_dict()


def results(summary: dict) -> dict:
    return {who: summary["evaluate"][who] for who in ("expert", "tuned")}


def contents(folder: Path) -> dict[str, bytes]:
    """Every artifact's files but the manifest, which holds seconds, and the list of runs."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in (MANIFEST, RUNS) and path.suffix != ".lock"
    }


def finished_cells(outcome) -> list[dict]:
    return [json.loads(p.read_text("utf-8")) for p in sorted(outcome.folder.glob("*/summary.json"))]
