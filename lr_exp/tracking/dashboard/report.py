"""The report: the paper's tables and figures of a project's runs, beside what was published.

Knows which panels answer which of the paper's questions; knows nothing of how they are drawn.
"""

import re
from typing import Any

import wandb_workspaces.expr as expr
import wandb_workspaces.reports.v2

from lr_exp.errors import UserError
from lr_exp.report.figures.style import of_method
from lr_exp.tracking.dashboard import panels
from lr_exp.tracking.dashboard.contents import Contents
from lr_exp.tracking.dashboard.draw import drawn_in_rows
from lr_exp.tracking.dashboard.panels import METHOD, Panel
from lr_exp.tracking.dashboard.published import SOURCE, markdown

wr: Any = wandb_workspaces.reports.v2  # it does not mark its names as exported

TITLE = "LightReasoner: tables and figures"
_MICRO = "micro_"
_PLAIN = re.compile(r"[\w ._=,+-]+")  # wandb-workspaces reads a filter as code and quotes nothing
_OPENING = (
    "Each part below is of one sweep: its runs, grouped by method over their seeds. Accuracies of "
    f"runs are in 0 to 1. Published numbers are the paper's ({SOURCE}), always labelled so, and in "
    "percent; numbers of the micro world are its own and are beside none."
)
_QUESTIONS = {
    "main_results": ("Main results", "What does tuning on a few tokens of contrast give?"),
    "efficiency": ("Efficiency", "At what cost?"),
    "ablation": ("Ablation", "Which part does it: choosing steps, or contrasting labels?"),
    "expertise_gap": ("Expertise gap", "How much weaker should the amateur be?"),
    "kl_profile": ("KL profile", "How few are the steps that carry the reasoning?"),
    "alpha_beta": ("Alpha and beta", "How do the two thresholds matter?"),
    "training_curve": ("Training curve", "When does accuracy come, and does the policy collapse?"),
    "baselines": ("Other methods", "What do other ways to choose steps and targets give?"),
    "contrastive_decoding": ("Contrast at inference", "Is contrast needed in training at all?"),
}


def build(contents: Contents, entity: str, project: str, *, saved: bool) -> Any:
    """The report, not yet saved.

    Args:
        contents: what the runs hold; a part for each sweep.
        entity: whose it will be.
        project: where the runs are.
        saved: it will be saved: the service is asked for the project's id. Otherwise nobody is
            asked, and the runs are those of the project that the report is put into.
    """
    place = {"entity": entity, "project": project} if saved else {}
    blocks: list[Any] = [wr.P(_OPENING), wr.TableOfContents()]
    for sweep in contents.sweeps:
        blocks += _part(sweep, contents, place)
    blocks += [
        wr.H2("Answers, token by token"),
        _grid("all runs", None, (panels.TRAJECTORIES,), contents, place),
    ]
    return wr.Report(
        entity=entity,
        project=project,
        title=TITLE,
        description=f"Runs of {project} beside the numbers of {SOURCE}",
        width="fluid",
        blocks=blocks,
    )


def shown_in(sweep: str | None, benchmarks: tuple[str, ...]) -> tuple[Panel, ...]:
    """The panels of a sweep's part."""
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


def _part(sweep: str | None, contents: Contents, place: dict[str, str]) -> list[Any]:
    name = (sweep or "").removeprefix(_MICRO)
    title, question = _QUESTIONS.get(name, (sweep or "All runs", ""))
    if sweep and sweep.startswith(_MICRO):
        title += ", in the micro world"
    blocks: list[Any] = [wr.H2(title)]
    blocks += [wr.P(question)] if question else []
    published = markdown(sweep)
    blocks += [wr.MarkdownBlock(published)] if published else []
    own = shown_in(sweep, contents.benchmarks)
    return [*blocks, _grid(sweep or "all runs", sweep, own, contents, place)]


def _grid(
    name: str,
    sweep: str | None,
    shown: tuple[Panel, ...],
    contents: Contents,
    place: dict[str, str],
) -> Any:
    """Panels over a sweep's runs, grouped by method in the figures' colours."""
    if sweep and not _PLAIN.fullmatch(sweep):
        raise UserError(
            f"the sweep {sweep!r} cannot be shown: a filter of W&B's holds letters, digits and "
            "._=,+- only. Give sweep= such a name."
        )
    runset = wr.Runset(
        **place,
        name=name,
        filters=expr.And(expr.Metric("Group") == sweep) if sweep else "",
        groupby=[f"config.{METHOD}"],
    )
    colours = {
        wr.RunsetGroup(
            runset_name=name, keys=(wr.RunsetGroupKey(wr.Config(METHOD), method),)
        ): of_method(method).colour
        for method in contents.methods
    }
    return wr.PanelGrid(runsets=[runset], panels=drawn_in_rows(shown), custom_run_colors=colours)
