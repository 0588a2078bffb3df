"""Locates a model's files: on the hub, in a folder, a GGUF file or an installed package.

Locating is separate from loading, so a run whose artifacts all exist loads no weights.
Only safetensors and GGUF are accepted; pickled weights are rejected.
"""

import importlib.util
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lr_exp.config.settings import PROMPT_DATE, AmateurSettings, ModelSettings
from lr_exp.errors import UserError, first_line
from lr_exp.store import digest, file_digest

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_HUB_FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")


@dataclass(frozen=True)
class ModelSource:
    role: str  # expert | amateur
    name: str
    location: str  # hub id, or the absolute path of the folder or GGUF file, whatever its spelling
    folder: Path
    gguf_file: str | None
    trust_remote_code: bool
    # Of weights, config and tokenizer, or of hub id and commit; in a run also of rendered prompts.
    fingerprint: str
    revision: str | None = None  # hub commit
    drop_layers: tuple[int, ...] = ()
    init: str = "pretrained"
    attention: str | None = None  # None: the library's default
    compile: str | None = None  # a mode of torch.compile
    prompt_date: str = PROMPT_DATE  # that the chat template prints as today's
    control_tokens: bool = False  # whether control tokens in questions are control tokens


def locate(settings: ModelSettings, role: str) -> ModelSource:
    """Finds a model's files without loading them.

    Raises UserError: there is no model, its weights, config or tokenizer are missing, or its
    weights are pickles.
    """
    paths = (settings.path, _path_in_package(settings), settings.fallback_path)
    path = next((one for one in paths if one is not None), None)
    if path is None:
        absent = f", and the package {settings.package!r} has no {settings.package_path!r}"
        raise UserError(
            f"{role}={settings.name}: {role}.path is not set{absent if settings.package else ''}; "
            f"set {role}.path."
        )
    folder, gguf_file, revision = _on_disk(path, role) or _on_hub(path, settings, role)
    if gguf_file is None:
        _check_folder(folder, role, settings.init)
    if settings.init == "random":
        if gguf_file is not None:
            raise UserError(
                f"{role}.init=random needs a folder with a config.json, not a GGUF file."
            )
        fingerprint = digest(["random weights", role, _fingerprint(folder, None)])
    elif revision is not None:
        fingerprint = digest(["hub", path, revision])
    else:
        fingerprint = _fingerprint(folder, gguf_file)
    return ModelSource(
        role=role,
        name=settings.name,
        location=path if revision else str((folder / (gguf_file or "")).resolve()),
        folder=folder,
        gguf_file=gguf_file,
        trust_remote_code=settings.trust_remote_code,
        fingerprint=fingerprint,
        revision=revision,
        init=settings.init,
    )


def locate_amateur(settings: AmateurSettings, expert: ModelSource) -> ModelSource:
    """Finds the amateur's files; with `drop_layers` they are the expert's."""
    if settings.drop_layers is None:
        return locate(settings, "amateur")
    if settings.path is not None:
        raise UserError(
            f"amateur.path={settings.path} and amateur.drop_layers cannot be combined: early "
            "exit drops layers of the expert. Leave one out."
        )
    if settings.init == "random":
        raise UserError(
            "amateur.init=random and amateur.drop_layers cannot be combined: early exit shares the "
            "expert's weights. Leave one out."
        )
    dropped = tuple(sorted(set(settings.drop_layers)))
    if not dropped or dropped[0] < 0:
        raise UserError(
            f"amateur.drop_layers={list(settings.drop_layers)}: give at least one layer number, "
            "counted from 0."
        )
    return replace(
        expert,
        role="amateur",
        name=settings.name,
        fingerprint=digest(["early_exit", expert.fingerprint, dropped]),
        drop_layers=dropped,
    )


def config_context(source: ModelSource) -> int | None:
    """Maximum sequence length in tokens, from the config (None if it does not say)."""
    limit = context_limit(_text_config(source).get)
    return limit if isinstance(limit, int) else None


def context_limit(get: Callable[[str], Any]) -> Any:
    """Maximum sequence length in tokens; None if the config does not say.

    With LongRoPE (Phi-3, Phi-4-mini) it is that of the short factors. `get` returns the value of a
    name in the text model's config, or None.
    """
    limit = get("max_position_embeddings")
    rope = get("rope_parameters") or get("rope_scaling") or {}
    if "longrope" in (rope.get("rope_type"), rope.get("type")):
        name = "original_max_position_embeddings"
        return get(name) or rope.get(name) or limit
    return limit


def config_number(source: ModelSource, name: str) -> int | None:
    """A whole number of the text model's config; None if config.json has none of this name."""
    number = _text_config(source).get(name)
    return number if isinstance(number, int) else None


def _text_config(source: ModelSource) -> dict[str, Any]:
    """The config of the text model, which multimodal models nest; empty for GGUF."""
    config = {} if source.gguf_file else read_config(source)
    nested = config.get("text_config")
    return nested if isinstance(nested, dict) else config


def has_tokenizer(folder: Path) -> bool:
    return any((folder / name).is_file() for name in _TOKENIZER_FILES)


def read_config(source: ModelSource) -> dict[str, Any]:
    """The parsed config.json, which `locate` has checked."""
    return json.loads((source.folder / "config.json").read_text("utf-8"))


def _path_in_package(settings: ModelSettings) -> str | None:
    if settings.package is None or settings.package_path is None:
        return None
    try:
        spec = importlib.util.find_spec(settings.package)
    except (ImportError, ValueError):  # a missing parent package; an invalid name
        return None
    if spec is None or spec.origin is None:
        return None
    location = Path(spec.origin).parent / settings.package_path
    return str(location) if location.exists() else None


def _on_disk(path: str, role: str) -> tuple[Path, str | None, None] | None:
    try:
        location = Path(path).expanduser()
        is_folder, is_file = location.is_dir(), location.is_file()
    except (OSError, RuntimeError) as error:  # the name is too long; ~user does not exist
        raise UserError(
            f"{role}.path={path[:200]} is not a valid path ({error}): give a model's folder."
        ) from error
    if is_folder:
        return location, None, None
    if is_file:
        if location.suffix.lower() != ".gguf":
            raise UserError(
                f"{role}.path={path} is a file but not a .gguf file: give a model's folder."
            )
        return location.parent, location.name, None
    return None


def _on_hub(path: str, settings: ModelSettings, role: str) -> tuple[Path, None, str]:
    if not _HUB_ID.fullmatch(path):
        raise UserError(
            f"{role}.path={path}: there is no such folder or file, and it is not a hub id. Set it "
            "to a model's folder, a .gguf file or a hub id (OWNER/NAME)."
        )
    from huggingface_hub import snapshot_download

    patterns = _HUB_FILES + (["*.py"] if settings.trust_remote_code else [])
    unneeded = ["original/*", "consolidated*"]
    try:
        folder = snapshot_download(
            path, revision=settings.revision, allow_patterns=patterns, ignore_patterns=unneeded
        )
    except Exception as error:  # several libraries' network, permission and name errors
        raise UserError(
            f"{role}.path={path}: there is no such folder, and the model cannot be downloaded from "
            f"the hub ({first_line(error)}). Check the name, the network and the login."
        ) from error
    return Path(folder), None, Path(folder).name


def _check_folder(folder: Path, role: str, init: str) -> None:
    where = f"{role}.path={folder}"
    if not (folder / "config.json").is_file():
        raise UserError(
            f"{where} is not a model folder: it has no config.json. Give a folder that has one."
        )
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
        reason = "it is not a JSON object"
    except (OSError, ValueError, RecursionError) as error:
        config, reason = None, first_line(error)
    if not isinstance(config, dict):
        raise UserError(
            f"{where}: its config.json cannot be loaded ({reason}). Fetch the model again."
        )
    if init == "random":
        return
    if not any(folder.glob("*.safetensors")):
        if any(folder.glob("*.bin")) or any(folder.glob("*.pt*")):
            raise UserError(
                f"{where} has only pickled weights, which can run code when loaded: convert them "
                "to safetensors (model.save_pretrained does)."
            )
        raise UserError(f"{where} has no weights (*.safetensors). Fetch the model again.")
    if not has_tokenizer(folder):
        raise UserError(
            f"{where} has no tokenizer ({' or '.join(_TOKENIZER_FILES)}). Copy the "
            "tokenizer's files into it."
        )


def _fingerprint(folder: Path, gguf_file: str | None) -> str:
    """Hash of the contents of the model's files; the folder's name and dates do not matter."""
    if gguf_file:
        return digest(["gguf", file_digest(folder / gguf_file)])
    suffixes = {".json", ".safetensors", ".txt", ".model", ".jinja", ".py"}
    files = sorted(p for p in folder.iterdir() if p.is_file() and p.suffix in suffixes)
    return digest(["folder", {path.name: file_digest(path) for path in files}])
