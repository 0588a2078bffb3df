"""Measures time, memory and disk of sampling 100,000 questions.

    python -m bench.stream [--questions N] [--max-new-tokens N] [--out FILE]

Writes micro questions to a Parquet file, runs the program on it in a process of its own, watches
its memory in Linux's /proc, and prints progress and memory by stage as Markdown.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from bench.machine import describe
from lr_exp.micro.world import iter_problems
from lr_exp.store.shards import shard_paths, shard_sizes

STAGES = ("rollout", "score", "supervision")
_IN_ONE_FILE = ("supervision",)
_SHARES = (1 / 8, 1 / 4, 1 / 2, 1)  # of all questions
_FAMILY = "micro_add"
_ROW_GROUP = 8192
_COLUMNS = ("question", "answer", "solution")


@dataclass(frozen=True)
class Moment:
    """State of the program at one time."""

    time: float  # seconds since the epoch
    bytes: int  # resident set of all its processes
    stage: str  # in progress; "" between stages
    written: int  # bytes of the stage's files


@dataclass(frozen=True)
class Point:
    """Progress of a stage."""

    questions: int
    seconds: float  # since the stage began
    bytes: int  # resident set


def main(words: list[str] | None = None) -> int:
    """Measures and prints the results; returns the exit status."""
    args = _parser().parse_args(words)
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        source = folder / "questions.parquet"
        write_questions(source, args.questions)
        moments, seconds = watch(
            [
                "experiment=demo",
                "data=parquet",
                f"data.path={source}",
                "stages=[sample]",
                f"sampler.max_new_tokens={args.max_new_tokens}",
                f"sampler.batch_size={args.batch_size}",
                *args.words,
            ],
            folder,
            every=args.every,
            threads=args.threads,
        )
        text = markdown(folder / "store", moments, args.questions, seconds, args)
    print(text)
    if args.out is not None:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(text, "utf-8")
    return 0


def write_questions(path: Path, count: int) -> None:
    """Writes `count` distinct micro questions to a Parquet file, one row group at a time."""
    schema = pa.schema([(name, pa.string()) for name in _COLUMNS])
    rows: list[dict[str, str]] = []
    with pq.ParquetWriter(path, schema) as file:
        for problem in iter_problems(_FAMILY, count, 0, "train"):
            rows.append({name: getattr(problem, name) for name in _COLUMNS})
            if len(rows) == _ROW_GROUP:
                file.write_table(pa.Table.from_pylist(rows, schema=schema))
                rows = []
        if rows:
            file.write_table(pa.Table.from_pylist(rows, schema=schema))


def watch(
    words: list[str], folder: Path, *, every: float, threads: int
) -> tuple[list[Moment], float]:
    """Runs the program with its store in `folder` and samples its state every `every` seconds.

    Returns:
        The samples, and the program's run time in seconds.
    """
    store = folder / "store"
    places = [f"store={store}", f"hydra.run.dir={folder / 'run'}", "wandb.mode=disabled"]
    moments: list[Moment] = []
    start = time.perf_counter()
    with (folder / "output").open("w") as output:
        process = subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, "-m", "lr_exp", *words, *places],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        )
        while process.poll() is None:
            moments.append(_moment(process.pid, store))
            time.sleep(every)
    seconds = time.perf_counter() - start
    if process.returncode:
        raise RuntimeError(f"the program failed:\n{(folder / 'output').read_text()[-3000:]}")
    return [moment for moment in moments if moment.bytes], seconds


def points(store: Path, stage: str, moments: list[Moment], count: int) -> list[Point]:
    """Time and memory of a stage at an eighth, a quarter, a half and all of its questions.

    From the times of its shards; for a stage with one file, from its size over time.
    """
    during = [moment for moment in moments if moment.stage == stage]
    (manifest,) = (store / stage).glob("*/manifest.json")
    start = during[0].time if during else manifest.stat().st_mtime
    measure = _time_by_size if stage in _IN_ONE_FILE else _time_by_shards
    time_at = measure(store, manifest.parent, during, count)
    return [
        Point(
            round(share * count),
            max(time_at(share) - start, 0.0),
            _bytes_at(moments, time_at(share)),
        )
        for share in _SHARES
    ]


def markdown(
    store: Path, moments: list[Moment], count: int, seconds: float, args: argparse.Namespace
) -> str:
    """Two tables of results below a description of the machine and the options."""
    machine = describe()
    lines = [
        f"{machine['date']}, {machine['cpu']}, {machine['cores']} cores, "
        f"{machine['ram_gib']} GiB, torch {machine['torch']}; {args.threads} threads. {count:,} "
        f"distinct `{_FAMILY}` questions from one Parquet file, the micro pair, at most "
        f"{args.max_new_tokens} tokens per answer, batches of {args.batch_size}. In all "
        f"{seconds:,.0f} s, at most {_mib(max(m.bytes for m in moments))} resident; before the "
        f"first stage {_mib(_before(moments))}.",
        "",
        "| stage | questions done | seconds | questions/s since the row above | resident |",
        "|---|---:|---:|---:|---:|",
    ]
    for stage in STAGES:
        before = Point(0, 0.0, 0)
        for point in points(store, stage, moments, count):
            elapsed = point.seconds - before.seconds
            done = point.questions - before.questions
            rate = f"{done / elapsed:,.0f}" if elapsed > 0 else "-"
            lines.append(
                f"| {stage} | {point.questions:,} | {point.seconds:,.1f} | {rate} "
                f"| {_mib(point.bytes)} |"
            )
            before = point
    lines += [
        "",
        "| stage | bytes on disk per question | files | peak resident |",
        "|---|---:|---:|---:|",
    ]
    for stage in STAGES:
        sizes = [path.stat().st_size for path in (store / stage).rglob("*") if path.is_file()]
        during = [moment.bytes for moment in moments if moment.stage == stage]
        peak = _mib(max(during)) if during else "-"
        lines.append(f"| {stage} | {sum(sizes) / count:,.0f} | {len(sizes):,} | {peak} |")
    return "\n".join(lines) + "\n"


def _time_by_shards(
    store: Path, folder: Path, during: list[Moment], count: int
) -> Callable[[float], float]:
    shards = shard_paths(folder)
    # A shard of scores covers the answers in the rollout's shard of the same number.
    answers = folder
    if folder.parent.name == "score":
        (answers,) = (p for p in (store / "rollout").glob("*") if p.is_dir())
    done = list(accumulate(shard_sizes(answers).values()))
    # Parallel processes may finish a later shard first; all shards up to it must be there.
    times = list(accumulate((path.stat().st_mtime for path in shards), max))
    return lambda share: times[bisect_left(done, round(share * done[-1]))]


def _time_by_size(
    store: Path, folder: Path, during: list[Moment], count: int
) -> Callable[[float], float]:
    size = max((moment.written for moment in during), default=0)
    end = (folder / "manifest.json").stat().st_mtime

    def time_at(share: float) -> float:
        return min(next((m.time for m in during if m.written >= share * size), end), end)

    return time_at


def _moment(pid: int, store: Path) -> Moment:
    parts = [path for path in store.glob("*/*.part") if path.parent.name in STAGES]
    parts.sort(key=lambda path: STAGES.index(path.parent.name))
    stage = parts[-1].parent.name if parts else ""
    try:
        written = sum(path.stat().st_size for path in parts[-1].iterdir()) if parts else 0
    except OSError:  # the stage has just ended
        written = 0
    return Moment(time.time(), sum(map(_resident, _process_tree(pid))), stage, written)


def _process_tree(pid: int) -> Iterator[int]:
    """Yields a process id and those of all its descendants."""
    yield pid
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            pids = children.read_text("ascii").split()
        except OSError:  # the process has just ended
            continue
        for child in pids:
            yield from _process_tree(int(child))


def _resident(pid: int) -> int:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1])
    except OSError:  # the process has just ended
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def _bytes_at(moments: list[Moment], when: float) -> int:
    return min(moments, key=lambda moment: abs(moment.time - when)).bytes


def _before(moments: list[Moment]) -> int:
    """Peak resident set before the first stage."""
    first = next((i for i, moment in enumerate(moments) if moment.stage), len(moments))
    return max((moment.bytes for moment in moments[:first]), default=0)


def _mib(count: int) -> str:
    return f"{count / 2**20:,.0f} MiB"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.stream", description=__doc__)
    add = parser.add_argument
    add("words", nargs="*", help="further settings of the program")
    add("--questions", type=int, default=100_000)
    add("--max-new-tokens", type=int, default=128, help="per answer")
    add("--batch-size", type=int, default=150, help="questions per rollout batch")
    add("--threads", type=int, default=os.cpu_count() or 1, help="torch's threads")
    add("--every", type=float, default=1.0, help="seconds between samples of memory")
    add("--folder", type=Path, help="parent of the temporary folder")
    add("--out", type=Path, help="also write the tables to this file")
    return parser


if __name__ == "__main__":
    sys.exit(main())
