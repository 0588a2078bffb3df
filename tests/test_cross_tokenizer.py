"""An amateur with another tokenizer: its mass on the expert's tokens, and the scores."""

import copy
import json
import math
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import ByteLevelBPETokenizer, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import lr_exp
from bench import letters
from bench.letters import letter_by_letter
from lr_exp.config.composition import conf_dir
from lr_exp.data.questions import Question
from lr_exp.errors import UserError
from lr_exp.micro.training import Recipe
from lr_exp.micro.world import Behaviour, generate_problems
from lr_exp.models.loading import ModelPair, load_tokenizer
from lr_exp.models.prompt_forms import Prompt
from lr_exp.pipeline.inputs import Inputs
from lr_exp.sampler import score
from lr_exp.sampler.cross_tokenizer import CrossTokenizer, _Texts
from lr_exp.store.shards import read_shards
from tests.support.demo import settings_for
from tests.support.sampling import SYSTEM, load_micro, sample, shared_ids, smollm2_source

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
    _, positions, masses = pushed(expert, amateur, answer)
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


def words(*texts: str):
    """A tokenizer of whole words, without any smaller pieces; its last token is the end."""
    vocabulary = {text: i for i, text in enumerate([*texts, "?"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, "?"))
    pattern = "|".join(sorted(texts, key=len, reverse=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens(["?", END])
    named = {"eos_token": END, "unk_token": "?"}
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named)
    size = len(vocabulary) + 1
    return SimpleNamespace(tokenizer=wrapped, stop_ids=(size - 1,), vocabulary_size=size)


def test_inside_a_longer_token_the_mass_is_conditioned_on_what_is_written():
    """By hand: behind `a` of `ab`, only the tokens that begin with `a` count."""
    expert, amateur = words("a", "b"), words("aa", "ab", "ba", "bb", "a", "b")
    (_, inside, _), masses = pushed(expert, amateur, "ab")[1:]
    assert (inside.row, inside.pending) == (0, b"a")
    first = language_model(amateur.vocabulary_size)([0]).softmax(-1).tolist()
    # Behind the token `a` as such, the next token decides: ids aa ab ba bb a b ? end.
    behind = language_model(amateur.vocabulary_size)([0, 4]).softmax(-1).tolist()
    a = first[0] + first[4] * (behind[0] + behind[1] + behind[4])
    b = first[1] + first[4] * (behind[2] + behind[3] + behind[5])
    rest, end = first[4] * behind[6], first[4] * behind[7]
    assert masses[1, :2].tolist() == pytest.approx([a, b])
    assert masses[1, -3:].tolist() == pytest.approx([rest, end, 1 - a - b - rest - end])


def test_a_token_loses_the_texts_of_longer_tokens_outside_the_support():
    """The support is `a` alone; the amateur writes the expert's `ab` as `a` and `b`."""
    expert, amateur = words("a", "b", "ab"), words("a", "b")
    (first, *_), masses = pushed(expert, amateur, "ab", entries=[0])[1:]
    at = language_model(amateur.vocabulary_size)
    a, b = (at(ids).softmax(-1)[i].item() for ids, i in (([0], 0), ([0, 0], 1)))
    assert first.pending == b""
    assert masses[0, [0, 2]].tolist() == pytest.approx([a * (1 - b), a * b])


def test_ends_of_turn_of_both_models_are_one_whatever_their_ids():
    expert, amateur = words("a", "b"), words("b", "a", "c")
    cross = CrossTokenizer(expert, amateur)
    assert cross.shared.ids().tolist() == [0, 1, 3]  # not `?`
    ids = cross.amateur_ids([0, 3])
    positions = cross.positions([([0], ids, [0, 3])])
    logits = torch.tensor([[1.0, 2, 3, 4, 5]]).log().repeat(2, 1)  # b a c ? end
    probabilities = torch.tensor([[0.5, 0.2, 0.3], [0.1, 0.1, 0.8]])
    mask = probabilities >= 0.2
    amateur_log_probs, kl = cross.score(
        positions, Fake(lambda _: logits[0], logits), probabilities.log(), mask
    )
    expected = torch.tensor([2.0, 1, 5]) / 15  # `c` and `?` are the rest, 7/15
    assert torch.allclose(amateur_log_probs.exp(), expected.expand(2, -1), atol=1e-6)
    p = torch.tensor([0.1, 0.1, 0.8])
    by_hand = p[2] * (p[2] / expected[2]).log() + 0.2 * math.log(0.2 * 1.5)
    assert kl[1].item() == pytest.approx(by_hand.item(), rel=1e-5)


def test_an_amateur_that_cannot_write_the_experts_tokens_is_rejected():
    with pytest.raises(UserError, match=r"cannot write 2 of the expert's 3 tokens, such as 'b'"):
        CrossTokenizer(words("a", "b", "c"), words("a", "x"))


def test_byte_fallback_tokens_are_parts_of_characters_and_never_letters():
    """`<0x41>` is no `A`, which has a token of its own, and the two bytes of `é` are two tokens."""
    names = ["<0x41>", "<0xC3>", "<0xA9>", "A", "▁A"]
    vocabulary = {name: i for i, name in enumerate(names)}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], byte_fallback=True))
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer.add_special_tokens([END])
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END)
    texts = _Texts("amateur", SimpleNamespace(tokenizer=wrapped, stop_ids=(5,), vocabulary_size=6))
    assert texts.of == {1: b"\xc3", 2: b"\xa9", 3: b"A", 4: b" A"}
    assert texts.encode(["Aé".encode(), b"A\xc3"]) == [(3, 1, 2), (3, 1)]


# The micro pair --------------------------------------------------------------------------------


def reversed_words(model):
    """The same model with its ids in reverse order, those of special tokens included."""
    old, size = model.tokenizer, len(model.tokenizer)
    vocabulary = {token: size - 1 - i for token, i in old.get_vocab().items()}
    state = json.loads(old.backend_tokenizer.to_str())
    state["model"]["vocab"] = vocabulary
    for token in state["added_tokens"]:
        token["id"] = size - 1 - token["id"]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(state)),
        eos_token=old.eos_token,
        pad_token=old.pad_token,
        unk_token=old.unk_token,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = old.chat_template
    other = copy.deepcopy(model.model)
    weights = other.get_input_embeddings().weight
    weights.data = weights.data.flip(0)  # tied to the output layer
    stop_ids = tuple(size - 1 - i for i in model.stop_ids)
    return replace(model, model=other, tokenizer=tokenizer, stop_ids=stop_ids)


def columns(steps) -> dict[str, list]:
    rows = sorted(read_shards(steps), key=lambda row: (row["index"], row["step"]))
    return {name: [row[name] for row in rows] for name in rows[0]}


@pytest.fixture(scope="module")
def micro(tmp_path_factory):
    """Expert and amateur, the expert's answers, and the step table of the shared vocabulary."""
    pair = load_micro("expert"), load_micro("micro")
    questions = [
        Question(str(i), one.question)
        for i, one in enumerate(generate_problems("micro_add", 3, 0, "train"))
    ]
    trajectories, steps = sample(
        tmp_path_factory.mktemp("micro"), pair, shared_ids(pair), questions
    )
    return pair, trajectories, columns(steps)


def own_scores(tmp_path, micro, amateur, kind=CrossTokenizer):
    (expert, _), trajectories, _ = micro
    cross = kind(expert, amateur)
    pair = ModelPair(expert, amateur, cross.shared)
    sizes = {"support_floor": 1e-3, "tokens_per_pass": 256}
    score.score(trajectories, pair, tmp_path, prompt=Prompt(SYSTEM), cross=cross, **sizes)
    return columns(tmp_path)


def test_equal_vocabularies_give_the_same_table_to_the_bit(tmp_path, micro):
    assert own_scores(tmp_path, micro, micro[0][1]) == micro[2]


def test_a_permuted_vocabulary_gives_the_same_table(tmp_path, micro):
    found = own_scores(tmp_path, micro, reversed_words(micro[0][1]))
    for name, values in micro[2].items():
        flat = [np.hstack(each[name]) for each in (found, micro[2])]
        if "ids" in name or np.issubdtype(np.asarray(flat[1]).dtype, np.integer):
            assert found[name] == values, name
        else:
            assert np.allclose(*flat, atol=2e-6, rtol=1e-6), name


@pytest.mark.parametrize("split", [False, True])
def test_pushing_keeps_the_probabilities_and_lowers_the_divergence_to_the_bound(
    tmp_path, micro, split
):
    """With the same words, and with the same distribution of texts read letter by letter."""
    (_, amateur), _, exact = micro
    found = own_scores(tmp_path, micro, letter_by_letter(amateur) if split else amateur, Pushing)
    assert found["support_ids"] == exact["support_ids"]
    assert found["amateur_top1"] == exact["amateur_top1"]
    log_probs = [np.hstack(each["support_amateur"]) for each in (found, exact)]
    assert np.allclose(*log_probs, atol=1e-4)
    bounds = []
    for p, q in zip(exact["support_expert"], exact["support_amateur"], strict=True):
        p, q = (np.exp(np.array(each, dtype=float)) for each in (p, q))
        kept = (p * np.log(p / q)).sum()
        bounds.append(kept + (1 - p.sum()) * np.log(max(1 - p.sum(), 1e-12) / (1 - q.sum())))
    assert np.allclose(found["kl"], bounds, atol=5e-4)
    assert (np.array(found["kl"]) < np.array(exact["kl"]) + 1e-5).all()
    assert max(exact["kl"]) > 1


def test_the_setting_reaches_the_table_and_its_address(tmp_path, monkeypatch):
    """A run with an amateur whose tokens are split further; only the amateur's side changes."""
    recipe = Recipe(Behaviour(0.05), steps=1, width=24, layers=1, heads=1, inner=24)
    monkeypatch.setattr(letters, "RECIPE", recipe)
    assert letters.main(["train", "--out", str(tmp_path / "letters")]) == 0
    assert letters.main(["compare", str(tmp_path / "none")]) == 1
    assert letters.main(["compare", "--questions", "0"]) == 1
    words = ["data.count=3", "stages=[sample]", f"amateur.path={tmp_path / 'letters'}"]
    with pytest.raises(UserError, match=r"set amateur\.tokenizer=own"):
        Inputs(settings_for(tmp_path, *words), [conf_dir()]).check()
    found = lr_exp.sample(settings_for(tmp_path, *words, "amateur.tokenizer=own"))
    assert {"kl_nats", "support_amateur"} <= {*found.steps.columns}
    assert found.steps["kl_nats"].gt(0).all()
    fingerprints = [
        Inputs(settings_for(tmp_path, *setting), [conf_dir()]).amateur.fingerprint
        for setting in ([], ["amateur.tokenizer=shared"], ["amateur.tokenizer=own"])
    ]
    assert fingerprints[0] == fingerprints[1] != fingerprints[2]
    contrastive = ["amateur.tokenizer=own", "evaluator.decoder=contrastive", *words[2:]]
    with pytest.raises(UserError, match="do not share a vocabulary"):
        Inputs(settings_for(tmp_path, *contrastive), [conf_dir()]).check()


@pytest.mark.slow
def test_two_real_tokenizers_write_the_same_text(tmp_path):
    """SmolLM2's, and a byte-level BPE trained on a few lines."""
    real = load_tokenizer(smollm2_source())
    expert = SimpleNamespace(
        tokenizer=real, stop_ids=(real.eos_token_id,), vocabulary_size=len(real)
    )
    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(["Tom has 47 pens. Tom buys 38 more."] * 9, vocab_size=300)
    trained.add_special_tokens([END])
    wrapped = PreTrainedTokenizerFast(tokenizer_object=trained._tokenizer, eos_token=END)
    size = len(wrapped)
    amateur = SimpleNamespace(tokenizer=wrapped, stop_ids=(size - 1,), vocabulary_size=size)
    for answer in ("Tom has 1,234 pens: 5 ≥ 7.", "née 🙂 <|im_end|> x"):
        for mine, other in ((expert, amateur), (amateur, expert)):
            cross = CrossTokenizer(mine, other)
            token_ids = [*mine.tokenizer(answer, split_special_tokens=True)["input_ids"]]
            token_ids.append(mine.stop_ids[0])
            ids = cross.amateur_ids(token_ids)
            positions = cross.positions([([0], ids, token_ids)])
            for step, position in enumerate(positions):
                read = cross._amateur.text(ids[: position.row]) + position.pending
                assert read == cross._expert.text(token_ids[:step])
            at = language_model(other.vocabulary_size)
            some = positions[:: max(1, len(positions) // 4)]
            rows = [at([0, *ids[:n]]) for n in range(len(ids))]
            entries = [[token_ids[i], *range(300, 310)] for i in range(len(positions))]
            masses = cross.push(
                some, entries[:: max(1, len(positions) // 4)], Fake(at, torch.stack(rows))
            )
            assert masses.sum(-1).tolist() == pytest.approx([1] * len(some), abs=1e-9)
