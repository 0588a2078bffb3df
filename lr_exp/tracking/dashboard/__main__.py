"""The command `python -m lr_exp.dashboard [DIR]`: builds W&B pages for a project's runs."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lr_exp.config.settings import WandbSettings
from lr_exp.errors import (
    UserError,
    first_line,
    guard_logging,
    guard_tracebacks,
    print_error,
    printable,
    redact,
)

_EPILOG = """
examples:
  python -m lr_exp.dashboard --offline        write pages with the paper's tables to runs/dashboard
  python -m lr_exp.dashboard runs/ablation    build pages for the runs in this folder
  python -m lr_exp.dashboard --entity TEAM --project PROJECT

Each call with a login saves a new workspace view and a new report. Existing ones never change.
"""


def main(words: Sequence[str] | None = None) -> int:
    """Saves the pages in W&B or writes them to files; returns the exit status."""
    guard_logging()
    arguments = _parser().parse_args(words)
    try:
        if not _save(arguments):
            _write(arguments)
    except (UserError, OSError) as error:
        if os.environ.get("LR_EXP_DEBUG") == "1":
            raise
        print_error(error)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lr_exp.dashboard",
        description="Builds two W&B pages for a project's runs: a workspace (sampling, "
        "distillation, evaluation by benchmark, trajectories, system) and a report with the "
        "paper's tables and figures. With a W&B login the pages are saved there; otherwise their "
        "specifications are written to files.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    folder_help = "show the benchmarks, methods and sweeps of these runs (default: the paper's)"
    add("folder", type=Path, metavar="DIR", nargs="?", help=folder_help)
    default = WandbSettings().project
    add("--project", default=default, help="W&B project with the runs (default: %(default)s)")
    add("--entity", help="user or team that owns the project (default: the login's)")
    add("--out", type=Path, help="output folder for the files (default: DIR/dashboard)")
    add("--offline", action="store_true", help="write files even if there is a login")
    return parser


def _save(arguments: argparse.Namespace) -> bool:
    """Saves the pages in W&B; False if there is no login or W&B is offline or disabled."""
    _require_workspaces()
    import wandb

    from lr_exp.tracking.wandb_login import logged_in

    if arguments.offline or os.environ.get("WANDB_MODE") in ("offline", "disabled"):
        return False
    # Unlike `wandb.Settings()`, `setup` reads the file that `wandb login --host` writes.
    session = wandb.setup(wandb.Settings(mode="offline", silent=True))
    base_url = session.settings.base_url
    if not logged_in(base_url):
        return False
    contents = _contents(arguments.folder)
    try:
        entity = _find_entity(wandb, arguments, base_url)
        pages = _pages(contents, entity, arguments.project, saved=True)
        urls = {name: page.save().url for name, page in pages.items()}
    except UserError:
        raise
    except Exception as error:  # wandb and its HTTP client raise many kinds
        raise UserError(
            f"could not save the pages at {base_url} ({first_line(error)}). Use --offline to write "
            "them to files."
        ) from error
    for name, url in urls.items():
        print(printable(f"{name}: {url}"), flush=True)
    return True


def _find_entity(wandb: Any, arguments: argparse.Namespace, base_url: str) -> str:
    """The entity that owns the project.

    Raises:
        UserError: there is no default entity, or the entity has no such project.
    """
    api = wandb.Api(timeout=20)
    entity = arguments.entity or api.default_entity
    if not entity:
        raise UserError("your W&B login has no default entity: set --entity.")
    if arguments.project not in {project.name for project in api.projects(entity)}:
        raise UserError(
            f"{base_url} has no project {entity}/{arguments.project} that you can access: upload "
            "a run first, or set --entity and --project."
        )
    return entity


def _write(arguments: argparse.Namespace) -> None:
    """Writes the specifications that W&B would receive, and prints how to save them."""
    out = arguments.out or (arguments.folder or Path("runs")) / "dashboard"
    contents = _contents(arguments.folder)
    pages = _pages(contents, arguments.entity or "", arguments.project, saved=False)
    out.mkdir(parents=True, exist_ok=True)
    names = []
    for name, page in pages.items():
        spec = page._to_model().model_dump(mode="json", by_alias=True, exclude_none=True)
        path = out / f"{name}.json"
        path.write_text(json.dumps(spec, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        names.append(str(path))
    print(printable(redact(f"Wrote W&B page specifications to {' and '.join(names)}.")))
    print(
        "Nothing was sent to W&B. To save the pages there, run `wandb login`, upload the runs with "
        "`wandb sync`, and repeat this command without --offline.",
        flush=True,
    )


def _contents(folder: Path | None) -> Any:
    from lr_exp.tracking.dashboard.contents import of_folder, of_the_paper

    return of_folder(folder) if folder else of_the_paper()


def _pages(contents: Any, entity: str, project: str, *, saved: bool) -> dict[str, Any]:
    from lr_exp.tracking.dashboard import report, workspace

    return {
        "workspace": workspace.build(contents, entity, project),
        "report": report.build(contents, entity, project, saved=saved),
    }


def _require_workspaces() -> None:
    try:
        import wandb_workspaces.workspaces  # noqa: F401
    except ImportError as error:
        raise UserError(
            "wandb-workspaces is not installed: pip install 'lr_exp[dashboard]'"
        ) from error


if __name__ == "__main__":
    guard_tracebacks()
    sys.exit(main())
