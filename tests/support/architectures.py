"""Tiny random models of many architectures, with several kinds of tokenizers."""

import inspect
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from tests.support.tiny import tiny_tokenizer

LAYERS = 4
WINDOW = 16  # shorter than the prompts
ROWS = 300  # more than any of the tokenizers has

# Each config takes what it has a field for.
_SIZES = {
    "vocab_size": ROWS,
    "hidden_size": 32,
    "intermediate_size": 48,
    "ffn_dim": 48,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "sliding_window": WINDOW,
    "initializer_range": 0.2,
    "eos_token_id": 1,
    "pad_token_id": 0,
    "bos_token_id": None,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "q_lora_rank": 16,
    "kv_lora_rank": 8,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "state_size": 8,
    "num_heads": 8,
    "expand": 2,
    "n_groups": 1,
    "chunk_size": 8,
    "mamba_d_state": 8,
    "mamba_n_heads": 8,
    "mamba_d_head": 8,
    "mamba_n_groups": 1,
    "mamba_chunk_size": 8,
    "attention_hidden_size": 32,
    "word_embed_proj_dim": 32,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "hidden_size_per_layer_input": 8,
    "laurel_rank": 4,
    "vocab_size_per_layer_input": ROWS,
    "num_kv_shared_layers": 0,
    "is_decoder": True,
    # Training with an architecture's own dropout cannot be compared.
    "attention_dropout": 0.0,
    "hidden_dropout": 0.0,
    "dropout": 0.0,
    "resid_pdrop": 0.0,
    "embd_pdrop": 0.0,
    "attn_pdrop": 0.0,
    "activation_dropout": 0.0,
    "layerdrop": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "hidden_dropout_prob": 0.0,
}
_LATENT = {"head_dim": 4, "num_key_value_heads": 4}
_HYBRID = {"layer_types": ["linear_attention", "full_attention"] * 2}
_VISION = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}

# Name: overrides; a name may add a variant to the model type, after a plus sign.
ARCHITECTURES = {
    **{name: {} for name in ("llama", "mistral", "qwen2", "qwen3", "olmo2", "granite", "cohere2")},
    "llama+tied": {"tie_word_embeddings": True},
    **{name: {} for name in ("smollm3", "stablelm", "starcoder2", "nemotron", "glm4", "helium")},
    **{name: {} for name in ("gemma", "gemma2", "gemma3_text", "gemma3n_text")},  # softcaps
    **{name: {} for name in ("mixtral", "qwen3_moe", "olmoe", "gpt_oss", "granitemoe")},
    "deepseek_v2": _LATENT,
    "deepseek_v3": _LATENT,
    **{name: {} for name in ("gpt2", "opt", "xglm", "biogpt")},  # learned or sinusoidal positions
    **{name: {} for name in ("bloom", "mpt", "falcon")},  # ALiBi, fused projections
    **{name: {} for name in ("gpt_neox", "phi", "phi3")},
    **{name: {"rotary_dim": 4} for name in ("gptj", "codegen")},
    "lfm2": {"layer_types": ["conv", "full_attention"] * 2},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "granitemoehybrid": {"layers_block_type": ["mamba", "attention"] * 2},
    "qwen3_next": _HYBRID,
    "qwen3_5_text": _HYBRID,
    **{name: {} for name in ("recurrent_gemma", "mamba", "mamba2", "rwkv")},
    "gemma3+nested": {"vision_config": _VISION, "mm_tokens_per_image": 4},
}


def _config(kind: str, overrides: dict):
    config = CONFIG_MAPPING[kind]
    if "vision_config" in overrides:
        text = _config(f"{kind}_text", {}).to_dict()
        return config(text_config=text, **overrides)
    fields = {*inspect.signature(config.__init__).parameters, *config.attribute_map}
    fields |= set(getattr(config, "__dataclass_fields__", ()))
    return config(**{**{k: v for k, v in _SIZES.items() if k in fields}, **overrides})


def random_model(name: str, **overrides):
    """A random model of an architecture, with other settings of its config."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(
            _config(name.partition("+")[0], {**ARCHITECTURES[name], **overrides})
        )
        for parameter in model.parameters():  # some architectures start with zeros
            parameter.data += 0.02 * torch.randn_like(parameter)
    return model


def save_model(folder: Path, name: str, model=None) -> Path:
    """Saves a random model of an architecture, with a tokenizer whose kind depends on the name."""
    (model or random_model(name)).save_pretrained(folder)
    kinds = list(TOKENIZERS)
    kind = kinds[list(ARCHITECTURES).index(name) % len(kinds)]
    TOKENIZERS[kind]().save_pretrained(folder)
    return folder


def _sentencepiece(prepend: str, template: str | None = None) -> PreTrainedTokenizerFast:
    """Characters as tokens; a space is part of the next word, as SentencePiece has it."""
    letters = ["\u2581", "\n", *map(chr, range(33, 127))]
    vocabulary = {token: i for i, token in enumerate(["<pad>", "</s>", "<s>", "<unk>", *letters])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>"))  # noqa: S106
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=prepend)
    tokenizer.decoder = decoders.Metaspace(prepend_scheme=prepend)
    if template is not None:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=template, special_tokens=[("<s>", 2), ("</s>", 1)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        **{"pad_token": "<pad>", "eos_token": "</s>", "bos_token": "<s>", "unk_token": "<unk>"},
        clean_up_tokenization_spaces=False,
    )


TOKENIZERS = {
    "byte-level": lambda: tiny_tokenizer(chat_template=None),
    "byte-level with a chat template": tiny_tokenizer,
    "SentencePiece with a prefix space": lambda: _sentencepiece("always"),
    "SentencePiece without one": lambda: _sentencepiece("never"),
    "adds BOS": lambda: _sentencepiece("first", "<s> $A"),
    "adds EOS": lambda: _sentencepiece("never", "$A </s>"),
}
