"""What a command line may not ask for: code of its choosing, or a secret written down.

Settings are data. They end in files of the run, in W&B and on terminals, and Hydra makes objects of
some of them. Knows Hydra's words and YAML; knows no setting by name.
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
# Of launchers' settings, those that are run as commands, set up code or say where jobs go; then
# those that become lines of a shell script. Their names count wherever they stand in a file: its
# header or another file's defaults may put it under hydra.launcher.
_JOB_COMMANDS = re.compile(r"setup|runtime_env|_system_config|address|\w*commands")
_JOB_LINES = re.compile(
    r"name|partition|account|qos|constraint|exclude|comment|gres|mem_per_\w+|additional_parameters"
)
_STREAMS = ("ext://sys.stdout", "ext://sys.stderr")
_ENVIRONMENT = re.compile(r"\$\{\s*oc\.env\s*:\s*['\"]?(\w+)")
_NO_SECRETS = (
    "settings are written to the run's files and to W&B. Leave it out: W&B and the hub read their "
    "keys from the environment or from their logins."
)


def check_arguments(words: Sequence[str]) -> None:
    """Refuses a command line that holds a secret or names code to run, before Hydra reads it.

    Args:
        words: all of them, flags too.

    Raises:
        UserError: which word, and why.
    """
    for word in words:
        key, _, value = word.partition("=")
        _check_text(key, value)
        _check_secret(key, word)
    asked, _ = get_args_parser().parse_known_args(list(words))
    if asked.experimental_rerun is not None:
        raise UserError(
            "--experimental-rerun reads a pickle, which can hold any code: give the run's settings "
            "again (they are in its .hydra/overrides.yaml)."
        )
    for key, value in _given(words):
        _check_code(key, value, key)
        if key == "hydra.searchpath" and not isinstance(value, str):
            raise UserError(f"{key}={value}: give folders, as [FOLDER,FOLDER].")
        if key.startswith("hydra.job.env_set.") and is_secret_name(key.rpartition(".")[2]):
            raise UserError(f"{key}: {_NO_SECRETS}")
    for folder in (asked.config_path, *_config_dirs(words)):
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
    searched = [value for key, value in _given(arguments) if key == "hydra.searchpath"]
    return [flags.config_dir, *searched]


def check_settings(settings: Mapping[str, Any]) -> None:
    """Refuses settings of which one holds a secret or no text, however it came there.

    Raises:
        UserError: which one.
    """
    for key, value in _leaves(settings):
        if isinstance(value, str):
            _check_text(key, value)
            _check_secret(key, value)


def guard_environment() -> None:
    """From now on `${oc.env:NAME}` gives no secret, whichever file it stands in."""
    OmegaConf.register_new_resolver("oc.env", _variable, replace=True)


def _variable(name: str, *default: Any) -> str | None:
    if is_secret_name(name):
        raise UserError(f"${{oc.env:{name}}}: {_NO_SECRETS}")
    return oc.env(name, *default)


def _check_text(key: str, text: str) -> None:
    """Refuses what no file of a run could hold: its summary is written after all the work."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"{key}={text!a} is not UTF-8 text: rename the file, or give a name in UTF-8."
        ) from error


def _check_secret(key: str, text: str) -> None:
    held = secret_in(text)
    if held is not None:
        raise UserError(f"{key} holds {held}: {_NO_SECRETS}")
    for name in _ENVIRONMENT.findall(text):
        if is_secret_name(name):
            raise UserError(f"{key} asks for ${name}: {_NO_SECRETS}")


def _check_code(key: str, value: Any, where: str) -> None:
    """Refuses what Hydra or Python's logging would import and call."""
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
            f"{where}={text} names code to run, which settings may not: only Hydra's installed "
            "launchers and sweepers can be chosen, with hydra/launcher= and hydra/sweeper=."
        )


def _check_job(key: str, value: Any, where: str) -> None:
    """Refuses what a launcher would run or write into a job's script; for files, not words.

    A command line shows a job's commands to whoever runs it; a file that came along does not.
    """
    parts = key.split(".")
    # Ray's address is `local` in our own file, of which others are copies.
    is_command = value not in (None, "local") and any(map(_JOB_COMMANDS.fullmatch, parts))
    is_line = "\n" in str(value) and any(map(_JOB_LINES.fullmatch, parts))
    if is_command or is_line:
        raise UserError(
            f"{where} would run commands in jobs, or say where they go, which files may not: give "
            "it on the command line, as hydra.launcher.KEY=VALUE."
        )


def _given(words: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Every key with its value, of sweeps every value; what is no override is left to Hydra."""
    for word in words:
        if word.startswith("-") or "=" not in word:
            continue
        try:
            override = OverridesParser.create().parse_override(word)
        except (HydraException, RecursionError):
            continue
        if override.is_choice_sweep():
            values = list(override.sweep_iterator())
        elif override.is_sweep_override():
            values = []  # numbers, or a choice among files
        else:
            values = [override.value()]
        for value in values:
            yield from _leaves(value, override.key_or_group.replace("/", "."))


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Every value that is no mapping or list, with its dotted key."""
    if isinstance(value, Mapping):
        for name, one in value.items():
            yield from _leaves(one, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _leaves(one, key)
    else:
        yield key, value


def check_folder(given: str | None) -> None:
    """Checks every YAML file below a folder that Hydra will read, as `check_arguments` does.

    Raises:
        UserError: a file is not plain YAML, names code to run or holds a secret.
    """
    if given is None or given.startswith(("pkg://", "structured://")):  # installed code
        return
    if "${" in given:
        raise UserError(f"{given}: give the folder itself, so that its files can be checked.")
    path = Path(os.path.expanduser(given.removeprefix("file://")))
    # --config-path is relative to the program.
    places = {path.absolute(), Path(__file__).parents[1] / path}
    for place in sorted(folder for folder in places if folder.is_dir()):
        for file in sorted(place.rglob("*")):
            below = file.relative_to(place)
            hidden = any(part.startswith(".") for part in below.parts)  # Hydra reads none there
            if file.suffix in (".yaml", ".yml") and file.is_file() and not hidden:
                _check_file(file, below)


def _check_file(file: Path, below: Path) -> None:
    try:
        content = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
    except Exception as error:  # of the disk, the decoder, PyYAML and OmegaConf: no common base
        reason = " ".join(str(error).split())
        raise UserError(f"{file} is not plain YAML: {reason}") from error
    # A file's folder is its group: hydra/launcher/mine.yaml is told as hydra.launcher.
    group = ".".join(below.parent.parts)
    for key, value in _leaves(content):
        whole = key if key.startswith("hydra.") or not group else f"{group}.{key}"
        if whole.endswith("searchpath"):
            raise UserError(f"{file}: give hydra.searchpath on the command line.")
        _check_code(whole, value, f"{file}: {key}")
        _check_job(whole, value, f"{file}: {key}")
        if isinstance(value, str):
            _check_secret(f"{file}: {key}", value)
