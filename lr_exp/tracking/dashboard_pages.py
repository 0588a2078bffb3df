"""The W&B pages for a project's runs: a workspace, and a report with the paper's tables."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd
import wandb_workspaces.expr as expr
import wandb_workspaces.reports.v2
import wandb_workspaces.workspaces as ws

from lr_exp.errors import UserError
from lr_exp.report.analyse.profiles import MEANS
from lr_exp.report.figures.style import method_look
from lr_exp.report.names import BASELINE, BENCHMARKS, METHODS, benchmark_label, rank
from lr_exp.report.published import KL_PROFILE as PUBLISHED_KL_PROFILE
from lr_exp.report.read.runs import find_runs
from lr_exp.tracking.metric_names import KEPT_PROFILE, KL_AXIS, KL_PROFILE, POSITION_AXIS

wr: Any = wandb_workspaces.reports.v2  # its names are not marked as exported

# The paper's tables and figures in its order, then our additions: sweep -> (title, question).
SWEEPS = {
    "main_results": ("Main results", "What does training on a few contrastive tokens gain?"),
    "efficiency": ("Efficiency", "What does training cost?"),
    "ablation": ("Ablation", "Which part matters: step selection or contrastive labels?"),
    "expertise_gap": ("Expertise gap", "How much weaker should the amateur be?"),
    "kl_profile": ("KL profile", "How few steps carry the reasoning?"),
    "alpha_beta": ("Alpha and beta", "How sensitive is the gain to the two thresholds?"),
    "training_curve": ("Training curve", "When does accuracy rise, and does the student collapse?"),
    "baselines": ("Other methods", "How do other choices of steps and targets compare?"),
    "contrastive_decoding": ("Contrast at inference", "Is contrastive decoding enough?"),
}
SOURCE = "arXiv 2510.07962"
_MICRO = "micro_"  # sweeps of the micro world
_METHODS = tuple(name for name in METHODS if name != BASELINE)
_METHOD = "cell.method"  # config key that runs are grouped and coloured by
_MAX_RUNS = 50  # per panel; W&B's default of 10 is fewer than a sweep has


@dataclass(frozen=True)
class Contents:
    """What the pages show, in display order. In `sweeps`, None stands for all runs."""

    benchmarks: tuple[str, ...]
    methods: tuple[str, ...]
    sweeps: tuple[str | None, ...]


PAPER = Contents(tuple(name for name in BENCHMARKS if name != "math500"), _METHODS, tuple(SWEEPS))


def contents_of(folder: Path) -> Contents:
    """The contents of the runs in and below a folder; raises UserError if none is finished."""
    runs = find_runs(folder).runs

    def ordered(names: set[Any], known: Iterable[str]) -> tuple[Any, ...]:
        return tuple(sorted(names, key=lambda name: rank(name, tuple(known))))

    return Contents(
        ordered({name for run in runs for name in run.benchmarks}, BENCHMARKS),
        ordered({run.method for run in runs if run.method}, _METHODS),
        ordered({run.sweep for run in runs}, SWEEPS),
    )


AXIS_TITLES = {
    "distill/step": "optimizer steps",
    "distill/tuned_tokens": "tuned tokens",
    "eval/step": "optimizer steps",  # the untrained expert is at 0
    KL_AXIS: "KL between expert and amateur (nats; the last bin is open-ended)",
    POSITION_AXIS: "token position",
    "RelativeTime(Process)": "time since the start",
}
_ACCURACY = "accuracy (0 to 1)"


def _line(title: str, metric: str, x: str, unit: str, **shown: Any) -> Any:
    titles = {"title": title, "title_x": AXIS_TITLES[x], "title_y": unit}
    return wr.LinePlot(**titles, x=x, y=[metric], max_runs_to_show=_MAX_RUNS, **shown)


def _system(title: str, pattern: str, unit: str) -> Any:
    x = "RelativeTime(Process)"
    titles = {"title": title, "title_x": AXIS_TITLES[x], "title_y": unit}
    return wr.LinePlot(**titles, x=x, metric_regex=f"system/{pattern}")


def _bars(title: str, unit: str, *metrics: str) -> Any:
    # Error bars show the spread between a method's runs; the table has the error within one run.
    grouping = {"groupby_aggfunc": "mean", "groupby_rangefunc": "stderr"}
    limits = {"max_runs_to_show": _MAX_RUNS, "max_bars_to_show": _MAX_RUNS}
    titles = {"title": title, "title_x": unit, "title_y": "method"}
    metrics_by_method = {"metrics": list(metrics), "groupby": wr.Config(_METHOD)}
    return wr.BarPlot(**titles, **metrics_by_method, **grouping, **limits)


def _gain_by(what: str, x: Any) -> Any:  # scatter plots have no axis titles
    title = f"Mean accuracy gain (0 to 1) by {what}"
    return wr.ScatterPlot(title=title, x=x, y=wr.SummaryMetric("eval/mean_gain"))


_KL = _line("KL profile of scored steps", KL_PROFILE, KL_AXIS, "share of steps", log_y=True)
_KEPT_SHARE = _bars("Share of steps kept", "share of steps", "sample/kept_share")
_SAMPLING = [
    _KL,
    _line("Steps kept by position", KEPT_PROFILE, POSITION_AXIS, "share of steps kept"),
    _KEPT_SHARE,
    _bars(
        "Mean KL where the models' top tokens differ and where they agree",
        "nats",
        *("sample/kl_mean_other_top1", "sample/kl_mean_same_top1"),
    ),
]
_LOSS = _line("Loss", "distill/loss", "distill/step", "nats per kept step")
_ENTROPY = _line("Student entropy (0: mode collapse)", "distill/entropy", "distill/step", "nats")
_GRADIENT = _line(
    "Gradient before clipping", "distill/grad_norm", "distill/step", "L2 norm", log_y=True
)
_MEAN_GAIN = _bars("Mean accuracy gain over benchmarks", _ACCURACY, "eval/mean_gain")
_BEFORE_AFTER = wr.WeavePanelSummaryTable(table_name="eval/before_after")


def _accuracies(benchmarks: Sequence[str]) -> list[Any]:
    title = "{}: accuracy before and after"
    return [
        _bars(title.format(benchmark_label(b)), _ACCURACY, f"eval/{b}/expert", f"eval/{b}/tuned")
        for b in benchmarks
    ]


def _accuracy_curves(benchmarks: Sequence[str]) -> list[Any]:
    title = "{}: accuracy during training"
    return [
        _line(title.format(benchmark_label(b)), f"eval/{b}/accuracy", "eval/step", _ACCURACY)
        for b in benchmarks
    ]


def workspace_panels(benchmarks: Sequence[str]) -> dict[str, list[Any]]:
    """The panels of the workspace by section."""
    tokens, rate = "distill/tuned_tokens", "distill/learning_rate"
    accuracies, curves = _accuracies(benchmarks), _accuracy_curves(benchmarks)
    return {
        "Sampling": _SAMPLING,
        "Distillation": [
            *(_LOSS, _ENTROPY, _GRADIENT),
            _line("Learning rate", rate, "distill/step", "learning rate"),
            _line("Loss by tuned tokens", "distill/loss", tokens, "nats per kept step"),
        ],
        "Evaluation": [_MEAN_GAIN, _BEFORE_AFTER, *accuracies, *curves],
        "System": [
            _system("CPU and GPU utilization", r"(cpu|gpu\.\d+\.gpu)", "%"),
            _system("Threads", r"proc\.cpu\.threads", "threads"),
            _system("Process memory", r"proc\.memory\.rssMB", "MB"),
            _system("GPU memory", r"gpu\.\d+\.memoryAllocatedBytes", "bytes"),
        ],
    }


def report_panels(sweep: str | None, benchmarks: Sequence[str]) -> list[Any]:
    """The panels of a sweep's section in the report."""
    by_tokens = _gain_by("tuned tokens", wr.SummaryMetric("distill/tuned_tokens.max"))
    by_gap = _gain_by("expert minus amateur accuracy", wr.SummaryMetric("eval/gap"))
    by_beta = _gain_by("beta (nats)", wr.Config("cell.beta"))
    by_alpha = _gain_by("alpha", wr.Config("cell.alpha"))
    seconds = ("sample/seconds", "distill/seconds", "eval/seconds")
    gains = [_MEAN_GAIN, *_accuracies(benchmarks)]
    sections = {
        "efficiency": [by_tokens, _bars("Time of each stage, reused or not", "seconds", *seconds)],
        "expertise_gap": [by_gap, *gains],
        "kl_profile": _SAMPLING,
        "alpha_beta": [by_beta, by_alpha, _KEPT_SHARE],
        "training_curve": [*_accuracy_curves(benchmarks), _LOSS, _ENTROPY, _GRADIENT],
        "": [_KL, _LOSS, _ENTROPY, *gains, _BEFORE_AFTER],  # all runs
    }
    return sections.get((sweep or "").removeprefix(_MICRO), gains)


def make_workspace(contents: Contents, entity: str, project: str) -> Any:
    """Makes the workspace without saving it or contacting W&B."""
    columns = (
        *("run:displayName", "run:jobType"),
        *("config:cell.value.method", "config:cell.value.beta", "config:cell.value.seed"),
        *("summary:sample/kept_share", "summary:distill/entropy.min", "summary:eval/mean_gain"),
    )
    sections = []
    for name, panels in workspace_panels(contents.benchmarks).items():
        layout = ws.SectionLayoutSettings(columns=3, rows=2)
        sections.append(ws.Section(name=name, panels=panels, is_open=True, layout_settings=layout))
    return ws.Workspace(
        entity=entity,
        project=project,
        name="LightReasoner",
        sections=sections,
        settings=ws.WorkspaceSettings(max_runs=_MAX_RUNS, group_by_prefix="first"),
        runset_settings=ws.RunsetSettings(
            groupby=[ws.Config(_METHOD)],
            group_colors={name: method_look(name).colour for name in contents.methods},
            pinned_columns=list(columns),
        ),
    )


def make_report(contents: Contents, entity: str, project: str, *, saved: bool) -> Any:
    """Makes the report without saving it.

    If it will be `saved`, this requests the project's id from W&B. Otherwise the report shows the
    runs of the project that it is added to.
    """
    source = {"entity": entity, "project": project} if saved else {}
    opening = (
        "Each section below shows the runs of one sweep, grouped by method over seeds. Accuracies "
        f"of runs are between 0 and 1. Published numbers come from the paper ({SOURCE}) and "
        "are labelled as published; published accuracies are in percent. Micro-world runs are not "
        "comparable with them."
    )
    blocks: list[Any] = [wr.P(opening), wr.TableOfContents()]
    for sweep in contents.sweeps:
        blocks += _heading(sweep)
        panels = report_panels(sweep, contents.benchmarks)
        blocks.append(_panel_grid(sweep, panels, contents.methods, source))
    return wr.Report(
        entity=entity,
        project=project,
        title="LightReasoner: tables and figures",
        description=f"Runs of {project} next to the numbers of {SOURCE}",
        width="fluid",
        blocks=blocks,
    )


def _heading(sweep: str | None) -> Iterator[Any]:
    """A sweep's title and question, and the published table."""
    name = (sweep or "").removeprefix(_MICRO)
    title, question = SWEEPS.get(name, (sweep or "All runs", ""))
    yield wr.H2(f"{title} (micro world)" if (sweep or "").startswith(_MICRO) else title)
    if question:
        yield wr.P(question)
    if table := published_table(sweep):
        yield wr.MarkdownBlock(table)


def _panel_grid(
    sweep: str | None, panels: Sequence[Any], methods: Sequence[str], source: dict[str, str]
) -> Any:
    """Panels for a sweep's runs, grouped by method in the colours of the figures."""
    # wandb-workspaces parses filters and escapes nothing.
    if sweep and not re.fullmatch(r"[\w ._=,+-]+", sweep):
        raise UserError(
            f"sweep={sweep!r} cannot be used in a W&B filter: rename it with letters, digits, "
            "spaces and ._=,+- only."
        )
    runset = wr.Runset(
        **source,
        name=sweep or "all runs",
        filters=expr.And(expr.Metric("Group") == sweep) if sweep else "",
        groupby=[f"config.{_METHOD}"],
    )
    colours = {}
    for method in methods:
        keys = (wr.RunsetGroupKey(wr.Config(_METHOD), method),)
        colours[wr.RunsetGroup(runset_name=runset.name, keys=keys)] = method_look(method).colour
    table, plot = wr.Layout(w=24, h=14), wr.Layout(w=12, h=9)
    # The library moves panels that overlap to the right or down, within 24 columns.
    placed = [
        replace(panel, layout=replace(table if hasattr(panel, "table_name") else plot))
        for panel in panels
    ]
    return wr.PanelGrid(runsets=[runset], panels=placed, custom_run_colors=colours)


def published_table(sweep: str | None) -> str | None:
    """The paper's numbers for a sweep as Markdown, labelled as published; None if it has none."""
    labels = {"gap": "gap (points)", "gain": "gain (points)", "tuned_tokens": "tuned tokens"}
    unit = ""
    if sweep == "kl_profile":
        rows = [(MEANS[name], f"{value:g}") for name, value in PUBLISHED_KL_PROFILE.items()]
        table = pd.DataFrame(rows, columns=["", "published"])
    elif sweep in ("main_results", "efficiency", "ablation", "expertise_gap"):
        text = (files("lr_exp.report") / "published" / f"{sweep}.csv").read_text("utf-8")
        table = pd.read_csv(StringIO(text), dtype=str, keep_default_na=False).replace(METHODS)
        table = table.rename(columns={**BENCHMARKS, **labels})
        unit = "" if sweep == "efficiency" else "; accuracies in %"
    else:
        return None
    markdown = table.to_markdown(index=False, disable_numparse=True)
    return f"**Published** ({SOURCE}{unit})\n\n{markdown}"
