"""Options of the config groups: YAML files in the package's `conf` folder and in the user's own.

The key `about` of such a file describes the option; it is no setting.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from lr_exp.errors import UserError, did_you_mean, first_line

# Groups that an override chooses from: GROUP=OPTION. Settings list benchmarks and prompts by name.
GROUPS = ("amateur", "data", "experiment", "expert", "method", "sweep")
ABOUT = "about"

T = TypeVar("T")


def conf_dir() -> Path:
    """The package's folder of YAML groups: inside an installed package, else beside it."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "conf"
    return installed if installed.is_dir() else package.parent / "conf"


def option_folders(config_dirs: Iterable[str | Path] = ()) -> tuple[Path, ...]:
    """The folders that options are read from, in Hydra's order: the package's, then the user's.

    Raises UserError if a folder does not exist, or if two of them have an option of the same name,
    of which Hydra would silently read only the first.
    """
    folders = [conf_dir()]
    for config_dir in config_dirs:
        folder = Path(config_dir).absolute()
        if not folder.is_dir():
            raise UserError(f"--config-dir: {config_dir} is not a folder.")
        if any(folder.samefile(earlier) for earlier in folders):
            continue
        for group in ("", *GROUPS, "benchmark", "prompt", "hydra/launcher"):
            ours = option_files(folders, group)
            for name, path in option_files([folder], group).items():
                if name in ours:
                    hint = (
                        "" if group else " To repeat a run, pass the words in its overrides.yaml."
                    )
                    raise UserError(f"{path} has the same name as {ours[name]}: rename it.{hint}")
        folders.append(folder)
    return tuple(folders)


def option_files(folders: Sequence[Path], group: str) -> dict[str, Path]:
    """Every option of a group and its file, sorted by name."""
    files = [path for folder in folders for path in (folder / group).glob("*.yaml")]
    return {path.stem: path for path in sorted(files, key=lambda path: path.stem)}


def read_option(path: Path) -> dict[str, Any]:
    """The content of an option's file as written; raises UserError if it is not a YAML mapping."""
    try:
        content = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    except (OSError, UnicodeDecodeError, YAMLError, OmegaConfBaseException) as error:
        raise UserError(f"{path} cannot be read as YAML: {first_line(error)}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is not a mapping of keys to values.")
    if not isinstance(content.setdefault(ABOUT, {}), dict):
        raise UserError(f"{path}: `about` is not a mapping. Write `about: {{description: TEXT}}`.")
    return {str(key): value for key, value in content.items()}


def load_option(schema: type[T], path: Path, values: Mapping[str, Any] | None = None) -> T:
    """The settings in an option's file, or in its `values` if they were read before.

    Raises UserError: the file cannot be read, a key is unknown, or a value is invalid.
    """
    structured = OmegaConf.structured(schema)
    values = {**(read_option(path) if values is None else values)}
    values.pop(ABOUT, None)
    known = [str(key) for key in structured]  # `in structured` is False where a default is "???"
    for key in values:
        if key not in known:
            raise UserError(f"{path}: unknown key {key!r}.{did_you_mean(key, known)}")
    try:
        return cast(T, OmegaConf.to_object(OmegaConf.merge(structured, values)))
    except (OmegaConfBaseException, UserError) as error:
        raise UserError(f"{path}: {first_line(error)}") from error
