"""The workspace: all panels, with runs grouped by method in the colours of the figures."""

from typing import Any

import wandb_workspaces.workspaces as ws

from lr_exp.report.figures.style import method_look
from lr_exp.tracking.dashboard.contents import Contents
from lr_exp.tracking.dashboard.draw import draw_panel
from lr_exp.tracking.dashboard.panels import METHOD, TABLE, sections

NAME = "LightReasoner"
_COLUMNS = (
    "run:displayName",
    "run:jobType",
    "config:cell.value.method",
    "config:cell.value.beta",
    "config:cell.value.seed",
    "summary:sample/kept_share",
    "summary:distill/entropy.min",
    "summary:eval/mean_gain",
)


def build(contents: Contents, entity: str, project: str) -> Any:
    """Builds the workspace without saving it or contacting W&B."""
    return ws.Workspace(
        entity=entity,
        project=project,
        name=NAME,
        sections=[
            ws.Section(
                name=section.name,
                panels=[draw_panel(panel) for panel in section.panels],
                is_open=True,
                layout_settings=ws.SectionLayoutSettings(
                    columns=1 if all(panel.form == TABLE for panel in section.panels) else 3, rows=2
                ),
            )
            for section in sections(contents.benchmarks)
        ],
        settings=ws.WorkspaceSettings(max_runs=50, group_by_prefix="first"),
        runset_settings=ws.RunsetSettings(
            groupby=[ws.Config(METHOD)],
            group_colors={name: method_look(name).colour for name in contents.methods},
            pinned_columns=list(_COLUMNS),
        ),
    )
