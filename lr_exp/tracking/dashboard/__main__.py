"""The program `python -m lr_exp.dashboard [DIR]`: W&B pages over a project's runs.

Knows words, the terminal and the W&B login; what is on the pages is in the modules beside.
"""

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
  python -m lr_exp.dashboard --offline        the paper's tables, as files in runs/dashboard
  python -m lr_exp.dashboard runs/ablation    what the runs below this folder hold
  python -m lr_exp.dashboard --entity TEAM --project PROJECT

Every call with a login saves a new view and a new report; it changes none that is there.
"""


def main(words: Sequence[str] | None = None) -> int:
    """Saves the pages, or writes what they are; returns 0, or 1 after an error of one line."""
    guard_logging()
    asked = _parser().parse_args(words)
    try:
        if not _sent(asked):
            _write(asked)
    except (UserError, OSError) as error:
        if os.environ.get("LR_EXP_DEBUG") == "1":
            raise
        print_error(error)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lr_exp.dashboard",
        description="Builds two W&B pages over a project's runs: a workspace (sampling, "
        "distilling, evaluation by benchmark, trajectories, system) and a report with the paper's "
        "tables and figures. With a W&B login they are saved there; without one, what they are is "
        "written to files.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    what = "runs whose benchmarks, methods and sweeps are shown (default: the paper's)"
    add("folder", type=Path, metavar="DIR", nargs="?", help=what)
    default = WandbSettings().project
    add("--project", default=default, help="W&B project of the runs (default: %(default)s)")
    add("--entity", help="user or team that owns it (default: the login's)")
    add("--out", type=Path, help="folder for the files (default: DIR/dashboard)")
    add("--offline", action="store_true", help="write files, whether there is a login or not")
    return parser


def _sent(asked: argparse.Namespace) -> bool:
    """Saves the pages, where there is a login and nothing against it."""
    _needs_workspaces()
    import wandb

    from lr_exp.tracking.login import logged_in

    if asked.offline or os.environ.get("WANDB_MODE") in ("offline", "disabled"):
        return False
    # Not of `wandb.Settings()`: the address of `wandb login --host` is in a file that this reads.
    session = wandb.setup(wandb.Settings(mode="offline", silent=True))
    base_url = session.settings.base_url
    if not logged_in(base_url):
        return False
    contents = _contents(asked.folder)
    try:
        entity = _owner(wandb, asked, base_url)
        pages = _pages(contents, entity, asked.project, saved=True)
        addresses = {name: page.save().url for name, page in pages.items()}
    except UserError:
        raise
    except Exception as error:  # each layer below has errors of its own
        raise UserError(
            f"{base_url} did not take the pages ({first_line(error)}). With --offline they are "
            "written to files."
        ) from error
    for name, address in addresses.items():
        print(printable(f"{name}: {address}"), flush=True)
    return True


def _owner(wandb: Any, asked: argparse.Namespace, base_url: str) -> str:
    """The entity, once it is sure that it has the project."""
    api = wandb.Api(timeout=20)
    entity = asked.entity or api.default_entity
    if not entity:
        raise UserError("your W&B login has no default entity: give --entity.")
    if asked.project not in {project.name for project in api.projects(entity)}:
        raise UserError(
            f"{base_url} has no project {entity}/{asked.project} that you can see: send a run "
            "first, or give --entity and --project."
        )
    return entity


def _write(asked: argparse.Namespace) -> None:
    """Writes what the service would be sent, and says what to do with it."""
    out = asked.out or (asked.folder or Path("runs")) / "dashboard"
    pages = _pages(_contents(asked.folder), asked.entity or "", asked.project, saved=False)
    out.mkdir(parents=True, exist_ok=True)
    names = []
    for name, page in pages.items():
        told = page._to_model().model_dump(mode="json", by_alias=True, exclude_none=True)
        path = out / f"{name}.json"
        path.write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        names.append(str(path))
    print(printable(redact(f"Written: {' and '.join(names)}, specifications of W&B pages.")))
    print(
        "Nothing was sent. To save them in W&B: `wandb login`, send the runs (`wandb sync`), then "
        "the same command without --offline.",
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


def _needs_workspaces() -> None:
    try:
        import wandb_workspaces.workspaces  # noqa: F401
    except ImportError as error:
        raise UserError(
            "the pages need wandb-workspaces, which is not installed: "
            "pip install 'lr_exp[dashboard]'"
        ) from error


if __name__ == "__main__":
    guard_tracebacks()
    sys.exit(main())
