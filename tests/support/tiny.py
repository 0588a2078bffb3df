"""Creates tiny random language models on disk that resemble real ones."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from lr_exp.config.settings import ModelSettings
from lr_exp.models import loading, locating
from lr_exp.models.loading import LanguageModel

END_OF_TEXT, TURN_START, TURN_END, PAD = "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>"
SPECIAL = (END_OF_TEXT, TURN_START, TURN_END, PAD)
TOKENS = 256 + len(SPECIAL)  # ids with a token: all bytes, then the special ones

# As in Qwen2.5, turns end with <|im_end|>, which is not the eos in a base model's config.
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}"
)

_ARCHITECTURES = {
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "llama": (LlamaConfig, LlamaForCausalLM),
}


def tiny_tokenizer(
    *,
    chat_template: str | None = CHAT_TEMPLATE,
    pad_is_eos: bool = False,
    special: tuple[str, ...] = SPECIAL,
) -> PreTrainedTokenizerFast:
    """A byte tokenizer, which round-trips every text, with special tokens."""
    vocabulary = {byte: i for i, byte in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(special))
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=special[0],
        pad_token=special[0] if pad_is_eos else special[-1],
        extra_special_tokens=list(special[1:3]),
        clean_up_tokenization_spaces=False,
    )
    wrapped.chat_template = chat_template
    return wrapped


def tiny_model(
    tmp_path: Path,
    name: str = "model",
    *,
    architecture: str = "qwen2",
    rows: int = TOKENS,
    seed: int = 0,
    chat_template: str | None = CHAT_TEMPLATE,
    pad_is_eos: bool = False,
    special: tuple[str, ...] = SPECIAL,
    dtype: torch.dtype = torch.float32,
    hidden_size: int = 32,
    layers: int = 2,
    max_position_embeddings: int = 512,
    spread: float = 0.2,
) -> Path:
    """Saves a random model with its tokenizer to `tmp_path/name` and returns that folder.

    Args:
        rows: of both embeddings; rows from `TOKENS` on have no token, like Qwen's padding rows.
        chat_template: None for a base model without one.
        special: texts of the special tokens with ids from 256: eos, start of turn, end of turn, pad
            (unused with `pad_is_eos`).
        spread: standard deviation of the weights; small values give near-uniform distributions.
    """
    config_class, model_class = _ARCHITECTURES[architecture]
    config = config_class(
        vocab_size=rows,
        hidden_size=hidden_size,
        intermediate_size=2 * hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=max_position_embeddings,
        initializer_range=spread,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=256,
        pad_token_id=256 if pad_is_eos else 255 + len(special),
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = model_class(config).to(dtype)
    folder = tmp_path / name
    model.save_pretrained(folder)
    tokenizer = tiny_tokenizer(chat_template=chat_template, pad_is_eos=pad_is_eos, special=special)
    tokenizer.save_pretrained(folder)
    return folder


def load_folder(folder: Path, *, dtype: str = "float32", **settings: Any) -> LanguageModel:
    """Loads a model from its folder as a run does."""
    source = locating.locate(
        ModelSettings(name=folder.name, path=str(folder), **settings), "expert"
    )
    return loading.load(source, device="cpu", dtype=dtype)


def double_model(kind: str = "qwen2", seed: int = 0, **changed: Any) -> torch.nn.Module:
    """A random model in fp64, with other values in its config."""
    shape = {
        "vocab_size": 50,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    config_class, model_class = _ARCHITECTURES[kind]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return model_class(config_class(**shape | changed)).double().eval()
