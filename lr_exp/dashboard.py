"""Build a W&B workspace for a project's runs: sampling, distillation, evaluation, comparison.

python -m lr_exp.dashboard --offline        write the workspace to runs/dashboard
python -m lr_exp.dashboard runs/ablation    build it for the runs in this folder
python -m lr_exp.dashboard --entity TEAM --project PROJECT

With a W&B login it is saved there as a new view; existing ones never change. Otherwise its
specification is written to a file.
"""

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lr_exp.errors import (
    UserError,
    command,
    first_line,
    parser_of,
    printable,
    redact,
    run_program,
)
from lr_exp.tracking.wandb_sink import DEFAULT_PROJECT


@command
def main(words: Sequence[str] | None = None) -> int:
    parser = parser_of("lr_exp.dashboard", __doc__)
    add = parser.add_argument
    what = "show the benchmarks and methods of these runs (default: the paper's)"
    add("folder", type=Path, metavar="DIR", nargs="?", help=what)
    default = os.environ.get("WANDB_PROJECT") or DEFAULT_PROJECT
    add("--project", default=default, help="W&B project with the runs (default: %(default)s)")
    what = "user or team that owns the project (default: the login's)"
    add("--entity", default=os.environ.get("WANDB_ENTITY"), help=what)
    add("--out", type=Path, help="output folder for the file (default: DIR/dashboard)")
    add("--offline", action="store_true", help="write a file even if there is a login")
    arguments = parser.parse_args(words)
    if _can_save(arguments.offline):
        _save(arguments)
    else:
        _write(arguments)
    return 0


def _can_save(offline: bool) -> bool:
    """Whether there is a login; raises UserError if the extra is not installed."""
    try:
        import wandb
        import wandb_workspaces.workspaces  # noqa: F401
    except ImportError as error:
        raise UserError(
            "wandb-workspaces is not installed: pip install 'lr_exp[dashboard]'"
        ) from error
    if offline or os.environ.get("WANDB_MODE") in ("offline", "disabled"):
        return False
    wandb.setup(wandb.Settings(silent=True))
    return wandb.login(prompt=False, verify=False)


def _save(arguments: argparse.Namespace) -> None:
    """Saves the workspace in W&B and prints its address; raises UserError if that fails."""
    import wandb

    try:
        api = wandb.Api(timeout=20)
        entity, project = arguments.entity or api.default_entity, arguments.project
        if not entity:
            raise UserError("your W&B login has no default entity: set --entity.")
        if project not in {one.name for one in api.projects(entity)}:
            raise UserError(
                f"W&B has no project {entity}/{project} that you can access: upload a run first, "
                "or set --entity and --project."
            )
        print(printable(f"workspace: {_workspace(arguments, entity).save().url}"))
    except UserError:
        raise
    except Exception as error:  # wandb and its HTTP client raise many kinds
        raise UserError(
            f"could not save the workspace in W&B ({first_line(error)}). Use --offline to write it "
            "to a file."
        ) from error


def _write(arguments: argparse.Namespace) -> None:
    """Writes the specification that W&B would receive, and prints how to save it there."""
    page = _workspace(arguments, arguments.entity or "")
    spec = page._to_model().model_dump(mode="json", by_alias=True, exclude_none=True)
    path = (arguments.out or (arguments.folder or Path("runs")) / "dashboard") / "workspace.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(spec, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(printable(redact(f"Wrote the specification of a W&B workspace to {path}.")))
    print(
        "Nothing was sent to W&B. To save it there, upload runs that were recorded offline with "
        "`wandb sync`, and repeat this command with a login, without WANDB_MODE and --offline."
    )


def _workspace(arguments: argparse.Namespace, entity: str) -> Any:
    from lr_exp.tracking import workspace

    contents = workspace.contents_of(arguments.folder) if arguments.folder else workspace.PAPER
    return workspace.make_workspace(contents, entity, arguments.project)


if __name__ == "__main__":
    run_program(main)
