"""Composition with Hydra: checked overrides, names of cells' folders, typed settings."""

import argparse
import copy
import dataclasses
import math
import os
import re
import shlex
import typing
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, NoReturn, cast

from hydra._internal.utils import get_args_parser
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override, RangeSweep, Sweep, ValueType
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException, ValidationError

from lr_exp.config.options import ABOUT, GROUPS, option_files, option_folders
from lr_exp.config.options import conf_dir as conf_dir
from lr_exp.config.settings import MethodSettings, Settings, expected
from lr_exp.errors import UserError, did_you_mean, first_line
from lr_exp.store import digest

# Overrides that say where to read and write; they do not distinguish cells.
_NOT_IN_FOLDER = ("sweep=", "store=", "hub_root=", "device=", "server.url=", "wandb.", "hydra.")
_DESCRIBED = ("expert", "amateur", "data", "method")  # groups whose files may have `about`
_MAX_FOLDER_BYTES = 120  # file systems allow 255
_MAX_SWEEP_VALUES = 10_000  # of one override


def register() -> None:
    """Registers the schema of every YAML file and override, and a resolver of `config.yaml`."""
    schema = OmegaConf.structured(Settings)
    OmegaConf.set_struct(schema.method, False)  # parameters of choices are further keys
    for node in ("", *_DESCRIBED):
        OmegaConf.update(schema, f"{node}.{ABOUT}".lstrip("."), {}, force_add=True)
    ConfigStore.instance().store(name="settings", node=schema)
    OmegaConf.register_new_resolver("cell_folder", cell_folder, replace=True)


def cell_folder(overrides: Sequence[str]) -> str:
    """The name of a cell's folder, made of its overrides; a resolver for `conf/config.yaml`.

    It has no number: the cells of another command would then overwrite each other's results.
    """
    parts = [word.lstrip("+") for word in overrides]
    parts = [part for part in parts if not part.startswith(_NOT_IN_FOLDER)]
    if len(",".join(parts).encode()) > _MAX_FOLDER_BYTES:
        parts.sort(key=len)  # cut off paths and prompts rather than a sweep's `seed=1`
    exact = ",".join(parts)
    name = re.sub(r"[^\w.,=+-]+", "_", exact)
    if name == exact and len(name.encode()) <= _MAX_FOLDER_BYTES:
        return name or "cell"
    # Two cells may differ only in what was replaced or cut off.
    start = name.encode()[:_MAX_FOLDER_BYTES].decode(errors="ignore")
    return f"{start}-{digest(parts)[:12]}"


def parse_flags(arguments: Sequence[str]) -> argparse.Namespace:
    """Hydra's flags and the `overrides` of a command line; raises UserError for a wrong flag."""

    def refuse(message: str) -> NoReturn:
        raise UserError(f"{message}. `python -m lr_exp --help` shows the usage.")

    parser = get_args_parser()
    parser.error = refuse  # instead of printing Hydra's usage
    return parser.parse_intermixed_args(list(arguments))


def config_dirs(arguments: Sequence[str]) -> list[str]:
    """Folders of the user's own options on a command line, in Hydra's order."""
    flags = parse_flags(arguments)
    searched = []
    for word in flags.overrides:
        if word.lstrip("+").startswith("hydra.searchpath="):
            value = parse_override(word).value()
            paths = value if isinstance(value, list) else []  # Hydra reports anything else
            searched += [str(path).removeprefix("file://") for path in paths]
    # Hydra reports the other paths; some are packages.
    given = [flags.config_dir] if flags.config_dir else []
    return [*given, *(path for path in searched if os.path.isdir(path))]


def search_path(folders: Sequence[str | Path]) -> list[str]:
    """The override that adds folders of options to Hydra's search path; none without folders."""
    quoted = ["'file://{}'".format(str(path).replace("'", r"\'")) for path in folders]
    return [f"hydra.searchpath=[{','.join(quoted)}]"] if quoted else []


def check_overrides(overrides: Sequence[str], folders: Sequence[Path] = ()) -> None:
    """Raises UserError, which names the nearest valid key or option, unless all overrides exist.

    The options in `folders` count; by default those of the package alone.
    """
    folders = folders or option_folders()
    groups = {group: list(option_files(folders, group)) for group in GROUPS}
    keys = list(_keys(OmegaConf.structured(Settings)))
    for word in overrides:
        override = parse_override(word)
        key = override.key_or_group
        if key == "hydra" or key.startswith(("hydra.", "hydra/")):
            continue
        if override.is_delete():
            has_keys = any(name.startswith(f"{key}.") for name in keys) and key not in groups
            raise UserError(
                f"{word}: a setting cannot be removed, because its default would replace it. Write "
                f"{key}{'.KEY' if has_keys else ''}=VALUE."
            )
        if override.is_add() and key in groups and key != "sweep":  # Hydra would suggest `++`
            raise UserError(f"{word}: remove the `+`, as in {word.lstrip('+')}.")
        if key in groups and override.package is None:
            for option in _chosen(override):
                if isinstance(option, dict) or option in groups[key]:  # Hydra merges a mapping
                    continue
                name = "null" if option is None else str(option)
                raise UserError(f"{key}={name}: no such option.{did_you_mean(name, groups[key])}")
        elif key not in keys and not key.startswith("method."):  # see `pipeline.method`
            raise UserError(f"{key!r} is not a setting.{did_you_mean(key, [*keys, *groups])}")


def parse_override(word: str) -> Override:
    """Parses an override such as `key=value`.

    Raises UserError if the word is not a valid override, or sweeps over too many values.
    """
    shown = repr(word) if len(word) <= _MAX_FOLDER_BYTES else f"{word[:_MAX_FOLDER_BYTES]!r}..."
    try:
        word.encode()  # otherwise, writing the summary would fail at the end of the run
        override = OverridesParser.create().parse_override(word)
    except UnicodeEncodeError as error:
        raise UserError(
            f"{word!a} is not UTF-8 text: rename the file to a name in UTF-8."
        ) from error
    except HydraException as error:
        reason = first_line(error)
        raise UserError(f"{shown} is not an override: {_repair(word)} ({reason}).") from error
    sweep = override.value()
    if isinstance(sweep, RangeSweep):  # Hydra would build a list of all values
        start, stop, step = (float(end or 0) for end in (sweep.start, sweep.stop, sweep.step))
        if abs(stop - start) > _MAX_SWEEP_VALUES * abs(step):
            limit = f"more than {_MAX_SWEEP_VALUES:,} values"
            raise UserError(f"{shown} sweeps over {limit}: shorten the range.")
    if isinstance(sweep, ChoiceSweep) and any(isinstance(one, Sweep) for one in sweep.list):
        raise UserError(f"{shown}: a range cannot be one of several values: list its values.")
    return override


def _repair(word: str) -> str:
    """How to write a word that is not an override: with its value in quotes, if that helps."""
    key, equals, value = word.partition("=")
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    quoted = f'{key}{equals}"{escaped}"'
    try:
        OverridesParser.create().parse_override(quoted)
    except HydraException:
        return "write key=value"
    return f"quote its value, as in {shlex.quote(quoted)}"


def round_range(word: str) -> str:
    """Replaces `range(0.1,0.4,0.1)` in an override by its values, which Hydra does not round."""
    override = parse_override(word)
    sweep = override.value()
    if not isinstance(sweep, RangeSweep) or sweep.shuffle:
        return word
    values = [Decimal(str(end or 0)) for end in (sweep.start, sweep.stop, sweep.step)]
    start, stop, step = values
    count = math.ceil((stop - start) / step)
    if count < 1 or all(value == value.to_integral() for value in values):
        return word
    rounded = [str(float(start + number * step)) for number in range(count)]
    return f"{word.partition('=')[0]}={','.join(rounded)}"


def count_cells(arguments: Sequence[str], params: Mapping[str, Any]) -> int | None:
    """The number of runs of a multirun; None if it depends on a glob.

    A command line's `arguments` replace axes of the sweep's `hydra.sweeper.params`.
    """
    given = [word for word in parse_flags(arguments).overrides if not word.startswith("hydra.")]
    counts = {}
    for word in (*(f"{key}={values}" for key, values in params.items()), *given):
        override = parse_override(word)
        if override.value_type is ValueType.GLOB_CHOICE_SWEEP:
            return None
        is_sweep = override.is_sweep_override()
        counts[override.get_key_element()] = len([*override.sweep_iterator()]) if is_sweep else 1
    return math.prod(counts.values())


def axis_words(params: Mapping[str, Any]) -> dict[str, list[str]]:
    """The overrides of each axis in `hydra.sweeper.params`, one per value, as cells get them."""
    words = {}
    for key, given in params.items():
        axis = parse_override(f"{key}={given}")
        is_sweep = axis.is_sweep_override()
        values = axis.sweep_string_iterator() if is_sweep else [axis.get_value_element_as_str()]
        words[key] = [f"{key}={value}" for value in values]
    return words


def one_line_message(error: Exception) -> str:
    """An error's message on one line, with the cause that Hydra and OmegaConf put elsewhere."""
    lines = str(error).removeprefix("Error merging override ").splitlines()
    if isinstance(error, OmegaConfBaseException):
        lines = lines[:1]  # the others name OmegaConf's own types
    elif isinstance(error.__cause__, OmegaConfBaseException):
        lines.append(f"({one_line_message(error.__cause__)}){_expectation(lines, error.__cause__)}")
    return " ".join(line.strip() for line in lines if line.strip())


def _expectation(lines: Sequence[str], reason: Exception) -> str:
    """`: expected a number in (0, 1]` for a value of the wrong type; "" if that is unknown."""
    hint: Any = Settings if isinstance(reason, ValidationError) else None
    for name in (lines[0] if lines else "").partition("=")[0].lstrip("+").split("."):
        is_section = dataclasses.is_dataclass(hint)
        hint = typing.get_type_hints(hint, include_extras=True).get(name) if is_section else None
    return f": expected {expected(hint)}" if hint and not dataclasses.is_dataclass(hint) else ""


def to_settings(
    config: DictConfig, overrides: Sequence[str], config_dirs: Sequence[Path] = ()
) -> Settings:
    """The composed configuration as typed settings, ranges checked.

    A model whose `path` or `init` is overridden gets another name, so that results are not shown
    under the preset's name.

    Raises UserError if a required value is missing, or one is out of range.
    """
    try:
        missing = OmegaConf.missing_keys(config)
        if missing:
            key = sorted(missing)[0]
            raise UserError(f"{key} is required: add {key}=... to the command.")
        settings = cast(Settings, OmegaConf.to_object(_as_settings(config)))
    except InterpolationResolutionError as error:
        key = error.full_key or "a setting"
        raise UserError(
            f"{key}: {one_line_message(error)}; replace the ${{...}} by a value."
        ) from error
    except OmegaConfBaseException as error:
        raise UserError(one_line_message(error)) from error
    if settings.data.format in ("jsonl", "parquet", "lr_samples") and not settings.data.path:
        raise UserError("data.path is required: add data.path=... to the command.")
    given = {override.partition("=")[0].lstrip("+") for override in overrides}
    for role, part in (("expert", settings.expert), ("amateur", settings.amateur)):
        if f"{role}.path" in given and f"{role}.name" not in given and part.path:
            part.name = Path(part.path).name or part.path
        if f"{role}.init" in given and f"{role}.name" not in given and part.init == "random":
            part.name += "_random"
    folders = [str(folder) for folder in config_dirs]
    return dataclasses.replace(settings, config_dirs=folders, overrides=list(overrides))


def _as_settings(config: DictConfig) -> DictConfig:
    """The configuration without descriptions, further keys of `method` in `method.parameters`."""
    names = {field.name for field in dataclasses.fields(MethodSettings)}
    config = copy.deepcopy(config)
    for node in (config, *(config[name] for name in _DESCRIBED)):
        with open_dict(node):
            node.pop(ABOUT, None)
    for key in [key for key in config.method if key not in names]:
        config.method.parameters[key] = config.method.pop(key)
    return config


def _keys(config: DictConfig, prefix: str = "") -> Iterator[str]:
    """Every dotted key, nested ones included."""
    for key in config:
        yield f"{prefix}{key}"
        if OmegaConf.is_dict(config._get_node(key)):
            yield from _keys(config[key], f"{prefix}{key}.")


def _chosen(override: Override) -> list[Any]:
    """The options that an override names: one, or several in a sweep or a list."""
    if override.value_type is ValueType.GLOB_CHOICE_SWEEP:
        return []  # Hydra looks them up
    if override.is_sweep_override():
        return list(override.sweep_iterator())
    value = override.value()
    return list(value) if isinstance(value, list) else [value]
