"""The command `python -m lr_exp.dashboard [DIR]`: builds W&B pages for a project's runs."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lr_exp.errors import UserError, command, first_line, guard_tracebacks, printable, redact
from lr_exp.tracking.wandb_sink import DEFAULT_PROJECT

_EPILOG = """
examples:
  python -m lr_exp.dashboard --offline        write pages with the paper's tables to runs/dashboard
  python -m lr_exp.dashboard runs/ablation    build pages for the runs in this folder
  python -m lr_exp.dashboard --entity TEAM --project PROJECT

Each call with a login saves a new workspace view and a new report. Existing ones never change.
"""


@command
def main(words: Sequence[str] | None = None) -> int:
    """Saves the pages in W&B or writes them to files."""
    arguments = _parser().parse_args(words)
    if action := _required_action(arguments):
        _write(arguments, action)
    else:
        _save(arguments)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lr_exp.dashboard",
        description="Builds two W&B pages for a project's runs: a workspace (sampling, "
        "distillation, evaluation by benchmark, system) and a report with the "
        "paper's tables and figures. With a W&B login the pages are saved there; otherwise their "
        "specifications are written to files.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    what = "show the benchmarks, methods and sweeps of these runs (default: the paper's)"
    add("folder", type=Path, metavar="DIR", nargs="?", help=what)
    default = os.environ.get("WANDB_PROJECT") or DEFAULT_PROJECT
    add("--project", default=default, help="W&B project with the runs (default: %(default)s)")
    what = "user or team that owns the project (default: the login's)"
    add("--entity", default=os.environ.get("WANDB_ENTITY"), help=what)
    add("--out", type=Path, help="output folder for the files (default: DIR/dashboard)")
    add("--offline", action="store_true", help="write files even if there is a login")
    return parser


def _required_action(arguments: argparse.Namespace) -> str | None:
    """What the user has to do before the pages can be saved in W&B; None if nothing."""
    try:
        import wandb
        import wandb_workspaces.workspaces  # noqa: F401
    except ImportError as error:
        raise UserError(
            "wandb-workspaces is not installed: pip install 'lr_exp[dashboard]'"
        ) from error

    if arguments.offline:
        return "repeat this command without --offline"
    if (mode := os.environ.get("WANDB_MODE")) in ("offline", "disabled"):
        return f"unset WANDB_MODE={mode} and repeat this command"
    wandb.setup(wandb.Settings(silent=True))
    if not wandb.login(prompt=False, verify=False):
        return "run `wandb login` and repeat this command"
    return None


def _save(arguments: argparse.Namespace) -> None:
    """Saves the pages in W&B and prints their addresses; raises UserError if that fails."""
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
        for name, page in _make_pages(arguments, entity, saved=True).items():
            print(printable(f"{name}: {page.save().url}"), flush=True)
    except UserError:
        raise
    except Exception as error:  # wandb and its HTTP client raise many kinds
        raise UserError(
            f"could not save the pages in W&B ({first_line(error)}). Use --offline to write them "
            "to files."
        ) from error


def _write(arguments: argparse.Namespace, required_action: str) -> None:
    """Writes the specifications that W&B would receive, and prints how to save them."""
    pages = _make_pages(arguments, arguments.entity or "", saved=False)
    out = arguments.out or (arguments.folder or Path("runs")) / "dashboard"
    out.mkdir(parents=True, exist_ok=True)
    for name, page in pages.items():
        spec = page._to_model().model_dump(mode="json", by_alias=True, exclude_none=True)
        content = json.dumps(spec, indent=1, ensure_ascii=False) + "\n"
        (out / f"{name}.json").write_text(content, encoding="utf-8")
    paths = " and ".join(str(out / f"{name}.json") for name in pages)
    print(printable(redact(f"Wrote W&B page specifications to {paths}.")))
    print(
        "Nothing was sent to W&B. To save the pages there, upload runs that were recorded offline "
        f"with `wandb sync`, then {required_action}."
    )


def _make_pages(arguments: argparse.Namespace, entity: str, *, saved: bool) -> dict[str, Any]:
    from lr_exp.tracking import dashboard_pages as pages

    contents = pages.contents_of(arguments.folder) if arguments.folder else pages.PAPER
    return {
        "workspace": pages.make_workspace(contents, entity, arguments.project),
        "report": pages.make_report(contents, entity, arguments.project, saved=saved),
    }


if __name__ == "__main__":
    guard_tracebacks()
    sys.exit(main())
