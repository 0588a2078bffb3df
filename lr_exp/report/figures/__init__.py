"""The report's figures. Only drawing imports matplotlib."""

from importlib.metadata import version
from pathlib import Path

from lr_exp.errors import UserError
from lr_exp.report.analyse.rows import Sweep
from lr_exp.report.figures.figure import Figure, Image
from lr_exp.report.figures.gain_parts import gain_parts, gain_parts_by_row
from lr_exp.report.figures.steps import lorenz_curve, lorenz_curves
from lr_exp.report.figures.style import STYLE, styled
from lr_exp.report.figures.sweep import (
    ablation_radar,
    alpha_beta_map,
    cost_bars,
    gain_against_gap,
    gain_by_setting,
)
from lr_exp.report.figures.training import accuracy_by_step, entropy_by_step, training_curves
from lr_exp.report.read.runs import Run
from lr_exp.store import Recipe, Store, digest, file_digest

__all__ = ["STYLE", "Figure", "Image", "draw_run", "draw_sweep", "images_of"]

_CODE = Path(__file__).parents[1]  # all of `report`, which determines the figures
# Where results come from or go, and when.
_PLACES = {
    *("store", "wandb", "artifact", "reused", "device_name"),
    *("commit", "host", "modified", "overrides", "started"),
}
_NEVER_DRAWN = dict.fromkeys(["provenance", "settings", "sample", "distill", "evaluate"], _PLACES)
_OF_RUN = (gain_parts, lorenz_curve, training_curves)
_OF_SWEEP = (
    gain_parts_by_row,
    lorenz_curves,
    gain_against_gap,
    gain_by_setting,
    ablation_radar,
    accuracy_by_step,
    entropy_by_step,
    cost_bars,
    alpha_beta_map,
)


def draw_run(run: Run) -> list[Figure]:
    """Every figure for which the run, finished or not, has the data."""
    with styled():
        return [figure for draw in _OF_RUN if (figure := draw(run))]


def images_of(run: Run, store: Store | None = None) -> list[Image]:
    """The images of `draw_run`; from the store, if it has those of the same summary and metrics."""
    if store is None:
        return [figure.image for figure in draw_run(run)]
    data = digest([run.summary.model_dump(exclude=_NEVER_DRAWN), run.metrics()[0]])
    code = digest([file_digest(path) for path in (STYLE, *sorted(_CODE.rglob("*.py")))])
    settings = {"code": code, "matplotlib": version("matplotlib")}
    recipe = Recipe("figures", 1, {"data": data}, settings)
    try:
        made = store.make(recipe, lambda _: {"images": [*map(vars, images_of(run))]})
    except UserError:  # the store is not writable
        return images_of(run)
    return [Image(**one) for one in made.facts["images"]]


def draw_sweep(sweep: Sweep) -> list[Figure]:
    """Every figure for which the sweep has the data."""
    with styled():
        return [figure for draw in _OF_SWEEP if (figure := draw(sweep))]
