"""Models with random weights, built from a config alone: to measure speed, or as an amateur."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from lr_exp.errors import UserError

_EOS = "<|endoftext|>"
# Scales an expert's last hidden state: its distributions are then about as peaked as a trained
# model's. Nearly uniform ones would make almost every token plausible, and each kept position store
# all ids.
_LOGIT_SCALE = 8.0


def random_model(folder: Path, device: str, dtype: str, attention: str | None, role: str) -> Any:
    """A causal language model from the folder's config.json, created directly on the device.

    The seed depends on the role: expert and amateur differ even if they have the same config.

    Raises UserError: the config does not describe a causal language model.
    """
    options = {"attn_implementation": attention} if attention else {}
    torch_device = torch.device(device)
    gpus = [torch_device] if torch_device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=gpus), torch_device:
            torch.manual_seed(0 if role == "expert" else 1)
            model = AutoModelForCausalLM.from_config(
                AutoConfig.from_pretrained(folder), dtype=getattr(torch, dtype), **options
            )
    except (ValueError, KeyError, ImportError) as error:
        raise UserError(
            f"init=random: cannot build a causal language model from {folder}/config.json "
            f"({error})."
        ) from error
    norm = getattr(model.get_decoder(), "norm", None)
    if norm is not None and role == "expert":
        norm.weight.data *= _LOGIT_SCALE
    return model


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer with one token per byte and an end-of-text token; needs no files."""
    vocabulary = {byte: i for i, byte in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([_EOS])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=_EOS,
        pad_token=_EOS,
        clean_up_tokenization_spaces=False,
    )
