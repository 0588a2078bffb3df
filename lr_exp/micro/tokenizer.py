"""Builds the micro world's tokenizer: whole words with their spaces, and each digit its own token.

Knows the words of the world's sentences; knows nothing of models. Text it has no word for becomes
``<|unk|>``: the models could not read it anyway.

No token is the beginning of another (a prefix code), so any sequence of tokens, decoded to text,
is read back as the same sequence: cutting a solution anywhere, decoding and encoding loses nothing.
"""

import itertools
import re

from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

PAD, END, USER, ASSISTANT, UNKNOWN = (
    "<|pad|>",
    "<|end|>",
    "<|user|>",
    "<|assistant|>",
    "<|unk|>",
)

# Spaces belong to the words around them, never to digits: a digit has one form everywhere.
_SOLUTION = (
    *"0123456789",
    " + ",
    " - ",
    " = ",
    ": ",
    " (note 1)",
    "; ",
    ", so ",
    "\n",
    "\\boxed{",
    "}",
)
_NAMES = ("Tom", "Mia", "Leo", "Ana", "Ben", "Zoe", "Kim", "Raj", "Eva", "Sam")
_NOUNS = ("pens", "eggs", "cups", "toys", "cards", "coins", "shells", "keys", "books", "stamps")
# A verb that a number follows carries the space after it.
_QUESTION = (
    *_NAMES,  # at the start of a question
    *(f" {name}" for name in _NAMES),
    *(f" {noun}" for noun in _NOUNS),
    *(" has ", " owns ", " buys ", " finds ", " gets ", " sells ", " loses "),
    *(" more", " Then", " Later", " How many", " does", " have", " are left", ".", "?"),
    *("A box holds ", "On a shelf lie ", " puts in ", " brings ", " and then ", " extra"),
    *(" What is the total", " Count all"),
)

# System messages are left out: the tiny models never saw one, and rendering it would put the prompt
# outside of what they know.
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


def build_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer of all micro models: pad is id 0, the end of a turn is the eos, id 1."""
    special = (PAD, END, USER, ASSISTANT, UNKNOWN)
    words = (*_SOLUTION, *_QUESTION)
    _check_prefix_code(words)
    vocabulary = {token: index for index, token in enumerate((*special, *words))}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token=UNKNOWN))
    pieces = Regex("|".join(re.escape(word) for word in words))
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


def _check_prefix_code(words: tuple[str, ...]) -> None:
    ordered = sorted(words)
    for shorter, longer in itertools.pairwise(ordered):
        if longer.startswith(shorter):
            raise ValueError(f"token {shorter!r} begins {longer!r}: decoding would be ambiguous")
