"""Compares speed and memory with the published loops, or times a geometry of the paper."""

import argparse
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from bench import on_device, parts, stages, tables
from bench.machine import describe, highest, peaks
from bench.pairs import device_dtype, is_installed
from lr_exp.errors import command, run_program
from lr_exp.models.devices import resolve_device

log = logging.getLogger("bench")

_SIZE_OPTIONS = ("repeats", "questions", "batch_size", "train_batch_size")


@command
def main(words: Sequence[str] | None = None) -> int:
    """Runs the benchmark of a command line; returns the exit status."""
    args = _parser().parse_args(words)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("bench").setLevel(logging.INFO)
    stages.silence()
    stages.set_threads(args.threads)
    if args.geometry:
        _time_geometry(args)
    else:
        _compare(args)
    return 0


def _compare(args: argparse.Namespace) -> None:
    sizes = parts.QUICK if args.quick else parts.Sizes()
    changes = {name: getattr(args, name) for name in _SIZE_OPTIONS}
    sizes = replace(sizes, **{name: value for name, value in changes.items() if value is not None})
    names = [name for name in args.pairs if is_installed(name)]
    for name in set(args.pairs) - set(names):
        log.warning("skipping %s, which is not installed (make smollm2)", name)
    size = 256 if args.quick else 1536
    before = peaks("cpu", "float32", size=size)
    measured = parts.run(parts.Bench(sizes, args.data, args.threads), names, args.only)
    limits = highest(before, peaks("cpu", "float32", size=size))
    parts.add_floors(measured, limits)
    results: dict[str, Any] = {
        "machine": describe(),
        "limits": asdict(limits),
        "sizes": asdict(sizes),
        "parts": measured,
    }
    text = tables.markdown(results)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "bench.json").write_text(json.dumps(results, indent=2) + "\n", "utf-8")
    (args.out / "bench.md").write_text(text, "utf-8")
    if args.readme:
        tables.insert_into_document(args.readme, text)
    print(text)


def _time_geometry(args: argparse.Namespace) -> None:
    device = resolve_device(args.device)
    sizes = on_device.Sizes(
        questions=args.questions or 1000,
        steps=args.steps,
        batch_size=args.batch_size or 500,
        train_batch_size=args.train_batch_size or 16,
        tokens_per_pass=args.tokens_per_pass,
        new_tokens=args.new_tokens,
        evaluated=min(args.evaluated, args.questions or 1000),
        answer_tokens=args.answer_tokens,
    )
    results = on_device.run(
        args.geometry,
        sizes,
        device=device,
        dtype=args.dtype or device_dtype(device),
        data=args.data,
    )
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / f"{args.geometry}.json"
    path.write_text(json.dumps(results, indent=2) + "\n", "utf-8")
    print(on_device.report(results))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    add = parser.add_argument
    add("--only", nargs="+", choices=parts.PARTS, default=list(parts.PARTS), help="parts to run")
    add("--pairs", nargs="+", choices=("micro", "smollm2"), default=["micro", "smollm2"])
    add("--quick", action="store_true", help="tiny sizes, as a smoke test")
    add("--repeats", type=int, help="repeats of each comparison")
    add("--questions", type=int, help="per repeat of our side; with --geometry, in all (1000)")
    add("--batch-size", type=int, help="questions per batch (with --geometry: 500)")
    add("--train-batch-size", type=int, help="kept steps per optimizer step (16)")
    add("--threads", type=int, help="torch's threads")
    add("--data", metavar="FOLDER", help="hub data sets; uses the questions of GSM8K")
    add("--out", type=Path, default=Path("runs/bench"), help="folder for bench.json and bench.md")
    add("--readme", type=Path, help="document in which to replace the table between the markers")
    add(
        "--geometry",
        choices=("qwen_math_1_5b", "qwen_math_7b", "tiny"),
        help="time the paper's run with random weights of this geometry instead",
    )
    add("--device", default="auto", help="with --geometry")
    add("--dtype", help="with --geometry (bfloat16 on a GPU)")
    add("--steps", type=int, default=1000, help="optimizer steps, with --geometry")
    add("--new-tokens", type=int, default=128, help="with --geometry")
    add("--evaluated", type=int, default=256, help="questions to evaluate, with --geometry")
    add("--answer-tokens", type=int, default=512, help="of each of them, with --geometry")
    add("--tokens-per-pass", type=int, default=4096, help="with --geometry")
    return parser


if __name__ == "__main__":
    run_program(main)
