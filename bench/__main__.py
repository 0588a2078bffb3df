"""The program: `python -m bench`. Knows its words and where figures go."""

import argparse
import json
import logging
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from bench import on_device, parts, stages, tables
from bench.machine import as_dict, describe, highest, peaks
from bench.pairs import device_dtype, is_installed
from lr_exp.errors import UserError, guard_tracebacks, print_error
from lr_exp.models.devices import resolve_device

log = logging.getLogger("bench")

_SIZES = ("repeats", "questions", "batch_size", "step_size")  # that words may change


def main(words: list[str] | None = None) -> int:
    """Measures what the words ask for; returns the exit status."""
    asked = _parser().parse_args(words)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("bench").setLevel(logging.INFO)
    stages.quiet()
    stages.threads(asked.threads)
    try:
        if asked.geometry:
            _geometry(asked)
        else:
            _compare(asked)
    except UserError as error:
        print_error(error)
        return 1
    return 0


def _compare(asked: argparse.Namespace) -> None:
    sizes = parts.QUICK if asked.quick else parts.Sizes()
    given = {name: getattr(asked, name) for name in _SIZES}
    sizes = replace(sizes, **{name: value for name, value in given.items() if value is not None})
    names = [name for name in asked.pairs if is_installed(name)]
    for name in set(asked.pairs) - set(names):
        log.warning("%s is not installed and left out (make smollm2)", name)
    size = 256 if asked.quick else 1536
    before = peaks("cpu", "float32", size=size)
    figures = parts.run(parts.Bench(sizes, asked.data, asked.threads), names, asked.only)
    limits = highest(before, peaks("cpu", "float32", size=size))
    parts.with_floors(figures, limits)
    found: dict[str, Any] = {
        "machine": describe(),
        "limits": as_dict(limits),
        "sizes": asdict(sizes),
        "parts": figures,
    }
    text = tables.markdown(found)
    asked.out.mkdir(parents=True, exist_ok=True)
    (asked.out / "bench.json").write_text(json.dumps(found, indent=2) + "\n", "utf-8")
    (asked.out / "bench.md").write_text(text, "utf-8")
    if asked.readme:
        tables.into_document(asked.readme, text)
    print(text)


def _geometry(asked: argparse.Namespace) -> None:
    device = resolve_device(asked.device)
    found = on_device.run(
        asked.geometry,
        device=device,
        dtype=asked.dtype or device_dtype(device),
        questions=asked.questions or 1000,
        steps=asked.steps,
        batch_size=asked.batch_size or 500,
        tokens_per_pass=asked.tokens_per_pass,
        new_tokens=asked.new_tokens,
        data=asked.data,
        step_size=asked.step_size or 16,
    )
    asked.out.mkdir(parents=True, exist_ok=True)
    place = asked.out / f"{asked.geometry}.json"
    place.write_text(json.dumps(found, indent=2) + "\n", "utf-8")
    print(on_device.lines(found))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    add = parser.add_argument
    add("--only", nargs="+", choices=parts.PARTS, default=list(parts.PARTS), help="these parts")
    add("--pairs", nargs="+", choices=("micro", "smollm2"), default=["micro", "smollm2"])
    add("--quick", action="store_true", help="tiny sizes, to see that it runs")
    add("--repeats", type=int, help="of each comparison")
    add("--questions", type=int, help="of our side in a repeat; with --geometry, all (1000)")
    add("--batch-size", type=int, help="questions of a batch (with --geometry 500)")
    add("--step-size", type=int, help="kept steps of an optimizer step (16)")
    add("--threads", type=int, help="that torch computes with")
    add("--data", metavar="FOLDER", help="hub data sets; GSM8K's questions are then asked")
    add("--out", type=Path, default=Path("runs/bench"), help="folder of bench.json and bench.md")
    add("--readme", type=Path, help="document whose table is replaced, between its markers")
    add(
        "--geometry",
        choices=("qwen_math_1_5b", "qwen_math_7b", "tiny"),
        help="the paper's run with random weights of this geometry instead",
    )
    add("--device", default="auto", help="with --geometry")
    add("--dtype", help="with --geometry (bfloat16 on a GPU)")
    add("--steps", type=int, default=1000, help="optimizer steps, with --geometry")
    add("--new-tokens", type=int, default=128, help="with --geometry")
    add("--tokens-per-pass", type=int, default=4096, help="with --geometry")
    return parser


if __name__ == "__main__":
    guard_tracebacks()
    sys.exit(main())
