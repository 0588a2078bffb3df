"""The files in a bundle: those of each run, and a manifest that lists them."""

from collections.abc import Iterator
from pathlib import PurePath
from typing import Annotated

from pydantic import BaseModel, Field

from lr_exp.report.read.run import WHO, Run
from lr_exp.report.read.summary import Bytes, Count
from lr_exp.store.inventory import REFERENCES
from lr_exp.store.run_folder import METRICS, SUMMARY, answers_file, forced_file

FORMAT = 1  # of bundles
MANIFEST = "manifest.json"
OPTIONAL = (PurePath(METRICS), PurePath(REFERENCES))  # files of a run

# Limits against archives that fill the disk when they are unpacked.
MAX_MEMBERS = 100_000  # 100 runs with 8 benchmarks, 3 prompts and samples have 8,000
MAX_MEMBER_BYTES = 2**29  # 14,000 answers of 2,048 tokens have about 2**27
MAX_TOTAL_BYTES = 2**33  # ten runs on seven benchmarks have less than 2**30


class Member(BaseModel):
    bytes: Bytes
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Manifest(BaseModel):
    """`manifest.json`: what wrote the bundle, and every other file in it by name."""

    format: Count
    lr_exp: Annotated[str, Field(max_length=40)]  # version
    commit: Annotated[str, Field(max_length=64)] | None  # of the code, if it is known
    grading: Count  # `grade.VERSION`
    members: dict[str, Member]


def is_valid_name(name: str) -> bool:
    """Whether a member's name is a plain relative path on every system."""
    parts = name.split("/")
    return name.isprintable() and not any(
        part in ("", ".", "..") or "\\" in part or ":" in part for part in parts
    )


def evaluations(run: Run) -> Iterator[tuple[str, str, str | None]]:
    """Every model, benchmark and prompt with results; None is the headline prompt."""
    for prompt in (None, *run.prompts[1:]):
        for who in WHO:
            yield from ((who, benchmark, prompt) for benchmark in run.results(who, prompt))


def answer_files(run: Run) -> list[PurePath]:
    """The files of the answers behind the run's results, which can be graded again."""
    found = [answers_file(*one) for one in evaluations(run)]
    for who in WHO if run.evaluate.samples else ():
        sampled = getattr(run.evaluate.samples, who) or {}
        found += [answers_file(f"{who}_samples", benchmark, None) for benchmark in sampled]
    return found


def other_files(run: Run) -> list[PurePath]:
    """The other files that a bundle must have of the run: the summary, and forced answers."""
    forced = run.settings.get("evaluator", {}).get("force_answer")
    names = [(who, name) for who in WHO for name in run.results(who)] if forced else []
    return [PurePath(SUMMARY), *(forced_file(*one) for one in names)]


def member_name(run: Run, place: PurePath) -> str:
    return (run.name / place).as_posix()
