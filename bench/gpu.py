"""Measures this project on a GPU: `python -m bench.gpu`, explained in docs/gpu.md.

Each step runs in a process of its own, which is stopped at a limit, and writes OUT/STEP.json. A
finished step is skipped the next time, unless the code or the device has changed.
"""

import argparse
import contextlib
import hashlib
import importlib.metadata
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
STEPS = (  # in order of value
    *("environment", "micro", "qwen_math_1_5b", "qwen_math_7b", "compiled"),
    *("precision", "ablation", "ranks", "profile"),
)
CHILD = (sys.executable, "-m", "bench.gpu_steps")
# Dependencies of this project that no step imports, and torch's, which its builds name differently.
_UNUSED = {"datasets", "httpx2", "tenacity", "wandb"}
_NOT_FOLLOWED = {"torch"}


def main(words: Sequence[str] | None = None) -> int:
    """Runs the steps; returns 1 if a package is missing or a step failed."""
    args = _parser().parse_args(words)
    missing = missing_packages()
    if missing:
        print(f"error: missing packages: {', '.join(missing)}; see docs/gpu.md", file=sys.stderr)
        return 1
    args.out = args.out.resolve()
    args.out.mkdir(parents=True, exist_ok=True)
    key = _key(args)
    print(f"{key['device']}, code {key['code']}, results in {args.out}", flush=True)
    failed = False
    for name in args.steps:
        record = read_record(args.out, name)
        is_done = record.get("status") == "done" and {**record, **key} == record
        if is_done and name not in args.again:
            print(f"{name}: done before", flush=True)
            continue
        print(f"{name}: ...", flush=True)
        record = _run_step(name, key, args)
        failed = failed or record["status"] == "failed"
        print(f"{name}: {record['status']}, {record['seconds']:.0f} s {record['reason']}")
    _write_document(args)
    return int(failed)


def missing_packages() -> list[str]:
    """The requirements of pyproject.toml, and theirs, that are not installed as they have to be."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    missing: list[str] = []
    seen = set(_UNUSED)

    def visit(requirement: Requirement, extras: set[str], is_direct: bool) -> None:
        name = canonicalize_name(requirement.name)
        marker = requirement.marker
        needed = not marker or any(marker.evaluate({"extra": one}) for one in extras | {""})
        if name in seen or not needed:
            return
        seen.add(name)
        try:
            found = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            missing.append(f"{name}{requirement.specifier}")
            return
        if is_direct and not requirement.specifier.contains(found.version, prereleases=True):
            missing.append(f"{name}{requirement.specifier} (installed: {found.version})")
        if name not in _NOT_FOLLOWED:
            for line in found.requires or ():
                visit(Requirement(line), requirement.extras, is_direct=False)

    for line in project["dependencies"]:
        visit(Requirement(line), set(), is_direct=True)
    return missing


def read_record(out: Path, name: str) -> dict[str, Any]:
    """The record of a step; empty if there is none."""
    path = out / f"{name}.json"
    return json.loads(path.read_text("utf-8")) if path.exists() else {}


def _key(args: argparse.Namespace) -> dict[str, Any]:
    """What a finished step must agree with to be skipped; the code by its content, without git."""
    import torch

    from lr_exp.models.devices import resolve_device

    args.device = resolve_device(args.device)
    on_gpu = torch.device(args.device).type == "cuda"
    hasher = hashlib.sha256()
    for folder in ("bench", "conf", "lr_exp", "sweeps"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                hasher.update(path.read_bytes())
    return {
        "code": hasher.hexdigest()[:12],
        "device": torch.cuda.get_device_name(args.device) if on_gpu else "cpu",
        "toy": args.toy,
    }


def _run_step(name: str, key: dict[str, Any], args: argparse.Namespace) -> dict[str, Any]:
    """Runs a step in a child process; writes and returns its record, and updates the document."""
    from lr_exp.pipeline.origin import origin

    facts = origin()
    commit = args.commit or (None if facts["modified"] else facts["commit"])
    found, log = args.out / f"{name}.part", args.out / f"{name}.log"
    found.unlink(missing_ok=True)
    scratch = args.out / "files" / f"{name}-{key['code']}{'-toy' * args.toy}"
    options = json.dumps({"device": args.device, "scratch": str(scratch), "toy": args.toy})
    # Absolute, because `ranks` starts the program in another folder.
    paths = [ROOT, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    path = os.pathsep.join(map(os.path.abspath, paths))
    start, reason = time.monotonic(), "interrupted"
    with log.open("w") as output:
        child = subprocess.Popen(  # noqa: S603 - our own program
            [*CHILD, name, options, str(found)],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1"},
            start_new_session=True,
        )
    try:
        status = child.wait(args.step_seconds)
        reason = "" if status == 0 else f"status {status}: {_last_line(log)}"
        if not reason:
            shutil.rmtree(scratch, ignore_errors=True)
    except subprocess.TimeoutExpired:
        reason = f"stopped after {args.step_seconds:g} s"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        record = {
            **{"step": name, "status": "failed" if reason else "done", "reason": reason},
            **{**key, "commit": commit},
            "date": time.strftime("%Y-%m-%d", time.gmtime()),
            "seconds": time.monotonic() - start,
            "results": json.loads(found.read_text("utf-8")) if found.exists() else {},
        }
        found.unlink(missing_ok=True)
        (args.out / f"{name}.json").write_text(json.dumps(record, indent=2) + "\n", "utf-8")
        _write_document(args)
    return record


def _last_line(log: Path) -> str:
    lines = log.read_text("utf-8", "replace").strip().splitlines()
    return lines[-1][:300] if lines else "no output"


def _write_document(args: argparse.Namespace) -> None:
    """Replaces the tables by those of all records in the folder."""
    from bench.gpu_tables import markdown
    from bench.tables import insert_into_document

    text = markdown([record for name in STEPS if (record := read_record(args.out, name))])
    if args.readme:
        insert_into_document(args.readme, text)
    else:
        (args.out / "gpu.md").write_text(text, "utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__)
    add = parser.add_argument
    add("--steps", nargs="*", choices=STEPS, default=STEPS, help="steps to run (all)")
    add("--again", nargs="+", choices=STEPS, default=[], help="finished steps to repeat")
    add("--step-seconds", type=float, default=480, help="limit of each step (480)")
    add("--device", default="auto")
    add("--toy", action="store_true", help="rehearse with tiny models and few questions")
    add("--out", type=Path, default=Path("runs/gpu"), help="folder for the results (runs/gpu)")
    add("--readme", type=Path, help="document with the tables' markers (default: OUT/gpu.md)")
    add("--commit", help="recorded with the results, for a checkout without git")
    return parser


if __name__ == "__main__":
    # A stopped program must stop its step and keep what it has measured.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
