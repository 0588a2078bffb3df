"""Language models from the hub, folders, GGUF files and installed packages, safetensors only.

Knows files, weights and tokenizers; knows nothing of what the models are used for. Finding a model
(`locate`) is separate from loading it, so that a run whose artifacts are all there loads none.
"""

import copy
import importlib.util
import json
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lr_exp.errors import UserError, first_line
from lr_exp.prompts import stop_token_ids
from lr_exp.settings import ATTENTIONS, AmateurSettings, ModelSettings
from lr_exp.store import digest, file_digest
from lr_exp.vocabulary import check_rows, tokens_by_id

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_HUB_FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")


@dataclass(frozen=True)
class ModelSource:
    """Where a model's files are, and the fingerprint of what they hold."""

    role: str  # expert | amateur: for messages
    name: str
    folder: Path
    gguf_file: str | None
    trust_remote_code: bool
    fingerprint: str  # of weights, config, tokenizer and template; or hub id and commit
    revision: str | None = None  # hub commit
    drop_layers: tuple[int, ...] = ()
    init: str = "pretrained"
    attention: str | None = None  # None: the library's own choice


@dataclass
class LanguageModel:
    """A loaded model with its tokenizer and what decoding it needs to know."""

    name: str
    model: Any  # transformers.PreTrainedModel
    tokenizer: Any  # transformers.PreTrainedTokenizerBase
    stop_ids: tuple[int, ...]
    vocabulary_size: int  # ids below it have tokens
    context: int | None  # most tokens in one sequence, if the config says so
    shared_with: Any = None  # early exit: the model whose first layers these are, too ...
    shared_layers: int = 0  # ... and how many


def locate(settings: ModelSettings, role: str) -> ModelSource:
    """Finds a model's files without loading them.

    Raises:
        UserError: nothing is there, or it lacks weights, a config or a tokenizer, or its weights
            are pickles.
    """
    path = settings.path
    packaged = _in_package(settings) if path is None else None
    if packaged is None and path is None:
        path = settings.fallback_path
    if packaged is not None:
        folder, gguf_file, revision = packaged
    elif path is not None:
        folder, gguf_file, revision = _on_disk(path, role) or _on_hub(path, settings, role)
    else:
        raise UserError(
            f"{role}={settings.name}: there is no {role}.path"
            + (
                f", and the package {settings.package!r} does not hold {settings.package_path!r}"
                if settings.package
                else ""
            )
            + f"; set {role}.path."
        )
    if gguf_file is None:
        _check_folder(folder, role, settings.init)
    if settings.init == "random":
        if gguf_file is not None:
            raise UserError(f"{role}.init=random takes a folder with a config.json, no GGUF file.")
        fingerprint = digest(["random", role, _fingerprint(folder, None)])
    elif revision is not None:
        fingerprint = digest(["hub", path, revision])
    else:
        fingerprint = _fingerprint(folder, gguf_file)
    return ModelSource(
        role=role,
        name=settings.name,
        folder=folder,
        gguf_file=gguf_file,
        trust_remote_code=settings.trust_remote_code,
        fingerprint=fingerprint,
        revision=revision,
        init=settings.init,
    )


def locate_amateur(settings: AmateurSettings, expert: ModelSource) -> ModelSource:
    """Finds the amateur; with `drop_layers` it is the expert itself without those layers."""
    if settings.drop_layers is None:
        return locate(settings, "amateur")
    if settings.path is not None:
        raise UserError(
            f"amateur.path={settings.path} and amateur.drop_layers contradict each other: early "
            "exit drops layers of the expert. Leave one out."
        )
    dropped = tuple(sorted(set(settings.drop_layers)))
    if not dropped or dropped[0] < 0:
        raise UserError(
            f"amateur.drop_layers={list(settings.drop_layers)}: give one layer number or more, "
            "counted from 0."
        )
    return ModelSource(
        role="amateur",
        name=settings.name,
        folder=expert.folder,
        gguf_file=expert.gguf_file,
        trust_remote_code=expert.trust_remote_code,
        fingerprint=digest(["early_exit", expert.fingerprint, dropped]),
        revision=expert.revision,
        drop_layers=dropped,
        init=expert.init,
    )


def load_tokenizer(source: ModelSource) -> Any:
    """The model's own tokenizer; a random model without one reads bytes."""
    from transformers import AutoTokenizer

    if source.init == "random" and not _has_tokenizer(source.folder):
        from lr_exp.random_models import byte_tokenizer

        return byte_tokenizer()
    try:
        return AutoTokenizer.from_pretrained(
            source.folder,
            trust_remote_code=source.trust_remote_code,
            **({"gguf_file": source.gguf_file} if source.gguf_file else {}),
        )
    except Exception as error:  # tokenizer files fail in as many ways as there are formats
        raise UserError(
            f"{source.role}: the tokenizer in {source.folder} cannot be loaded "
            f"({first_line(error)}); {_remedy(source, error)}."
        ) from error


def load(source: ModelSource, *, device: str, dtype: str) -> LanguageModel:
    """Loads a model for inference and checks that its numbers can be trusted.

    Args:
        source: what `locate` found (without `drop_layers`: see `early_exit`).
        device: a torch device.
        dtype: float32, bfloat16 or float16.

    Raises:
        UserError: damaged or missing weights, an unsupported architecture, NaN, a tokenizer with
            ids that the model has no row for.
    """
    from transformers import GenerationConfig
    from transformers.utils.logging import disable_progress_bar

    from lr_exp.packing import check_packing

    disable_progress_bar()  # a bar for each file of weights hides those of the stages
    tokenizer = load_tokenizer(source)
    if source.init == "random":
        from lr_exp.random_models import random_model

        # Of one geometry, too, expert and amateur differ.
        seed = 0 if source.role == "expert" else 1
        model = random_model(source.folder, device, dtype, source.attention, seed=seed)
    else:
        model = _pretrained(source, dtype)
    tokens = tokens_by_id(tokenizer)
    check_rows(source.role, tokens, output_rows(model))
    stop_ids = _stop_ids(tokenizer, model.generation_config, model.config)
    # The repository's temperature, top-p and penalties must not reach any call.
    model.generation_config = GenerationConfig()
    if source.gguf_file:
        _forget_quantization(model)
    model.to(device).eval().requires_grad_(False)
    check_packing(model, f"{source.role} {source.name}")
    return LanguageModel(
        name=source.name,
        model=model,
        tokenizer=tokenizer,
        stop_ids=stop_ids,
        vocabulary_size=max(tokens) + 1,
        context=getattr(model.config, "max_position_embeddings", None),
    )


def without_weights(source: ModelSource) -> LanguageModel:
    """The model as `load` describes it, for prompts that an engine answers: `model` is None.

    Raises:
        UserError: its config or its tokenizer cannot be loaded.
    """
    from transformers import AutoConfig, GenerationConfig

    tokenizer = load_tokenizer(source)
    try:
        config = AutoConfig.from_pretrained(
            source.folder,
            trust_remote_code=source.trust_remote_code,
            **({"gguf_file": source.gguf_file} if source.gguf_file else {}),
        )
    except Exception as error:  # as many kinds as there are formats
        raise UserError(
            f"{source.role}: the config in {source.folder} cannot be loaded "
            f"({first_line(error)}); {_remedy(source, error)}."
        ) from error
    try:
        generation = GenerationConfig.from_pretrained(source.folder)
    except (OSError, ValueError):  # a folder without one
        generation = None
    tokens = tokens_by_id(tokenizer)
    check_rows(source.role, tokens, config_rows(source))
    return LanguageModel(
        name=source.name,
        model=None,
        tokenizer=tokenizer,
        stop_ids=_stop_ids(tokenizer, generation, config),
        vocabulary_size=max(tokens) + 1,
        context=getattr(config, "max_position_embeddings", None),
    )


def _stop_ids(tokenizer: Any, generation: Any, config: Any) -> tuple[int, ...]:
    eos = generation.eos_token_id if generation else None
    return stop_token_ids(tokenizer, eos if eos is not None else config.eos_token_id)


def _pretrained(source: ModelSource, dtype: str) -> Any:
    """The model with its weights, on the CPU."""
    import torch
    from transformers import AutoModelForCausalLM

    try:
        model, info = AutoModelForCausalLM.from_pretrained(  # pyright: ignore[reportGeneralTypeIssues]
            source.folder,
            dtype=getattr(torch, dtype),
            use_safetensors=None if source.gguf_file else True,
            trust_remote_code=source.trust_remote_code,
            output_loading_info=True,
            **({"gguf_file": source.gguf_file} if source.gguf_file else {}),
            **({"attn_implementation": source.attention} if source.attention else {}),
        )
    except Exception as error:
        if source.attention:
            check_attention(source, error)
        raise UserError(
            f"{source.role}: the weights in {source.folder} cannot be loaded "
            f"({first_line(error)}); {_remedy(source, error)}."
        ) from error
    missing = sorted(info["missing_keys"])
    if missing:
        raise UserError(
            f"{source.role}: {source.folder} lacks {len(missing)} weights (first {missing[0]}); "
            "they would have been filled with random numbers. Fetch the model again."
        )
    return model


def check_attention(source: ModelSource, error: Exception) -> None:
    """Raises UserError, naming those there are, where the error is about the attention asked for.

    The library refuses an implementation in many words, before any weight is read: whether it was
    that is found by making the model of its config alone, without memory, both ways.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    def works(attention: str | None) -> bool:
        try:
            config = AutoConfig.from_pretrained(
                source.folder,
                trust_remote_code=source.trust_remote_code,
                **({"gguf_file": source.gguf_file} if source.gguf_file else {}),
            )
            with torch.device("meta"):
                AutoModelForCausalLM.from_config(
                    config,
                    trust_remote_code=source.trust_remote_code,
                    **({"attn_implementation": attention} if attention else {}),
                )
        except Exception:  # libraries that are not installed, each in its own words
            return False
        return True

    if not works(source.attention) and works(None):
        there = [name for name in ATTENTIONS if works(name)]
        raise UserError(
            f"attention={source.attention}: {source.role} {source.name} does not have it here "
            f"({first_line(error)}); it has {', '.join(there)}."
        ) from error


def early_exit(expert: LanguageModel, drop_layers: tuple[int, ...], name: str) -> LanguageModel:
    """The expert without some layers, as a model of its own that shares the expert's weights.

    Raises:
        UserError: a layer number that the expert does not have, or none left.
    """
    total = expert.model.config.num_hidden_layers
    _check_layers(tuple(sorted(drop_layers)), total)
    kept = [layer for layer in range(total) if layer not in drop_layers]
    _, decoder = _decoder(expert.model)
    layers = [_renumbered(decoder.layers[place], index) for index, place in enumerate(kept)]
    return LanguageModel(
        name=name,
        model=with_layers(expert.model, layers, kept),
        tokenizer=expert.tokenizer,
        stop_ids=expert.stop_ids,
        vocabulary_size=expert.vocabulary_size,
        context=expert.context,
        shared_with=expert.model,
        shared_layers=min(drop_layers),
    )


def with_layers(model: Any, layers: Sequence[Any], places: Sequence[int]) -> Any:
    """The model with other decoder layers, as a model of its own that shares all else.

    Args:
        places: whose place in `model` each layer takes: what kind of attention it has.
    """
    import torch

    twin = _shallow(model)
    twin.config = copy.deepcopy(model.config)
    twin.config.num_hidden_layers = len(layers)
    if getattr(twin.config, "layer_types", None):
        twin.config.layer_types = [twin.config.layer_types[place] for place in places]
    name, whole = _decoder(model)
    decoder = _shallow(whole)
    decoder.config = twin.config
    decoder.layers = torch.nn.ModuleList(layers)
    twin._modules[name] = decoder
    return twin


def _decoder(model: Any) -> tuple[str, Any]:
    """The part of a causal model that holds the layers, and its name there."""
    decoder = model.get_decoder()
    names = [name for name, child in model._modules.items() if child is decoder]
    if not names or not hasattr(decoder, "layers"):
        raise UserError(
            f"amateur=early_exit: the layers of {type(model).__name__} are not where "
            "decoder-only models keep them; choose an amateur of its own."
        )
    return names[0], decoder


def check_drop_layers(source: ModelSource) -> None:
    """Raises UserError where `drop_layers` names layers that the config does not have."""
    if source.drop_layers and source.gguf_file is None:
        total = _config(source).get("num_hidden_layers")
        if isinstance(total, int):
            _check_layers(source.drop_layers, total)


def _check_layers(drop_layers: tuple[int, ...], total: int) -> None:
    if drop_layers[-1] >= total or len(drop_layers) >= total:
        raise UserError(
            f"amateur.drop_layers={list(drop_layers)}: the expert has layers 0 to {total - 1}, "
            "and one must remain."
        )


def _config(source: ModelSource) -> dict[str, Any]:
    """The model's config as written; empty where loading the model will say what is wrong."""
    try:
        config = json.loads((source.folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}


def output_rows(model: Any) -> int:
    """Rows of the output embedding: the length of a logit vector."""
    return int(model.get_output_embeddings().weight.shape[0])


def config_rows(source: ModelSource) -> int | None:
    """Rows of the output embedding as the config says, without loading weights (None: not said)."""
    if source.gguf_file:
        return None
    rows = _config(source).get("vocab_size")
    return rows if isinstance(rows, int) else None


def config_context(source: ModelSource) -> int | None:
    """Most tokens in one sequence as the config says, without loading weights (None: not said)."""
    if source.gguf_file:
        return None
    context = _config(source).get("max_position_embeddings")
    return context if isinstance(context, int) else None


def resolve_device(device: str) -> str:
    """`auto` becomes the first GPU where there is one, else the CPU."""
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    # Of torch's other kinds some compute nothing (meta), none has been tried.
    if not re.fullmatch(r"cpu|cuda(:[0-9]{1,3})?", device):
        raise UserError(f"device={device} is not a device: use auto, cpu, cuda or cuda:N.")
    resolved = torch.device(device)
    if resolved.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"device={device}: torch sees no GPU here; use device=cpu or auto.")
    if resolved.type == "cuda" and resolved.index is not None:
        count = torch.cuda.device_count()
        if resolved.index >= count:
            raise UserError(
                f"device={device}: torch sees GPUs 0 to {count - 1} here; use one of them."
            )
        torch.cuda.set_device(resolved)  # libraries that say `cuda` mean the current one
    return device


def resolve_dtype(dtype: str, device: str) -> str:
    """`auto` becomes bfloat16 on a GPU that computes in it, else float32.

    A GPU without it gets float32, whoever asked: float16 reaches only to 65504 and rounds what is
    below 6e-8 to 0, which adapters' gradients and some models' hidden states do not survive.
    """
    import torch

    on_gpu = torch.device(device).type == "cuda"
    if dtype not in ("auto", "bfloat16") or not on_gpu:
        return "float32" if dtype == "auto" else dtype
    # Emulated bfloat16 is slower than float32.
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return "bfloat16"
    log.warning(
        "%s has no bfloat16: float32 is taken, which needs twice the memory (dtype=float16 fits, "
        "but may overflow).",
        torch.cuda.get_device_name(device),
    )
    return "float32"


def device_name(device: str) -> str:
    """The machine that computed, for the record."""
    import platform

    import torch

    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"


def _in_package(settings: ModelSettings) -> tuple[Path, str | None, None] | None:
    if settings.package is None or settings.package_path is None:
        return None
    try:
        spec = importlib.util.find_spec(settings.package)
    except (ImportError, ValueError):  # a dotted name's parent is not there; no name of a package
        return None
    if spec is None or spec.origin is None:
        return None
    place = Path(spec.origin).parent / settings.package_path
    if place.is_file():
        return place.parent, place.name, None
    return (place, None, None) if place.is_dir() else None


def _on_disk(path: str, role: str) -> tuple[Path, str | None, None] | None:
    try:
        place = Path(path).expanduser()
        is_folder, is_file = place.is_dir(), place.is_file()
    except (OSError, RuntimeError) as error:  # too long a name; the home of nobody
        raise UserError(
            f"{role}.path={path[:200]} cannot be looked up ({error}): give a model's folder."
        ) from error
    if is_folder:
        return place, None, None
    if is_file:
        if place.suffix.lower() != ".gguf":
            raise UserError(
                f"{role}.path={path} is a file but not a .gguf file: give a model's folder."
            )
        return place.parent, place.name, None
    return None


def _on_hub(path: str, settings: ModelSettings, role: str) -> tuple[Path, None, str]:
    if not _HUB_ID.fullmatch(path):
        raise UserError(f"{role}.path={path}: there is no such folder or file.")
    from huggingface_hub import snapshot_download

    patterns = _HUB_FILES + (["*.py"] if settings.trust_remote_code else [])
    try:
        folder = Path(
            snapshot_download(
                path,
                revision=settings.revision,
                allow_patterns=patterns,
                ignore_patterns=["original/*", "consolidated*"],
            )
        )
    except Exception as error:  # network, permission and name errors of several libraries
        raise UserError(
            f"{role}.path={path}: there is no such folder here, and the hub did not give a "
            f"model of that name ({first_line(error)}). Check the name, the network and the login."
        ) from error
    return folder, None, folder.name


def _has_tokenizer(folder: Path) -> bool:
    return any((folder / name).is_file() for name in _TOKENIZER_FILES)


def _check_folder(folder: Path, role: str, init: str) -> None:
    where = f"{role}.path={folder}"
    if not (folder / "config.json").is_file():
        raise UserError(
            f"{where} is not a model folder: it has no config.json. Give the folder that has it."
        )
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
        reason = "it holds no JSON object"
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
                f"{where} has its weights as pickles only, which are not loaded: convert them to "
                "safetensors (model.save_pretrained does)."
            )
        raise UserError(
            f"{where} has no weights: it lacks *.safetensors files. Fetch the model again."
        )
    if not _has_tokenizer(folder):
        raise UserError(
            f"{where} has no tokenizer: it lacks {' or '.join(_TOKENIZER_FILES)}. Copy the "
            "tokenizer's files into it."
        )


def _fingerprint(folder: Path, gguf_file: str | None) -> str:
    """Contents of all that makes the model what it is; the folder's name and dates do not."""
    if gguf_file:
        return digest(["gguf", file_digest(folder / gguf_file)])
    suffixes = {".json", ".safetensors", ".txt", ".model", ".jinja", ".py"}
    files = sorted(p for p in folder.iterdir() if p.is_file() and p.suffix in suffixes)
    return digest(["folder", {path.name: file_digest(path) for path in files}])


def _forget_quantization(model: Any) -> None:
    """A model read from GGUF is plain floating point now; its old mark would forbid saving it."""
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.is_quantized = False
    model.hf_quantizer = None
    model.quantization_method = None


def _shallow(module: "torch.nn.Module") -> Any:
    """A module that shares parameters and children, whose own attributes can be replaced."""
    twin = copy.copy(module)
    twin.__dict__ = dict(module.__dict__)
    twin._modules = dict(module._modules)
    return twin


def _renumbered(layer: "torch.nn.Module", index: int) -> Any:
    """A decoder layer in another place: attention finds its cache by `layer_idx`."""
    twin = _shallow(layer)
    for name, child in layer._modules.items():
        if child is not None and hasattr(child, "layer_idx"):
            twin._modules[name] = _shallow(child)
            twin._modules[name].layer_idx = index
    if hasattr(twin, "layer_idx"):
        twin.layer_idx = index
    return twin


def _remedy(source: ModelSource, error: Exception) -> str:
    if "trust_remote_code" in str(error) and not source.trust_remote_code:
        return (
            "it needs code of its own: read that code, and set "
            f"{source.role}.trust_remote_code=true if you trust it"
        )
    return f"check {source.role}.path"
