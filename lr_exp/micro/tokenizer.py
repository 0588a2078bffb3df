"""Builds the tokenizer of a domain: one token per word, including its spaces, and one per digit.

Other text becomes ``<|unk|>``. No token is a prefix of another, so decoding any token sequence and
encoding the text returns the same tokens.
"""

import re

from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from lr_exp.micro import sorting, world

PAD, END, USER = "<|pad|>", "<|end|>", "<|user|>"
ASSISTANT, UNKNOWN = "<|assistant|>", "<|unk|>"

# Spaces belong to the words around digits, so that a digit is the same token everywhere.
_SOLUTION = (
    *"0123456789",
    *(" + ", " - ", " = ", ": ", " (note 1)", "; ", ", so ", "\n", "\\boxed{", "}"),
)
_NAMES = (*world.NAMES, *world.OTHER_NAMES)
# A verb before a number includes the space after it.
_QUESTION = (
    *_NAMES,  # at the start of a question
    *(f" {name}" for name in _NAMES),
    *(f" {noun}" for noun in (*world.NOUNS, *world.OTHER_NOUNS)),
    *(" has ", " owns ", " buys ", " finds ", " gets ", " sells ", " loses "),
    *(" more", " Then", " Later", " How many", " does", " have", " are left", ".", "?"),
    *("A box holds ", "On a shelf lie ", " puts in ", " brings ", " and then ", " extra"),
    *(" What is the total", " Count all"),
)
# The prompt form `plain`. A space follows `Answer:`, so the first digit of a solution has its own
# tokens there.
_PLAIN = ("Question: ", "Answer:", *(f" {digit}" for digit in "0123456789"))

WORDS: dict[str, tuple[str, ...]] = {  # of each domain
    "addition": (*_SOLUTION, *_QUESTION, *_PLAIN),
    "sorting": sorting.WORDS,
}

CHAT_TEMPLATE = (
    "{#- System messages are ignored: the micro models never saw one. -#}"
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'user' -%}"
    "{{- '<|user|>' + message['content'] + '<|end|>' -}}"
    "{%- elif message['role'] == 'assistant' -%}"
    "{{- '<|assistant|>' + message['content'] + '<|end|>' -}}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)


def build_tokenizer(domain: str = "addition") -> PreTrainedTokenizerFast:
    """The tokenizer of a domain's models; pad is id 0, eos (the end of a turn) id 1."""
    special = (PAD, END, USER, ASSISTANT, UNKNOWN)
    vocabulary = {token: index for index, token in enumerate((*special, *WORDS[domain]))}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token=UNKNOWN))
    pieces = Regex("|".join(re.escape(word) for word in WORDS[domain]))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(pieces, behavior="isolated")
    tokenizer.decoder = decoders.Fuse()  # tokens hold their own spaces
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        unk_token=UNKNOWN,
        extra_special_tokens=[USER, ASSISTANT],
        clean_up_tokenization_spaces=False,
        padding_side="left",
        model_max_length=256,
    )
    wrapped.chat_template = CHAT_TEMPLATE
    return wrapped
