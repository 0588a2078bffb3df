"""How far sampling streams: a hundred thousand questions through the program, watched from outside.

    python -m bench.stream [--questions N] [--max-new-tokens N] [--out FILE]

Writes micro questions to a Parquet file, samples from it in a process of its own, and tells in
Markdown how many questions were done when, with how much memory. Knows the program's words, the
store's folders and Linux's /proc; knows nothing of how a stage works.
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
from lr_exp.sampler.supervision import FILE
from lr_exp.store.shards import count_rows, shard_paths

STAGES = ("questions", "rollout", "score", "supervision")
_POINTS = (1 / 8, 1 / 4, 1 / 2, 1)  # of all questions
_FAMILY = "micro_add"
_ROWS = 8192  # of the file written at once
_COLUMNS = ("question", "answer", "solution")


@dataclass(frozen=True)
class Moment:
    """The program at one moment."""

    time: float  # seconds since the epoch, as the files' times
    bytes: int  # resident, of all its processes
    stage: str  # that is being made, "" between two
    written: int  # bytes of the supervision's file so far


@dataclass(frozen=True)
class Point:
    """How far a stage was."""

    questions: int
    seconds: float  # since it began
    bytes: int  # resident then


def main(words: list[str] | None = None) -> int:
    """Measures and prints; returns the exit status."""
    asked = _parser().parse_args(words)
    with tempfile.TemporaryDirectory(dir=asked.folder) as place:
        folder = Path(place)
        source = folder / "questions.parquet"
        write_questions(source, asked.questions)
        moments, seconds = watched(
            [
                "experiment=demo",
                "data=parquet",
                f"data.path={source}",
                "stages=[sample]",
                f"sampler.max_new_tokens={asked.max_new_tokens}",
                f"sampler.batch_size={asked.batch_size}",
                *asked.words,
            ],
            folder,
            every=asked.every,
            threads=asked.threads,
        )
        text = markdown(folder / "store", moments, asked.questions, seconds, asked)
    print(text)
    if asked.out is not None:
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        asked.out.write_text(text, "utf-8")
    return 0


def write_questions(path: Path, count: int) -> None:
    """So many different micro questions as Parquet, of which a part is in memory at a time."""
    schema = pa.schema([(name, pa.string()) for name in _COLUMNS])
    rows: list[dict[str, str]] = []
    with pq.ParquetWriter(path, schema) as file:
        for problem in iter_problems(_FAMILY, count, 0, "train"):
            rows.append({name: getattr(problem, name) for name in _COLUMNS})
            if len(rows) == _ROWS:
                file.write_table(pa.Table.from_pylist(rows, schema=schema))
                rows = []
        if rows:
            file.write_table(pa.Table.from_pylist(rows, schema=schema))


def watched(
    words: list[str], folder: Path, *, every: float, threads: int
) -> tuple[list[Moment], float]:
    """Runs the program with its store below `folder`, and looks at it all the while.

    Returns:
        What was seen, and the seconds from the program's start to its end.
    """
    store = folder / "store"
    fixed = [f"store={store}", f"hydra.run.dir={folder / 'run'}", "wandb.mode=disabled"]
    moments: list[Moment] = []
    start = time.perf_counter()
    with (folder / "output").open("w") as output:
        process = subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, "-m", "lr_exp", *words, *fixed],
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
    """How far a stage was at an eighth, a quarter, a half and all of its questions.

    By the times of its shards; of the supervision, which is one file, by how much of it was there.
    """
    during = [moment for moment in moments if moment.stage == stage]
    (manifest,) = (store / stage).glob("*/manifest.json")
    start = during[0].time if during else manifest.stat().st_mtime
    reached = _by_file if stage == "supervision" else _by_shards
    when = reached(store, manifest.parent, during, count)
    return [
        Point(round(share * count), max(when(share) - start, 0.0), _bytes_at(moments, when(share)))
        for share in _POINTS
    ]


def markdown(
    store: Path, moments: list[Moment], count: int, seconds: float, asked: argparse.Namespace
) -> str:
    """The figures as two tables, under the machine and what was asked for."""
    machine = describe()
    lines = [
        f"{machine['date']}, {machine['cpu']}, {machine['cores']} cores, "
        f"{machine['ram_gib']} GiB, torch {machine['torch']}; {asked.threads} threads. {count:,} "
        f"different `{_FAMILY}` questions from one Parquet file, the micro pair, at most "
        f"{asked.max_new_tokens} tokens an answer, batches of {asked.batch_size}. In all "
        f"{seconds:,.0f} s, at most {_mib(max(m.bytes for m in moments))} resident; before the "
        f"first stage {_mib(_before(moments))}.",
        "",
        "| stage | questions done | seconds | questions/s since the line above | resident |",
        "|---|---:|---:|---:|---:|",
    ]
    for stage in STAGES:
        before = Point(0, 0.0, 0)
        for point in points(store, stage, moments, count):
            passed = point.seconds - before.seconds
            rate = f"{(point.questions - before.questions) / passed:,.0f}" if passed > 0 else "-"
            lines.append(
                f"| {stage} | {point.questions:,} | {point.seconds:,.1f} | {rate} "
                f"| {_mib(point.bytes)} |"
            )
            before = point
    lines += [
        "",
        "| stage | bytes on disk a question | files | highest resident |",
        "|---|---:|---:|---:|",
    ]
    for stage in STAGES:
        sizes = [path.stat().st_size for path in (store / stage).rglob("*") if path.is_file()]
        during = [moment.bytes for moment in moments if moment.stage == stage]
        highest = _mib(max(during)) if during else "-"
        lines.append(f"| {stage} | {sum(sizes) / count:,.0f} | {len(sizes):,} | {highest} |")
    return "\n".join(lines) + "\n"


def _by_shards(
    store: Path, folder: Path, during: list[Moment], count: int
) -> Callable[[float], float]:
    shards = shard_paths(folder)
    # A shard of steps is that of the answers of the same number.
    answered = shards
    if folder.parent.name == "score":
        (answered,) = (shard_paths(one) for one in (store / "rollout").glob("*") if one.is_dir())
    done = list(accumulate(map(count_rows, answered)))
    # Side by side, processes may finish a later shard first: what counts is when all are there.
    times = list(accumulate((path.stat().st_mtime for path in shards), max))
    return lambda share: times[bisect_left(done, round(share * done[-1]))]


def _by_file(
    store: Path, folder: Path, during: list[Moment], count: int
) -> Callable[[float], float]:
    file = (folder / FILE).stat()

    def when(share: float) -> float:
        reached = (m.time for m in during if m.written >= share * file.st_size)
        return min(next(reached, file.st_mtime), file.st_mtime)

    return when


def _moment(pid: int, store: Path) -> Moment:
    parts = sorted(store.glob("*/*.part"), key=lambda path: STAGES.index(path.parent.name))
    stage = parts[-1].parent.name if parts else ""
    try:
        written = (parts[-1] / FILE).stat().st_size if parts else 0
    except OSError:
        written = 0
    return Moment(time.time(), sum(map(_resident, _family(pid))), stage, written)


def _family(pid: int) -> Iterator[int]:
    """A process and all that came of it."""
    yield pid
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found = children.read_text("ascii").split()
        except OSError:  # it has just ended
            continue
        for child in found:
            yield from _family(int(child))


def _resident(pid: int) -> int:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1])
    except OSError:  # it has just ended
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def _bytes_at(moments: list[Moment], when: float) -> int:
    return min(moments, key=lambda moment: abs(moment.time - when)).bytes


def _before(moments: list[Moment]) -> int:
    """The most that the program held when no stage had begun."""
    first = next((i for i, moment in enumerate(moments) if moment.stage), len(moments))
    return max((moment.bytes for moment in moments[:first]), default=0)


def _mib(count: int) -> str:
    return f"{count / 2**20:,.0f} MiB"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.stream", description=__doc__)
    add = parser.add_argument
    add("words", nargs="*", help="more settings of the program")
    add("--questions", type=int, default=100_000)
    add("--max-new-tokens", type=int, default=128, help="of an answer")
    add("--batch-size", type=int, default=150, help="questions of a rollout's batch")
    add("--threads", type=int, default=os.cpu_count() or 1, help="that torch computes with")
    add("--every", type=float, default=1.0, help="seconds between two looks at the program")
    add("--folder", type=Path, help="where the questions and the store go meanwhile")
    add("--out", type=Path, help="file that gets the tables, too")
    return parser


if __name__ == "__main__":
    sys.exit(main())
