"""Models of a given geometry with random weights, to measure speed where no weights are at hand.

Knows configs and seeds. What such models say means nothing.
"""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from lr_exp.errors import UserError

_END = "<|endoftext|>"

# A random model's distributions are nearly uniform, so that almost every token would be plausible
# and every kept step a row of the vocabulary. Scaled up this much the last hidden state makes them
# about as peaked as a language model's.
_PEAK = 8.0


def random_model(folder: Path, device: str, dtype: str, attention: str | None, *, seed: int) -> Any:
    """A causal model of the folder's config.json, made on the device itself.

    Raises:
        UserError: the config is none of a causal language model.
    """
    chosen = {"attn_implementation": attention} if attention else {}
    place = torch.device(device)
    on_gpu = [place] if place.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=on_gpu), place:
            torch.manual_seed(seed)
            model = AutoModelForCausalLM.from_config(
                AutoConfig.from_pretrained(folder), dtype=getattr(torch, dtype), **chosen
            )
    except (ValueError, KeyError, ImportError) as error:
        raise UserError(
            f"init=random: no model of {folder}/config.json can be made ({error})."
        ) from error
    norm = getattr(model.get_decoder(), "norm", None)
    if norm is not None:
        norm.weight.data *= _PEAK
    return model


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte, then the end of text: needs no files."""
    vocabulary = {byte: i for i, byte in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([_END])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=_END,
        pad_token=_END,
        clean_up_tokenization_spaces=False,
    )
