"""Checks that a command line, and the YAML that it adds, name no code to run and hold no secret.

Settings are written to the run's files, to W&B and to terminals, and Hydra instantiates some of
them.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.resolvers import oc

from lr_exp.errors import UserError, is_secret_name, secret_in

_PLUGINS = re.compile(r"(?:hydra\._internal\.core_plugins|hydra_plugins)(?:\.\w+)+")
_PLUGIN_KEYS = re.compile(r"hydra\.(?:launcher|sweeper|callbacks\.[^.]+)\._target_")
# Launchers' settings that are run as commands, install code or say where jobs go; then those that
# become lines of a shell script. They are checked anywhere in a file, since a header or another
# file's defaults may place it under hydra.launcher.
_JOB_COMMANDS = re.compile(r"setup|runtime_env|_system_config|address|\w*commands")
_JOB_LINES = re.compile(
    r"name|partition|account|qos|constraint|exclude|comment|gres|mem_per_\w+|additional_parameters"
)
_STREAMS = ("ext://sys.stdout", "ext://sys.stderr")
_ENVIRONMENT = re.compile(r"\$\{\s*oc\.env\s*:\s*['\"]?(\w+)")
_NO_SECRETS = (
    "settings are written to the run's files and to W&B. Remove it: W&B and the hub read their "
    "keys from the environment or from their logins."
)


def check_arguments(arguments: Sequence[str]) -> None:
    """Checks a command line, flags included, before Hydra reads it.

    Raises:
        UserError: an argument holds a secret or names code to run.
    """
    for word in arguments:
        key, _, value = word.partition("=")
        _check_text(key, value)
        _check_secret(key, word)
    flags, _ = get_args_parser().parse_known_args(list(arguments))
    if flags.experimental_rerun is not None:
        raise UserError(
            "--experimental-rerun reads a pickle, which can run any code: pass the run's overrides "
            "again (they are in its .hydra/overrides.yaml)."
        )
    for key, value in _values(arguments):
        _check_code(key, value, key)
        if key == "hydra.searchpath" and not isinstance(value, str):
            raise UserError(f"{key}={value}: expected folders, as [FOLDER,FOLDER].")
        if key.startswith("hydra.job.env_set.") and is_secret_name(key.rpartition(".")[2]):
            raise UserError(f"{key}: {_NO_SECRETS}")
    for folder in (flags.config_path, *_config_dirs(arguments)):
        check_folder(folder)


def config_dirs(arguments: Sequence[str]) -> list[str]:
    """Folders of the user's own options on a command line, in Hydra's order."""
    given, *searched = _config_dirs(arguments)
    folders = [path.removeprefix("file://") for path in searched]
    # Hydra reports the others itself; some are packages.
    return [*([given] if given else []), *filter(os.path.isdir, folders)]


def _config_dirs(arguments: Sequence[str]) -> list[Any]:
    """The value of --config-dir, which may be None, and the entries of `hydra.searchpath`."""
    flags, _ = get_args_parser().parse_known_args(list(arguments))
    searched = [value for key, value in _values(arguments) if key == "hydra.searchpath"]
    return [flags.config_dir, *searched]


def check_settings(settings: Mapping[str, Any]) -> None:
    """Checks composed settings.

    Raises:
        UserError: a value holds a secret or is not UTF-8 text.
    """
    for key, value in _leaves(settings):
        if isinstance(value, str):
            _check_text(key, value)
            _check_secret(key, value)


def guard_environment() -> None:
    """Makes `${oc.env:NAME}` raise a UserError for secrets, in every YAML file."""
    OmegaConf.register_new_resolver("oc.env", _environment_variable, replace=True)


def _environment_variable(name: str, *default: Any) -> str | None:
    if is_secret_name(name):
        raise UserError(f"${{oc.env:{name}}}: {_NO_SECRETS}")
    return oc.env(name, *default)


def _check_text(key: str, text: str) -> None:
    """Raises UserError for text that cannot be written to the summary at the end of a run."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"{key}={text!a} is not UTF-8 text: rename the file to a name in UTF-8."
        ) from error


def _check_secret(key: str, text: str) -> None:
    secret = secret_in(text)
    if secret is not None:
        raise UserError(f"{key} holds {secret}: {_NO_SECRETS}")
    for name in _ENVIRONMENT.findall(text):
        if is_secret_name(name):
            raise UserError(f"{key} reads ${name}: {_NO_SECRETS}")


def _check_code(key: str, value: Any, where: str) -> None:
    """Raises UserError for a value that Hydra or Python's logging would import and call."""
    parts = key.split(".")
    text = str(value)
    if "_target_" in parts:
        allowed = _PLUGIN_KEYS.fullmatch(key) and _PLUGINS.fullmatch(text)
    elif "()" in parts or "(" in key:
        allowed = False
    elif parts[-1] == "class":
        allowed = text.startswith("logging.")
    elif "ext://" in text and "logging" in key:
        allowed = text in _STREAMS
    else:
        allowed = True
    if not allowed:
        raise UserError(
            f"{where}={text} names code to run, which settings must not: choose launchers "
            "and sweepers with hydra/launcher= and hydra/sweeper=."
        )


def _check_job(key: str, value: Any, where: str) -> None:
    """Raises UserError for a value in a file that a launcher would run or write to a job's script.

    On the command line such values are allowed, since users see what they run.
    """
    parts = key.split(".")
    # Ray's address is `local` in conf/hydra/launcher/ray.yaml and in copies of it.
    is_command = value not in (None, "local") and any(map(_JOB_COMMANDS.fullmatch, parts))
    is_line = "\n" in str(value) and any(map(_JOB_LINES.fullmatch, parts))
    if is_command or is_line:
        raise UserError(
            f"{where} would run commands in jobs or choose where they run, which files must not: "
            "pass it on the command line, as hydra.launcher.KEY=VALUE."
        )


def _values(arguments: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Every key with its value, or all values of a sweep; Hydra reports invalid overrides."""
    for word in arguments:
        if word.startswith("-") or "=" not in word:
            continue
        try:
            override = OverridesParser.create().parse_override(word)
        except (HydraException, RecursionError):
            continue
        if override.is_choice_sweep():
            values = list(override.sweep_iterator())
        elif override.is_sweep_override():
            values = []  # numbers, or a glob of files
        else:
            values = [override.value()]
        for value in values:
            yield from _leaves(value, override.key_or_group.replace("/", "."))


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Every value that is not a mapping or list, with its dotted key."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _leaves(item, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _leaves(item, key)
    else:
        yield key, value


def check_folder(folder: str | None) -> None:
    """Checks every YAML file below a folder that Hydra will read, as `check_arguments` does.

    Raises:
        UserError: a file is not plain YAML, names code to run or holds a secret.
    """
    if folder is None or folder.startswith(("pkg://", "structured://")):  # installed code
        return
    if "${" in folder:
        raise UserError(f"{folder}: pass the folder's path, so that its files can be checked.")
    path = Path(os.path.expanduser(folder.removeprefix("file://")))
    # --config-path is relative to the program.
    candidates = {path.absolute(), Path(__file__).parents[1] / path}
    for root in sorted(candidate for candidate in candidates if candidate.is_dir()):
        for file in sorted(root.rglob("*")):
            relative = file.relative_to(root)
            hidden = any(part.startswith(".") for part in relative.parts)  # Hydra skips them
            if file.suffix in (".yaml", ".yml") and file.is_file() and not hidden:
                _check_file(file, relative)


def _check_file(file: Path, relative: Path) -> None:
    try:
        content = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
    except Exception as error:  # disk, decoder, PyYAML and OmegaConf have no common base class
        reason = " ".join(str(error).split())
        raise UserError(f"{file} is not plain YAML: {reason}") from error
    # A file's folder is its group: hydra/launcher/mine.yaml sets keys of hydra.launcher.
    group = ".".join(relative.parent.parts)
    for key, value in _leaves(content):
        full_key = key if key.startswith("hydra.") or not group else f"{group}.{key}"
        if full_key.endswith("searchpath"):
            raise UserError(f"{file}: pass hydra.searchpath on the command line.")
        _check_code(full_key, value, f"{file}: {key}")
        _check_job(full_key, value, f"{file}: {key}")
        if isinstance(value, str):
            _check_secret(f"{file}: {key}", value)
