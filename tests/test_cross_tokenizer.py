"""An amateur with another tokenizer: its mass on the expert's tokens, and the scores."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from lr_exp.sampler.cross_tokenizer import CrossTokenizer

END = "<|end|>"


def bpe(merges: list[tuple[str, str]], letters: str = "abc", **special: str):
    """A byte-level BPE tokenizer of these letters, without weights: ids in order, the end last."""
    tokens = [*letters]
    kept = []
    for one, two in merges:
        if one + two not in tokens:
            tokens.append(one + two)
            kept.append((one, two))
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, kept))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([END])
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END)
    return SimpleNamespace(
        tokenizer=wrapped, stop_ids=(len(tokens),), vocabulary_size=len(tokens) + 1
    )


def language_model(size: int, seed: int = 0):
    """Logits of the next token after a sequence, a fixed random function of the sequence."""

    def logits(sequence) -> torch.Tensor:
        generator = torch.Generator().manual_seed(hash((seed, *sequence)) % 2**31)
        return 2 * torch.randn(size, generator=generator, dtype=torch.float64)

    return logits


class Fake(NamedTuple):
    """Reads with a function from a sequence to logits."""

    at: Callable
    logits: torch.Tensor

    def read(self, chains):
        rows = [self.at(ids[: i + 1]) for ids, indices in chains for i in indices]
        return torch.stack([*self.logits, *rows])


class Pushing(CrossTokenizer):
    """Pushes also where the vocabularies have the same tokens and ids could be mapped."""

    def _same_tokens(self):
        return None


def pushed(expert, amateur, answer: str, entries=None, seed: int = 0):
    """The masses at every position of an answer's tokens; entries None: all tokens."""
    cross = Pushing(expert, amateur)
    own_ids = expert.tokenizer(answer)["input_ids"] + [*expert.stop_ids]
    ids, prompt = cross.amateur_ids(own_ids), [0]
    positions = cross.positions([(prompt, ids, own_ids)])
    ids.pop()
    at = language_model(amateur.vocabulary_size, seed)
    reader = Fake(at, torch.stack([at(prompt + ids[:n]) for n in range(len(ids) + 1)]))
    entries = range(expert.vocabulary_size) if entries is None else entries
    return cross, positions, cross.push(positions, [entries] * len(positions), reader)


MERGES = st.lists(
    st.tuples(*(st.sampled_from(["a", "b", "c", "ab", "bc", "abc", "ca"]) for _ in range(2))),
    max_size=6,
)


def valid(merges):
    """Only merges of tokens that exist."""
    tokens, found = {*"abc"}, []
    for one, two in merges:
        if one in tokens and two in tokens:
            tokens.add(one + two)
            found.append((one, two))
    return found


@given(MERGES, MERGES, st.text("abc", min_size=1, max_size=8), st.sets(st.integers(0, 8)))
def test_no_mass_is_lost_or_counted_twice(mine, other, answer, entries):
    expert, amateur = bpe(valid(mine)), bpe(valid(other))
    entries = [i for i in entries if i < expert.vocabulary_size]
    _, _, masses = pushed(expert, amateur, answer, entries)
    assert (masses >= 0).all()
    assert masses.sum(-1).tolist() == pytest.approx([1] * len(masses), abs=1e-9)


@given(MERGES, st.text("abc", min_size=1, max_size=6))
def test_an_amateur_of_single_letters_gives_each_token_the_texts_that_start_with_it(mine, answer):
    """By counting all texts: a token has those of which it is the longest beginning."""
    expert, amateur = bpe(valid(mine)), bpe([])
    texts = sorted(expert.tokenizer.get_vocab(), key=len)
    texts.remove(END)
    longest = len(texts[-1])
    cross, positions, masses = pushed(expert, amateur, answer)
    logits = language_model(amateur.vocabulary_size)
    vocabulary = expert.tokenizer.get_vocab()
    for position, mass in zip(positions, masses, strict=True):
        expected = torch.zeros(expert.vocabulary_size, dtype=torch.float64)
        stack = [([*position.prefix], "", 1.0)]
        while stack:
            sequence, text, share = stack.pop()
            if len(text) == longest or text.endswith("$"):
                match = [t for t in texts if text.startswith(t)]
                expected[vocabulary[match[-1]] if match else amateur_end(expert)] += share
                continue
            probabilities = logits(sequence).double().softmax(-1).tolist()
            for i, letter in enumerate("abc$"):
                stack.append(([*sequence, i], text + letter, share * probabilities[i]))
        found = mass[: expert.vocabulary_size].clone()
        found[amateur_end(expert)] += mass[-2]
        assert torch.allclose(found, expected, atol=1e-6)


def amateur_end(model) -> int:
    return model.stop_ids[0]
