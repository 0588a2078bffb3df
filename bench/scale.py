"""What sampling many questions would cost on many devices, worked out from a run that was measured.

    python -m bench.scale RUN [--questions N] [--devices 8,64,512]
    python -m bench.scale RUN --geometry qwen_math_1_5b --gpu H100 --reached 0.1

The models' time is the run's own or, for devices that are not at hand, a data sheet's peak times
the share of it that is assumed to be reached. Knows a run's record, the store's manifests and
models' shapes; starts nothing.
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

SHARED = ("rollout", "score")  # stages that the devices share
SERIAL = ("questions", "supervision")  # one process's


@dataclass(frozen=True)
class Stage:
    """What a stage took for one question."""

    seconds: float  # of one device, or of the one process that does it
    bytes: float  # on the disk


def main(words: Sequence[str] | None = None) -> int:
    """Prints Markdown; returns the exit status."""
    asked = _parser().parse_args(words)
    summary = json.loads((asked.run / "summary.json").read_text("utf-8"))
    stages, prompt, written = measured(asked.run, summary)
    provenance = summary["provenance"]
    told = (
        f"{summary['expert']} and {summary['amateur']}, {provenance['device_name']}, "
        f"{provenance['dtype']}: {summary['sample']['questions']:,} questions of {prompt:.0f} "
        f"tokens in the mean, answers of {written:.0f}"
    )
    if asked.geometry is not None:
        modelled = from_data_sheet(
            asked.geometry, asked.gpu, asked.reached, round(prompt), round(written), asked.batch
        )
        stages |= {name: Stage(modelled[name], stages[name].bytes) for name in SHARED}
        told = (
            f"{asked.geometry} on {asked.gpu}, NOT MEASURED: {asked.reached:.0%} of the data "
            f"sheet's peaks in bfloat16, batches of {asked.batch}; lengths, disk and the serial "
            f"part of the run ({told})"
        )
    print(markdown(stages, told, asked.questions, [int(n) for n in asked.devices.split(",")]))
    return 0


def measured(run: Path, summary: dict[str, Any]) -> tuple[dict[str, Stage], float, float]:
    """Each stage's cost a question, and the mean tokens of a prompt and of an answer."""
    count = summary["sample"]["questions"]
    store = Path(summary["sample"]["artifact"]).parents[1]
    stages = {name: Stage(0.0, 0.0) for name in (*SHARED, *SERIAL)}
    prompt = written = 0.0
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
                written += sum(map(len, table["token_ids"].to_pylist())) / count
    return stages, prompt, written


def from_data_sheet(
    geometry: str, gpu: str, reached: float, prompt: int, written: int, batch: int
) -> dict[str, float]:
    """Seconds a question of rollout and scoring, at a share of what the device can do at most."""
    limits = data_sheet(gpu)
    expert, amateur = _shape(geometry), _shape(AMATEURS[geometry])
    # A pass of scoring reads the weights once for some sixteen answers; compute decides there.
    lengths, passes = [prompt + written] * batch, batch / 16
    scoring = cost.reading(expert, lengths, batch * written, passes) + cost.reading(
        amateur, lengths, batch * written, passes
    )
    work = {
        "rollout": cost.decoding(expert, [[(prompt, written)] * batch]),
        "score": scoring,
    }
    return {name: one.floor_seconds(limits) / reached / batch for name, one in work.items()}


def markdown(stages: dict[str, Stage], told: str, questions: int, devices: Sequence[int]) -> str:
    """The costs a question, and what that makes for all of them."""
    lines = [
        told + ".",
        "",
        "| a question | seconds | bytes on disk |",
        "|---|---:|---:|",
        *(
            f"| {name}{'' if name in SHARED else ' (one process)'} | {one.seconds:.3g} "
            f"| {one.bytes:,.0f} |"
            for name, one in stages.items()
        ),
        "",
        f"| devices | {questions:,} questions sampled in | besides, on one process | device hours "
        "| questions/s | first rank takes | disk |",
        "|---:|---:|---:|---:|---:|---:|---:|",
    ]
    shared = sum(stages[name].seconds for name in SHARED)
    serial = sum(stages[name].seconds for name in SERIAL) * questions
    disk = sum(one.bytes for one in stages.values()) * questions
    for count in devices:
        seconds = shared * questions / count
        taken = sum(stages[name].bytes for name in SHARED) * questions / seconds
        lines.append(
            f"| {count} | {_hours(seconds)} | {_hours(serial)} | {shared * questions / 3600:,.0f} "
            f"| {questions / seconds:,.0f} | {_rate(taken)} | {disk / 1e9:,.0f} GB |"
        )
    return "\n".join(lines)


def _shape(geometry: str) -> cost.Shape:
    config = AutoConfig.from_pretrained(GEOMETRY / geometry)
    with torch.device("meta"):  # sizes alone
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    return cost.shape(cast(Any, SimpleNamespace(model=model)))


def _hours(seconds: float) -> str:
    if seconds >= 48 * 3600:
        return f"{seconds / 86400:,.1f} days"
    return f"{seconds / 3600:,.1f} h" if seconds >= 3600 else f"{seconds / 60:,.0f} min"


def _rate(bytes_a_second: float) -> str:
    mega = bytes_a_second / 1e6
    return f"{mega:,.0f} MB/s" if mega >= 10 else f"{mega:.1f} MB/s"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description=__doc__)
    add = parser.add_argument
    add("run", type=Path, help="folder of a finished run, from where it was started")
    add("--questions", type=int, default=10_000_000)
    add("--devices", default="8,64,512")
    add("--geometry", choices=sorted(AMATEURS), help="a model that is worked out, not measured")
    add("--gpu", default="H100", help="for --geometry: a device of bench/machine.py's data sheets")
    add("--reached", type=float, default=0.1, help="for --geometry: share of the peaks")
    add("--batch", type=int, default=256, help="for --geometry: questions of a rollout's batch")
    return parser


if __name__ == "__main__":
    sys.exit(main())
