"""The report: the paper's tables and figures for a project's runs, next to the published ones."""

import re
from typing import Any

import wandb_workspaces.expr as expr
import wandb_workspaces.reports.v2

from lr_exp.errors import UserError
from lr_exp.report.figures.style import method_look
from lr_exp.tracking.dashboard import panels
from lr_exp.tracking.dashboard.contents import Contents
from lr_exp.tracking.dashboard.draw import draw_grid
from lr_exp.tracking.dashboard.panels import METHOD, Panel
from lr_exp.tracking.dashboard.published import SOURCE, markdown

wr: Any = wandb_workspaces.reports.v2  # its names are not marked as exported

TITLE = "LightReasoner: tables and figures"
_MICRO = "micro_"
_SAFE_NAME = re.compile(r"[\w ._=,+-]+")  # wandb-workspaces parses filters and escapes nothing
_OPENING = (
    "Each section below shows the runs of one sweep, grouped by method over seeds. Accuracies of "
    f"runs are between 0 and 1. Published numbers come from the paper ({SOURCE}), are labelled as "
    "published and are in percent. Micro-world runs are not comparable with them."
)
_QUESTIONS = {
    "main_results": ("Main results", "What does training on a few contrastive tokens gain?"),
    "efficiency": ("Efficiency", "What does training cost?"),
    "ablation": ("Ablation", "Which part matters: step selection or contrastive labels?"),
    "expertise_gap": ("Expertise gap", "How much weaker should the amateur be?"),
    "kl_profile": ("KL profile", "How few steps carry the reasoning?"),
    "alpha_beta": ("Alpha and beta", "How sensitive is the gain to the two thresholds?"),
    "training_curve": ("Training curve", "When does accuracy rise, and does the policy collapse?"),
    "baselines": ("Other methods", "How do other choices of steps and targets compare?"),
    "contrastive_decoding": ("Contrast at inference", "Is contrastive decoding enough?"),
}


def build(contents: Contents, entity: str, project: str, *, saved: bool) -> Any:
    """Builds the report without saving it.

    Args:
        contents: benchmarks and methods to show; the report has a section for each sweep.
        entity: owner of the project.
        project: project with the runs.
        saved: whether the report will be saved in W&B. If so, this requests the project's id from
            the service. Otherwise the report shows the runs of the project that it is added to.
    """
    source = {"entity": entity, "project": project} if saved else {}
    blocks: list[Any] = [wr.P(_OPENING), wr.TableOfContents()]
    for sweep in contents.sweeps:
        blocks += _section(sweep, contents, source)
    blocks += [
        wr.H2("Answers token by token"),
        _grid("all runs", None, (panels.TRAJECTORIES,), contents, source),
    ]
    return wr.Report(
        entity=entity,
        project=project,
        title=TITLE,
        description=f"Runs of {project} next to the numbers of {SOURCE}",
        width="fluid",
        blocks=blocks,
    )


def sweep_panels(sweep: str | None, benchmarks: tuple[str, ...]) -> tuple[Panel, ...]:
    """The panels of a sweep's section."""
    gains = (panels.MEAN_GAIN, *(panels.accuracy(name) for name in benchmarks))
    match (sweep or "").removeprefix(_MICRO):
        case "efficiency":
            return (panels.GAIN_BY_TOKENS, panels.COST)
        case "expertise_gap":
            return (panels.GAIN_BY_GAP, *gains)
        case "kl_profile":
            return (panels.KL_CURVE, panels.KEPT_CURVE, panels.KEPT_SHARE, panels.KL_MEAN)
        case "alpha_beta":
            return (panels.GAIN_BY_BETA, panels.GAIN_BY_ALPHA, panels.KEPT_SHARE)
        case "training_curve":
            curves = (panels.accuracy_curve(name) for name in benchmarks)
            return (*curves, panels.LOSS, panels.ENTROPY, panels.GRADIENT)
        case "":
            return (panels.KL_CURVE, panels.LOSS, panels.ENTROPY, panels.BEFORE_AFTER, *gains)
        case _:
            return gains


def _section(sweep: str | None, contents: Contents, source: dict[str, str]) -> list[Any]:
    name = (sweep or "").removeprefix(_MICRO)
    title, question = _QUESTIONS.get(name, (sweep or "All runs", ""))
    if sweep and sweep.startswith(_MICRO):
        title += " (micro world)"
    blocks: list[Any] = [wr.H2(title)]
    blocks += [wr.P(question)] if question else []
    published = markdown(sweep)
    blocks += [wr.MarkdownBlock(published)] if published else []
    shown = sweep_panels(sweep, contents.benchmarks)
    return [*blocks, _grid(sweep or "all runs", sweep, shown, contents, source)]


def _grid(
    name: str,
    sweep: str | None,
    shown: tuple[Panel, ...],
    contents: Contents,
    source: dict[str, str],
) -> Any:
    """Panels for a sweep's runs, grouped by method in the colours of the figures."""
    if sweep and not _SAFE_NAME.fullmatch(sweep):
        raise UserError(
            f"sweep={sweep!r} cannot be used in a W&B filter: rename it with letters, digits, "
            "spaces and ._=,+- only."
        )
    runset = wr.Runset(
        **source,
        name=name,
        filters=expr.And(expr.Metric("Group") == sweep) if sweep else "",
        groupby=[f"config.{METHOD}"],
    )
    colours = {
        wr.RunsetGroup(
            runset_name=name, keys=(wr.RunsetGroupKey(wr.Config(METHOD), method),)
        ): method_look(method).colour
        for method in contents.methods
    }
    return wr.PanelGrid(runsets=[runset], panels=draw_grid(shown), custom_run_colors=colours)
