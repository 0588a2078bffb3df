"""The program `python -m lr_exp.list [KIND …]`: lists the options of each kind and their costs.

python -m lr_exp.list                  everything
python -m lr_exp.list sweeps           the tables, with their number of runs and cost
python -m lr_exp.list experts --json   the same facts for a script

The options' files are read without composing them, which would take a second each.
"""

import json
import shutil
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from lr_exp.config.composition import count_cells
from lr_exp.config.options import ABOUT, option_files, option_folders, read_option
from lr_exp.errors import UserError, command, did_you_mean, parser_of, run_program

_MAX_COLUMNS, _MIN_COLUMNS = 100, 50
_BF16_BYTES = 2  # per weight
_ROLES = ("expert", "amateur", "method", "data")

_read = cache(read_option)  # experiments share files

Folders = Sequence[Path]  # see `option_folders`
Facts = dict[str, Any]


@dataclass(frozen=True)
class Kind:
    group: str
    usage: str  # how to choose one, and what holds for all of them
    hidden: tuple[str, ...] = ()  # facts for scripts only


def _facts(group: str, content: Facts, folders: Folders) -> Facts:
    """The facts of an option, in the order of the columns."""
    about, source = content[ABOUT], {"from": _source(content)}
    questions = content.get("count") or about.get("questions")
    if group in ("expert", "amateur"):
        if content.get("drop_layers"):  # early exit: no weights of its own
            return {"parameters": 0, "bf16_bytes": 0, "from": "the expert's own weights"}
        count = about.get("parameters")
        return {"parameters": count, "bf16_bytes": count and count * _BF16_BYTES} | source
    if group == "method":
        return {key: content.get(key) for key in ("trajectories", "select", "target")}
    if group == "data":
        return {"questions": questions, "taken": content.get("max_questions") or questions} | source
    if group == "benchmark":
        examples = content.get("shots_split")
        answer = content.get("answer")
        return {"questions": questions, "answer": answer, "examples_from": examples} | source
    if group == "prompt":
        return {key: content.get(key) for key in ("base", "num_fewshot")}
    if group == "experiment":
        config = _read(folders[0] / "config.yaml")
        choices = _choices(config, folders) | _choices(content, folders)
        return {role: choices[role] for role in _ROLES} | {"cost": about.get("cost")}
    hydra = content.get("hydra", {})
    folder = hydra.get("sweep", {}).get("dir")
    return {
        "runs": count_cells([], hydra.get("sweeper", {}).get("params") or {}),
        "table": f"{folder}/report" if folder else None,
        "cost": about.get("cost"),
    }


def _choices(content: Facts, folders: Folders) -> dict[str, str]:
    """The options that a file's defaults list chooses, and those that the listed files choose."""
    choices: dict[str, str] = {}
    experiments = option_files(folders, "experiment")
    for default in content.get("defaults", []):
        if isinstance(default, Mapping):
            choices |= {key.removeprefix("override /"): name for key, name in default.items()}
        elif default in experiments:
            choices |= _choices(_read(experiments[default]), folders)
    return choices


def _source(content: Facts) -> str | None:
    path = content.get("path")
    if path == "???":
        return "your file"
    if path is None and (content.get("package") == "lr_exp" or "count" in content):
        return "this package"  # its models, and questions that it generates
    return path or content.get("fallback_path")


KINDS = {
    "experts": Kind("expert", "expert=NAME; bf16: size of the weights"),
    "amateurs": Kind("amateur", "amateur=NAME; bf16: size of the weights"),
    "methods": Kind("method", "method=NAME"),
    "data": Kind("data", "data=NAME data.max_questions=N"),
    "benchmarks": Kind(
        "benchmark", "benchmarks=[NAME,NAME]; evaluator.max_examples=N limits each to its first N"
    ),
    "prompts": Kind("prompt", "sampler.prompt=NAME evaluator.prompts=[NAME,NAME]"),
    "experiments": Kind("experiment", "experiment=NAME", _ROLES),
    "sweeps": Kind("sweep", "-m +sweep=NAME, then python -m lr_exp.report runs/NAME", ("table",)),
}


def rows(kind: str, folders: Folders) -> list[Facts]:
    """The facts of every option of a kind, sorted by name; raises UserError for an invalid file."""
    found = []
    group = KINDS[kind].group
    files = option_files(folders, group)
    for name, path in files.items():
        content = _read(path)
        for other in content.get("defaults", []):  # of the same group: the keys that it inherits
            if isinstance(other, str) and other in files:
                content = {**_read(files[other]), **content}
        what = content[ABOUT].get("description", "")
        found.append({"name": name, **_facts(group, content, folders), "what": what})
    return found


@command
def main(argv: Sequence[str] | None = None) -> int:
    parser = parser_of("lr_exp.list", __doc__)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("--config-dir", metavar="DIR", help="a folder of your own options")
    what = "print a JSON object of kinds and their rows"
    parser.add_argument("--json", action="store_true", help=what)
    args = parser.parse_args(argv)
    for kind in args.kinds:
        if kind not in KINDS:
            raise UserError(f"{kind!r} is not a kind of option.{did_you_mean(kind, KINDS)}")
    folders = option_folders([args.config_dir] if args.config_dir else [])
    listed = {kind: rows(kind, folders) for kind in args.kinds or KINDS}
    columns = shutil.get_terminal_size((_MAX_COLUMNS, 24)).columns
    width = min(max(columns, _MIN_COLUMNS), _MAX_COLUMNS)
    tables = "\n\n".join(_table(kind, options, width) for kind, options in listed.items())
    print(json.dumps(listed, indent=1) if args.json else tables)
    return 0


def _table(kind: str, options: list[Facts], width: int) -> str:
    """A line of aligned facts for each option, with its description and cost below."""
    below = (*KINDS[kind].hidden, "what", "cost")
    keys = [key for key in options[0] if key not in below]
    headings = {"bf16_bytes": "bf16", "examples_from": "examples", "trajectories": "learns from"}
    cells = [[_cell(key, option[key]) for key in keys] for option in options]
    cells.insert(0, [headings.get(key, key) for key in keys])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = textwrap.wrap(f"{kind} ({KINDS[kind].usage})", width, subsequent_indent="  ")
    for option, row in zip([None, *options], cells, strict=True):
        facts = "  ".join(map(str.ljust, row, widths)).rstrip()
        text = option["what"] if option else ""
        if option and option.get("cost"):
            text += f" ({option['cost']})"
        lines += textwrap.wrap(facts, width, initial_indent="  ", subsequent_indent="    ")
        lines += textwrap.wrap(text, width, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return "\n".join(lines)


def _cell(key: str, value: Any) -> str:
    if value is None or (key in ("parameters", "bf16_bytes") and not value):
        return "-"
    if key == "parameters":
        return f"{value / 1e9:.3g} B" if value >= 1e9 else f"{value / 1e6:.3g} M"
    if key == "bf16_bytes":
        return f"{value / 2**30:.1f} GiB" if value >= 2**30 else f"{value / 2**20:.0f} MiB"
    return f"{value:,}" if isinstance(value, int) else str(value)


if __name__ == "__main__":
    run_program(main)
