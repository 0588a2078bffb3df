"""Reads a bundle of somebody else: checks its members and grades its answers again.

A bundle is untrusted: its names, sizes and contents can be anything.
"""

import json
import shutil
import zlib
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path, PurePath
from tempfile import mkdtemp
from typing import Any
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile

from lr_exp.bundle import members
from lr_exp.bundle.members import MANIFEST, Manifest, member_name
from lr_exp.errors import UserError
from lr_exp.evaluator import grade
from lr_exp.evaluator.aggregate import aggregate
from lr_exp.report.read.json_file import read_json, read_json_lines, reason_of
from lr_exp.report.read.run import REWRITE, WHO, Run
from lr_exp.report.read.runs import BUNDLE, scan_folder
from lr_exp.report.read.summary import PromptResults, Results
from lr_exp.store import file_digest
from lr_exp.store.run_folder import FAILED, SUMMARY, answers_file

# What damaged archives and contents of any type raise. UserError is a ValueError.
_INVALID = (
    *(BadZipFile, zlib.error, EOFError, RuntimeError, OSError),
    *(ArithmeticError, LookupError, TypeError, ValueError),
)


def read_bundle(unpacked: Path, path: Path, name: str) -> tuple[list[Run], str]:
    """The runs of a bundle, with the results of its answers graded again, and a note on them.

    Args:
        unpacked: a folder for the bundle's files, which the runs read later.
        name: of the bundle, in the names of its runs.

    Raises UserError: it is no bundle, its content differs from its manifest, or is invalid.
    """
    folder, counts = Path(mkdtemp(dir=unpacked)), defaultdict[str, Counter[str]](Counter)
    try:
        manifest = _unpack(path, folder)
        found = scan_folder(folder)
        for run in found.failed:
            if run.error.startswith(SUMMARY):
                raise UserError(f"{run.folder}/{run.error.removesuffix(REWRITE)}")
            raise UserError(f"{run.folder / FAILED} is not a file of a finished run")
        required = {
            member_name(run, place)
            for run in found.runs
            for place in (*members.answer_files(run), *members.other_files(run))
        }
        optional = {member_name(run, place) for run in found.runs for place in members.OPTIONAL}
        if wrong := (required ^ manifest.members.keys()) - optional:
            raise UserError(f"{min(wrong)} is missing, or is not a file of a run")
        runs = [_graded_again(run, name, counts) for run in found.runs]
    except _INVALID as error:
        reason = reason_of(error).replace(f"{folder}/", "")
        raise UserError(f"the bundle cannot be used: {reason}") from error
    note = (
        f"{name} (sha256 {file_digest(path)}) is a bundle of other people's results (lr_exp "
        f"{manifest.lr_exp}, commit {manifest.commit or 'unknown'}, finished runs: {len(runs):,}). "
        f"Answers that were graded again: {counts['answers'].total():,} (grading version "
        f"{manifest.grading} there, {grade.VERSION} here); with another grade: "
        f"{_listed(counts['changed'])}. Accuracies that differ from the bundle's: "
        f"{_listed(counts['corrected'])}. Forced answers, the expertise gap, accuracies during "
        "training and costs are as sent."
    )
    return runs, note


def _listed(counts: Counter[str]) -> str:
    """`3 (gsm8k, math500)`."""
    return f"{counts.total():,} ({', '.join(sorted(counts))})" if counts else "0"


def _unpack(path: Path, folder: Path) -> Manifest:
    """Unpacks a bundle after checking that its members are those in its manifest."""
    if not path.is_file():
        raise UserError("it is not a regular file")
    with ZipFile(path) as archive:
        infos = {info.filename: info for info in archive.infolist()}
        count, size = len(archive.infolist()), sum(one.file_size for one in infos.values())
        if count > members.MAX_MEMBERS or size > members.MAX_TOTAL_BYTES:
            raise UserError(f"it is too large: {count:,} files of {size:,} bytes")
        if MANIFEST not in infos or len(infos) < count:
            raise UserError(f"it has no {MANIFEST}, or two members of the same name")
        for name, info in infos.items():
            if not members.is_valid_name(name) or name != info.orig_filename:
                raise UserError(f"a member has the invalid name {name!r:.200}")
            if info.file_size > members.MAX_MEMBER_BYTES:
                raise UserError(f"{name} is too large: {info.file_size:,} bytes")
            # Other methods are unpacked without a limit on memory.
            if info.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
                raise UserError(f"{name} has an unknown compression")

        def unpack(name: str) -> Path:
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(infos[name]) as source, target.open("xb") as file:
                shutil.copyfileobj(source, file)  # never more than the checked size
            return target

        try:
            content = read_json(unpack(MANIFEST))
            if isinstance(content, dict) and content.get("format", 1) != members.FORMAT:
                raise UserError(f"its format is {content['format']!r:.40}, not {members.FORMAT}")
            manifest = Manifest.model_validate(content)
        except ValueError as error:
            raise UserError(f"{MANIFEST}: {reason_of(error)}") from error
        if wrong := manifest.members.keys() ^ (infos.keys() - {MANIFEST}):
            raise UserError(f"{min(wrong)} was added or removed: {MANIFEST} lists other files")
        for name, listed in manifest.members.items():
            if infos[name].file_size != listed.bytes or file_digest(unpack(name)) != listed.sha256:
                raise UserError(f"{name} was altered: {MANIFEST} has another size or sha256")
    return manifest


def _graded_again(run: Run, bundle: str, counts: Mapping[str, Counter[str]]) -> Run:
    """The run of a bundle with the results of its answers; its files get the new grades.

    Args:
        counts: `answers`, those `changed` and accuracies `corrected` by benchmark, added to.
    """
    graded: dict[PurePath, list[dict[str, Any]]] = {}
    is_stale = False
    for place in members.answer_files(run):
        path = run.folder / place
        # This reads no compressed file, which could have any size, as the grader does.
        try:
            before = [bool(dict(record).get("correct")) for record in read_json_lines(path)]
        except _INVALID as error:
            raise UserError(f"{path}: {reason_of(error)}") from error
        records = graded[place] = grade.regrade(path)
        path.write_text("".join(json.dumps(one) + "\n" for one in records), encoding="utf-8")
        counts["answers"][place.stem] += len(records)
        grades = zip(before, records, strict=True)
        if changed := sum(old != one["correct"] for old, one in grades):
            counts["changed"][place.stem] += changed
            is_stale = True
    new: dict[str | None, dict[str, Results]] = {}
    asked: dict[tuple[str, str], list[Any]] = {}  # what grades depend on, by benchmark and id
    for who, name, prompt in members.evaluations(run):
        place = answers_file(who, name, prompt)
        records, sent = graded[place], run.results(who, prompt)[name]
        if len({one["id"] for one in records}) < len(records):
            raise UserError(f"{run.folder / place}: a question of {name} occurs twice")
        if len(records) != sent.total:
            raise UserError(
                f"{run.folder / place} has {len(records):,} answers to {name}, but {SUMMARY} "
                f"has {sent.total:,}"
            )
        for one in records:
            own = [one.get(key) for key in ("question", "choices", "reference", "kind")]
            if asked.setdefault((name, one["id"]), own) != own:
                raise UserError(
                    f"{run.folder / place}: question {one['id']!r:.200} of {name} or its "
                    "reference is not that of the other answers to it"
                )
        result = aggregate(records)
        result = result.model_copy(update={"forced_accuracy": sent.forced_accuracy})
        if result.correct != sent.correct:
            counts["corrected"][name] += 1
            is_stale = True
        new.setdefault(prompt, {}).setdefault(who, {})[name] = result
    evaluate = run.summary.evaluate
    if evaluate is not None:
        headline = {who: new.get(None, {}).get(who) for who in WHO}
        prompts = {form: PromptResults(**new.get(form, headline)) for form in run.prompts}
        # Computed from the grades in the bundle; reports leave out what is None.
        stale = {"gains": None, "samples": None} if is_stale else {}
        evaluate = evaluate.model_copy(update={**headline, "prompts": prompts or None, **stale})
    summary = run.summary.model_copy(update={"evaluate": evaluate})
    made = Run(run.folder, f"{bundle}/{run.name}", summary)
    made.mark = f", bundle {bundle.removesuffix(BUNDLE)}"
    return made
