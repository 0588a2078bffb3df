"""Extrapolates the cost of sampling many questions on many devices from a finished run.

    python -m bench.scale RUN [--questions N] [--devices 8,64,512]
    python -m bench.scale RUN --geometry qwen_math_1_5b --gpu H100 --utilization 0.1

The time of the models is taken from the run or, for another GPU, estimated from an assumed share of
the peaks in that GPU's data sheet.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pyarrow.parquet as pq
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from bench import cost
from bench.machine import data_sheet
from bench.pairs import AMATEURS, GEOMETRY
from lr_exp.store import MANIFEST
from lr_exp.store.inventory import REFERENCES
from lr_exp.store.shards import shard_paths

SHARED = ("rollout", "score")  # stages distributed over devices
SERIAL = ("questions", "supervision")  # stages of one process


@dataclass(frozen=True)
class Stage:
    """Cost of a stage per question."""

    seconds: float  # of one device, or of one process for serial stages
    bytes: float  # on disk


def main(words: Sequence[str] | None = None) -> int:
    """Prints the results as Markdown; returns the exit status."""
    args = _parser().parse_args(words)
    summary = json.loads((args.run / "summary.json").read_text("utf-8"))
    stages, prompt, answer = measure(args.run, summary)
    provenance = summary["provenance"]
    title = (
        f"{summary['expert']} and {summary['amateur']}, {provenance['device_name']}, "
        f"{provenance['dtype']}: {summary['sample']['questions']:,} questions of {prompt:.0f} "
        f"tokens on average, answers of {answer:.0f}"
    )
    if args.geometry is not None:
        seconds = estimate(
            args.geometry, args.gpu, args.utilization, round(prompt), round(answer), args.batch
        )
        stages |= {name: Stage(seconds[name], stages[name].bytes) for name in SHARED}
        title = (
            f"{args.geometry} on {args.gpu}, NOT MEASURED: {args.utilization:.0%} of the data "
            f"sheet's peaks in bfloat16, batches of {args.batch}; lengths, disk and the serial "
            f"part are those of the run ({title})"
        )
    print(markdown(stages, title, args.questions, [int(n) for n in args.devices.split(",")]))
    return 0


def measure(run: Path, summary: dict[str, Any]) -> tuple[dict[str, Stage], float, float]:
    """Cost of each stage per question, and mean tokens of a prompt and of an answer."""
    count = summary["sample"]["questions"]
    store = Path(summary["sample"]["artifact"]).parents[1]
    stages = {name: Stage(0.0, 0.0) for name in (*SHARED, *SERIAL)}
    prompt = answer = 0.0
    for reference in (run / REFERENCES).read_text("utf-8").split():
        name = reference.partition("/")[0]
        if name not in stages:
            continue
        folder = store / reference
        manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
        size = sum(entry["bytes"] for entry in manifest["files"].values())
        devices = summary.get("ranks", 1) if name in SHARED else 1
        stages[name] = Stage(manifest["seconds"] * devices / count, size / count)
        if name == "rollout":
            for path in shard_paths(folder):
                table = pq.ParquetFile(path).read(["prompt_ids", "token_ids"])
                prompt += sum(map(len, table["prompt_ids"].to_pylist())) / count
                answer += sum(map(len, table["token_ids"].to_pylist())) / count
    return stages, prompt, answer


def estimate(
    geometry: str, gpu: str, utilization: float, prompt: int, answer: int, batch: int
) -> dict[str, float]:
    """Seconds per question of rollout and scoring, at this utilization of a GPU's peaks."""
    limits = data_sheet(gpu)
    expert, amateur = _shape(geometry), _shape(AMATEURS[geometry])
    # A scoring pass reads the weights once for about 16 answers; computation dominates.
    lengths, passes = [prompt + answer] * batch, batch / 16
    scoring = cost.forward(expert, lengths, batch * answer, passes) + cost.forward(
        amateur, lengths, batch * answer, passes
    )
    work = {
        "rollout": cost.decoding(expert, [[(prompt, answer)] * batch]),
        "score": scoring,
    }
    return {
        name: minimum.floor_seconds(limits) / utilization / batch for name, minimum in work.items()
    }


def markdown(stages: dict[str, Stage], title: str, questions: int, devices: Sequence[int]) -> str:
    """Tables of the costs per question and in total."""
    lines = [
        title + ".",
        "",
        "| per question | seconds | bytes on disk |",
        "|---|---:|---:|",
        *(
            f"| {name}{'' if name in SHARED else ' (one process)'} | {stage.seconds:.3g} "
            f"| {stage.bytes:,.0f} |"
            for name, stage in stages.items()
        ),
        "",
        f"| devices | {questions:,} questions sampled in | plus, on one process | device hours "
        "| questions/s | rank 0 receives | disk |",
        "|---:|---:|---:|---:|---:|---:|---:|",
    ]
    shared = sum(stages[name].seconds for name in SHARED)
    serial = sum(stages[name].seconds for name in SERIAL) * questions
    disk = sum(stage.bytes for stage in stages.values()) * questions
    for count in devices:
        seconds = shared * questions / count
        rate = sum(stages[name].bytes for name in SHARED) * questions / seconds
        lines.append(
            f"| {count} | {_hours(seconds)} | {_hours(serial)} | {shared * questions / 3600:,.0f} "
            f"| {questions / seconds:,.0f} | {_rate(rate)} | {disk / 1e9:,.0f} GB |"
        )
    return "\n".join(lines)


def _shape(geometry: str) -> cost.Shape:
    config = AutoConfig.from_pretrained(GEOMETRY / geometry)
    with torch.device("meta"):  # no weights needed
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    return cost.shape_of(cast(Any, SimpleNamespace(model=model)))


def _hours(seconds: float) -> str:
    if seconds >= 48 * 3600:
        return f"{seconds / 86400:,.1f} days"
    return f"{seconds / 3600:,.1f} h" if seconds >= 3600 else f"{seconds / 60:,.0f} min"


def _rate(bytes_per_second: float) -> str:
    mega = bytes_per_second / 1e6
    return f"{mega:,.0f} MB/s" if mega >= 10 else f"{mega:.1f} MB/s"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description=__doc__)
    add = parser.add_argument
    add("run", type=Path, help="folder of a finished run, relative to where it was started")
    add("--questions", type=int, default=10_000_000)
    add("--devices", default="8,64,512")
    add("--geometry", choices=sorted(AMATEURS), help="estimate the time of this model instead")
    add("--gpu", default="H100", help="with --geometry: a GPU of bench/machine.py")
    add("--utilization", type=float, default=0.1, help="with --geometry: share of the peaks")
    add("--batch", type=int, default=256, help="with --geometry: questions per rollout batch")
    return parser


if __name__ == "__main__":
    sys.exit(main())
