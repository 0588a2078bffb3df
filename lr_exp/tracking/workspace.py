"""The W&B workspace for a project's runs."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import wandb_workspaces.reports.v2
import wandb_workspaces.workspaces as ws

from lr_exp.report.figures.style import method_look
from lr_exp.report.names import BASELINE, BENCHMARKS, METHODS, benchmark_label, rank
from lr_exp.report.read.runs import find_runs
from lr_exp.tracking.metric_names import KEPT_PROFILE, KL_AXIS, KL_PROFILE, POSITION_AXIS

wr: Any = wandb_workspaces.reports.v2  # its names are not marked as exported

_METHODS = tuple(name for name in METHODS if name != BASELINE)
_METHOD = "cell.method"  # config key that runs are grouped and coloured by
_MAX_RUNS = 50  # per panel; W&B's default of 10 is fewer than a sweep has


@dataclass(frozen=True)
class Contents:
    """What the workspace shows, in display order."""

    benchmarks: tuple[str, ...]
    methods: tuple[str, ...]


PAPER = Contents(tuple(name for name in BENCHMARKS if name != "math500"), _METHODS)


def contents_of(folder: Path) -> Contents:
    """The contents of the runs in and below a folder; raises UserError if none is finished."""
    runs = find_runs(folder).runs

    def ordered(names: set[str], known: Iterable[str]) -> tuple[str, ...]:
        return tuple(sorted(names, key=lambda name: rank(name, tuple(known))))

    return Contents(
        ordered({name for run in runs for name in run.benchmarks}, BENCHMARKS),
        ordered({run.method for run in runs if run.method}, _METHODS),
    )


AXIS_TITLES = {
    "distill/step": "optimizer steps",
    "distill/tuned_tokens": "tuned tokens",
    "eval/step": "optimizer steps",  # the untrained expert is at 0
    KL_AXIS: "KL between expert and amateur (nats; the last bin is open-ended)",
    POSITION_AXIS: "token position",
}
_ACCURACY = "accuracy (0 to 1)"


def _line(title: str, metric: str, x: str, unit: str, **shown: Any) -> Any:
    titles = {"title": title, "title_x": AXIS_TITLES[x], "title_y": unit}
    return wr.LinePlot(**titles, x=x, y=[metric], max_runs_to_show=_MAX_RUNS, **shown)


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


def workspace_panels(benchmarks: Sequence[str]) -> dict[str, list[Any]]:
    step, tokens, nats = "distill/step", "distill/tuned_tokens", "nats per kept step"
    names = {benchmark: benchmark_label(benchmark) for benchmark in benchmarks}
    differ, agree = "sample/kl_mean_other_top1", "sample/kl_mean_same_top1"
    tops = "Mean KL where the models' top tokens differ and where they agree"
    seconds = ("sample/seconds", "distill/seconds", "eval/seconds")
    return {
        "Sampling": [
            _line("KL profile of scored steps", KL_PROFILE, KL_AXIS, "share of steps", log_y=True),
            _line("Steps kept by position", KEPT_PROFILE, POSITION_AXIS, "share of steps kept"),
            _bars("Share of steps kept", "share of steps", "sample/kept_share"),
            _bars(tops, "nats", differ, agree),
        ],
        "Distillation": [
            _line("Loss", "distill/loss", step, nats),
            _line("Student entropy (0: mode collapse)", "distill/entropy", step, "nats"),
            _line("Gradient before clipping", "distill/grad_norm", step, "L2 norm", log_y=True),
            _line("Learning rate", "distill/learning_rate", step, "learning rate"),
            _line("Loss by tuned tokens", "distill/loss", tokens, nats),
        ],
        "Evaluation": [
            _bars("Mean accuracy gain over benchmarks", _ACCURACY, "eval/mean_gain"),
            wr.WeavePanelSummaryTable(table_name="eval/before_after"),
            wr.WeavePanelSummaryTable(table_name="eval/answers"),
            *(
                _bars(
                    f"{label}: accuracy before and after",
                    _ACCURACY,
                    *(f"eval/{name}/expert", f"eval/{name}/tuned"),
                )
                for name, label in names.items()
            ),
            *(
                _line(
                    f"{label}: accuracy during training",
                    f"eval/{name}/accuracy",
                    "eval/step",
                    _ACCURACY,
                )
                for name, label in names.items()
            ),
        ],
        "Comparison": [
            _bars("Time of each stage, reused or not", "seconds", *seconds),
            _gain_by("tuned tokens", wr.SummaryMetric("distill/tuned_tokens.max")),
            _gain_by("expert minus amateur accuracy", wr.SummaryMetric("eval/gap")),
            _gain_by("beta (nats)", wr.Config("cell.beta")),
            _gain_by("alpha", wr.Config("cell.alpha")),
        ],
    }


def make_workspace(contents: Contents, entity: str, project: str) -> Any:
    """Makes the workspace without saving it or contacting W&B."""
    columns = (
        *("run:displayName", "run:jobType"),
        *("config:cell.value.method", "config:cell.value.beta", "config:cell.value.seed"),
        *("summary:sample/kept_share", "summary:distill/entropy.min", "summary:eval/mean_gain"),
    )
    layout = ws.SectionLayoutSettings(columns=3, rows=2)
    return ws.Workspace(
        entity=entity,
        project=project,
        name="LightReasoner",
        sections=[
            ws.Section(name=name, panels=panels, is_open=True, layout_settings=layout)
            for name, panels in workspace_panels(contents.benchmarks).items()
        ],
        settings=ws.WorkspaceSettings(max_runs=_MAX_RUNS, group_by_prefix="first"),
        runset_settings=ws.RunsetSettings(
            groupby=[ws.Config(_METHOD)],
            group_colors={name: method_look(name).colour for name in contents.methods},
            pinned_columns=list(columns),
        ),
    )
