"""Loads models and tokenizers and checks them."""

import json
import logging
from dataclasses import dataclass
from typing import Any, NamedTuple

from lr_exp.errors import UserError, first_line, warn_once
from lr_exp.models.locating import (
    ModelSource,
    config_number,
    context_limit,
    has_tokenizer,
    read_config,
)
from lr_exp.models.prompts import allow_control_tokens, pin_date, stop_token_ids
from lr_exp.models.vocabulary import SharedVocabulary, tokens_with_rows

log = logging.getLogger(__name__)


@dataclass
class LanguageModel:
    name: str
    model: Any  # transformers.PreTrainedModel
    tokenizer: Any  # transformers.PreTrainedTokenizerBase
    stop_ids: tuple[int, ...]
    vocabulary_size: int  # highest id with a token, plus 1
    context: int | None  # maximum sequence length in tokens, if the config has it
    shared_with: Any = None  # early exit: the model that shares its first layers ...
    shared_layers: int = 0  # ... and how many
    packs: bool = True  # see `probing.probe`
    caches: bool = True
    compile: str | None = None  # a mode of torch.compile

    def forward_flops(self, tokens: int) -> float:
        """Floating-point operations of reading tokens: 2 per parameter and token.

        Attention, which depends on lengths, is left out.
        """
        return 2.0 * tokens * sum(one.numel() for one in self.model.parameters())


class ModelPair(NamedTuple):
    """Expert and amateur with the token ids on which they are compared."""

    expert: LanguageModel
    amateur: LanguageModel
    shared: SharedVocabulary


def load_tokenizer(source: ModelSource) -> Any:
    """The model's tokenizer, whose chat template prints `source.prompt_date` as today's date.

    A random model without a tokenizer gets a byte tokenizer.

    Raises UserError: the tokenizer cannot be loaded.
    """
    if source.init == "random" and not has_tokenizer(source.folder):
        from lr_exp.models.random_models import byte_tokenizer

        return byte_tokenizer()
    try:
        tokenizer = _pretrained_tokenizer(source)
        pin_date(tokenizer, source.prompt_date)
        if source.control_tokens:
            allow_control_tokens(tokenizer)
    except Exception as error:  # each format fails with its own exceptions
        raise _not_loadable("tokenizer", source, error) from error
    return tokenizer


def _pretrained_tokenizer(source: ModelSource) -> Any:
    """The tokenizer that `AutoTokenizer` returns, with fewer imports if its files name its class.

    From a folder alone, the library imports the model's config class and with it
    `torch.distributed` and `torch._dynamo`: a second in a run that loads no model.
    """
    from transformers import PreTrainedConfig, PreTrainedTokenizerFast

    options, path = _source_options(source), source.folder / "tokenizer_config.json"
    facts = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    if not source.gguf_file and "tokenizer_class" in facts and "auto_map" not in facts:
        kind = read_config(source).get("model_type")
        # The micro world's case. With another model type, another class may replace this one.
        if (kind, facts["tokenizer_class"]) == ("llama", "TokenizersBackend"):
            return PreTrainedTokenizerFast.from_pretrained(source.folder)
        known = {"model_type": kind, "name_or_path": str(source.folder)}
        options["config"] = PreTrainedConfig.from_dict(known)
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(source.folder, **options)


def load(source: ModelSource, *, device: str, dtype: str) -> LanguageModel:
    """Loads a model for inference and checks its outputs; `drop_layers` is left to `early_exit`.

    Raises UserError: damaged or missing weights, an unsupported architecture, logits that are not
    finite, or token ids without a row in the model's embedding.
    """
    from transformers import GenerationConfig
    from transformers.utils.logging import disable_progress_bar

    from lr_exp.models.probing import probe

    disable_progress_bar()  # it would hide the stages' progress bars
    tokenizer = load_tokenizer(source)
    if source.init == "random":
        from lr_exp.models.random_models import random_model

        model = random_model(source.folder, device, dtype, source.attention, source.role)
    else:
        model = _pretrained(source, dtype)
    rows = model.get_output_embeddings().weight.shape[0]
    loaded = _described(source, tokenizer, model, model.generation_config, model.config, rows)
    model.generation_config = GenerationConfig()  # no temperature, top-p and penalties
    if source.gguf_file:
        _clear_quantization(model)
    model.to(device).eval().requires_grad_(False)
    loaded.packs, loaded.caches = probe(model, f"{source.role} {source.name}")
    slow = []
    if not loaded.packs:
        slow.append("score and tune one sequence a pass (it mixes packed sequences)")
    if not loaded.caches:
        slow.append("generate one sequence at a time, without a cache (it has none that pads)")
    if slow:
        message = "%s: stages %s. Results are right, but this is slower."
        warn_once(log, message, source.name, " and ".join(slow))
    return loaded


def load_without_weights(source: ModelSource) -> LanguageModel:
    """The same description as from `load`, but `model` is None; for use with an engine.

    Raises UserError: the config or tokenizer cannot be loaded.
    """
    from transformers import AutoConfig, GenerationConfig

    tokenizer = load_tokenizer(source)
    try:
        config = AutoConfig.from_pretrained(source.folder, **_source_options(source))
    except Exception as error:  # each format fails with its own exceptions
        raise _not_loadable("config", source, error) from error
    try:
        generation = GenerationConfig.from_pretrained(source.folder)
    except (OSError, ValueError):  # the folder has no generation_config.json
        generation = None
    rows = config_number(source, "vocab_size")
    return _described(source, tokenizer, None, generation, config, rows)


def _described(
    source: ModelSource, tokenizer: Any, model: Any, generation: Any, config: Any, rows: int | None
) -> LanguageModel:
    """The model with what its tokenizer and configs say, once the tokenizer's ids are checked."""
    tokens = tokens_with_rows(source.role, tokenizer, rows)
    text = config.get_text_config()
    declared = [getattr(place, "eos_token_id", None) for place in (generation, config, text)]
    context = context_limit(lambda name: getattr(text, name, None))
    if context != getattr(text, "max_position_embeddings", None):
        warn_once(
            log,
            "%s: its context is limited to %s tokens. Beyond them LongRoPE scales all positions "
            "anew, which does not fit keys in the cache nor shorter sequences in the same pass.",
            source.name,
            context,
        )
    return LanguageModel(
        name=source.name,
        model=model,
        tokenizer=tokenizer,
        stop_ids=stop_token_ids(tokenizer, next((i for i in declared if i is not None), None)),
        vocabulary_size=max(tokens) + 1,
        context=context,
        compile=source.compile,
    )


def _source_options(source: ModelSource) -> dict[str, Any]:
    gguf = {"gguf_file": source.gguf_file} if source.gguf_file else {}
    return {"trust_remote_code": source.trust_remote_code, **gguf}


def _pretrained(source: ModelSource, dtype: str) -> Any:
    """The model with its weights on the CPU."""
    import torch
    from transformers import AutoModelForCausalLM

    try:
        model, info = AutoModelForCausalLM.from_pretrained(  # pyright: ignore[reportGeneralTypeIssues]
            source.folder,
            dtype=getattr(torch, dtype),
            use_safetensors=None if source.gguf_file else True,
            output_loading_info=True,
            **_source_options(source),
            **({"attn_implementation": source.attention} if source.attention else {}),
        )
    except Exception as error:
        raise _not_loadable("weights", source, error) from error
    missing = sorted(info["missing_keys"])
    if missing:
        raise UserError(
            f"{source.role}: {source.folder} lacks {len(missing)} weights (first {missing[0]}), "
            "which would be initialized randomly. Fetch the model again."
        )
    return model


def model_on_meta(source: ModelSource) -> Any:
    """The model built from its config alone on the meta device: shapes and names, no weights."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(source.folder, **_source_options(source))
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(
            config,
            trust_remote_code=source.trust_remote_code,
            **({"attn_implementation": source.attention} if source.attention else {}),
        )


def parameter_count(source: ModelSource) -> int:
    """The number of weights by the model's config; 0 if it is broken, which `load` reports."""
    try:
        return sum(one.numel() for one in model_on_meta(source).parameters())
    except Exception:  # libraries raise various ones
        return 0


def _clear_quantization(model: Any) -> None:
    """Clears GGUF's marks: the weights are floats now, and marked models refuse to be saved."""
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.is_quantized = False
    model.hf_quantizer = None
    model.quantization_method = None


def _not_loadable(what: str, source: ModelSource, error: Exception) -> UserError:
    remedy = f"check {source.role}.path"
    if source.attention:
        remedy += f" and attention={source.attention}"
    if "trust_remote_code" in str(error) and not source.trust_remote_code:
        remedy = (
            "it needs its repository's own code: read that code, and set "
            f"{source.role}.trust_remote_code=true if you trust it"
        )
    return UserError(
        f"{source.role}: the {what} in {source.folder} cannot be loaded ({first_line(error)}); "
        f"{remedy}."
    )
