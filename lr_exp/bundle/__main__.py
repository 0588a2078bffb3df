"""The command `python -m lr_exp.bundle RUNS -o FILE`: finished runs as one file to send."""

import argparse
import hashlib
from collections.abc import Sequence
from pathlib import Path, PurePath, PureWindowsPath
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from lr_exp import __version__
from lr_exp.bundle import members
from lr_exp.errors import UserError, command, counted, map_strings, printable, redact, run_program
from lr_exp.evaluator import grade
from lr_exp.pipeline.origin import origin
from lr_exp.report.read.run import AnswersMissingError, Run
from lr_exp.report.read.runs import BUNDLE, find_runs
from lr_exp.report.read.summary import Summary
from lr_exp.store import file_digest, open_atomically
from lr_exp.store.run_folder import SUMMARY

# Settings that no report reads; they have paths, addresses and names of the sender.
_PRIVATE = ("store", "hub_root", "config_dirs", "overrides", "wandb", "server")


@command
def main(words: Sequence[str] | None = None) -> int:
    """Writes the bundle and prints its sha256."""
    parser = argparse.ArgumentParser(
        prog="python -m lr_exp.bundle",
        description="Writes finished runs without weights to one file: settings, versions, step "
        "statistics and graded answers. python -m lr_exp.report reads it.",
    )
    parser.add_argument("runs", type=Path, metavar="RUNS", help="folder of a run or a sweep")
    what = f"the bundle, a new file whose name ends in {BUNDLE}"
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="FILE", help=what)
    chosen = parser.parse_args(words)
    out: Path = chosen.out
    if not out.name.endswith(BUNDLE) or out.exists():
        raise UserError(f"-o {out}: choose a file that does not exist, with a name in *{BUNDLE}.")
    found = find_runs(chosen.runs)
    try:
        with open_atomically(out) as file, ZipFile(file, "w", ZIP_DEFLATED) as archive:
            _write(archive, found.runs)
    except OSError as error:
        raise UserError(f"-o {out} cannot be written ({error.strerror}).") from error
    left = len(found.failed) + len(found.unfinished)
    size = f"{counted(len(found.runs), 'run')} in {out.stat().st_size:,} bytes"
    print(printable(f"{out}: {size}; left out: {counted(left, 'failed or unfinished run')}"))
    print(f"sha256 {file_digest(out)}")
    return 0


def _write(archive: ZipFile, runs: Sequence[Run]) -> None:
    listed = {}

    def add(name: str, content: bytes) -> None:
        # ZipInfo has a fixed date: the same runs give the same file.
        archive.writestr(ZipInfo(name), content, ZIP_DEFLATED)
        sha256 = hashlib.sha256(content).hexdigest()
        listed[name] = members.Member(bytes=len(content), sha256=sha256)

    for run in runs:
        optional = [place for place in members.OPTIONAL if (run.folder / place).is_file()]
        try:
            for one in members.evaluations(run):
                run.records(*one)
                if run.results(one[0], one[2])[one[1]].metric:  # cannot be graded again
                    raise UserError(f"{run.name} cannot be bundled: lm_eval graded {one[1]}.")
            for place in (*members.other_files(run), *members.answer_files(run), *optional):
                name = members.member_name(run, place)
                if not members.is_valid_name(name):
                    raise UserError(f"{name!r} is no valid name in a bundle: rename the folder.")
                content = (run.folder / place).read_bytes()
                add(name, _public(run.summary) if place == PurePath(SUMMARY) else content)
        except (AnswersMissingError, FileNotFoundError) as reason:
            raise UserError(
                f"{run.name} cannot be bundled: {reason}. Run it again, or remove its folder."
            ) from reason
    manifest = members.Manifest(
        format=members.FORMAT,
        lr_exp=__version__,
        commit=origin()["commit"],
        grading=grade.VERSION,
        members=dict(listed),
    )
    add(members.MANIFEST, manifest.model_dump_json(indent=2).encode())


def _public(summary: Summary) -> bytes:
    """The summary without private settings and secrets, and with names in place of paths."""
    content = summary.to_dict()
    settings = content["settings"].items()
    content["settings"] = {key: value for key, value in settings if key not in _PRIVATE}
    return Summary.model_validate(map_strings(content, _without_folder)).to_json().encode()


def _without_folder(text: str) -> str:
    """The last part of an absolute path; other text without secrets."""
    for path in (PurePath(text), PureWindowsPath(text)):
        # `/no_think` is a system prompt.
        if path.is_absolute() and len(path.parts) > 2 and "\n" not in text:
            return path.name
    return redact(text)


if __name__ == "__main__":
    run_program(main)
