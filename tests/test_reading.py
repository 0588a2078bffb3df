"""`trajectories.json.gz` shows the tokens, scores and labels that the stages used."""

import json
import math
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch

from lr_exp import contrast
from lr_exp.sampler import profile, reading
from lr_exp.store.shards import read_shards
from tests.support.methods import method
from tests.support.sampling import selected

ALPHA, BETA = 0.2, 0.4


def read(sampled, tokenizer, *, beta=BETA, verdict=lambda i, text: None):
    selection = selected(*sampled, method(alpha=ALPHA, beta=beta))
    with TemporaryDirectory() as folder:
        selection.supervision.save(Path(folder))
        shown = reading.sample_for_display(
            *sampled, Path(folder), tokenizer, alpha=ALPHA, verdict=verdict
        )
    return json.loads(json.dumps(shown, allow_nan=False)), selection.supervision


def test_the_tokens_of_an_answer_concatenate_to_its_text(sampled, pair):
    tokenizer = pair[0].tokenizer
    shown, _ = read(sampled, tokenizer)
    rows = sorted(read_shards(sampled[0]), key=lambda row: row["index"])
    assert [answer["id"] for answer in shown["answers"]] == [row["question_id"] for row in rows]
    for answer, row in zip(shown["answers"], rows, strict=True):
        prompt = tokenizer.decode(row["prompt_ids"])
        whole = tokenizer.decode([*row["prompt_ids"], *row["token_ids"]])
        text = "".join(shown["tokens"][place] for place in answer["token"])
        assert prompt + text == whole


def test_kept_steps_and_labels_equal_the_supervision(sampled, pair):
    """An answer without a kept step must not shift the marks of the answers after it."""
    shown, supervision = read(sampled, pair[0].tokenizer, beta=2.5)
    kept = {
        (trajectory.question_id, step): dict(zip(ids, weights, strict=True))
        for trajectory in supervision.trajectories
        for step, ids, weights in zip(
            trajectory.steps, trajectory.target_ids, trajectory.target_weights, strict=True
        )
    }
    marked = {
        (answer["id"], step)
        for answer in shown["answers"]
        for step, is_kept in enumerate(answer["kept"])
        if is_kept
    }
    assert marked == set(kept)
    assert 0 < len({question for question, _ in kept}) < len(shown["answers"])
    for answer in shown["answers"]:
        for step, candidates in enumerate(answer["candidates"]):
            weights = sorted(c[4] for c in candidates if c[4])
            expected = sorted(kept.get((answer["id"], step), {}).values())
            assert weights == pytest.approx([w for w in expected if w >= 5e-5], abs=1e-4)
            assert (answer["kept"][step] == 1) == all(c[4] is not None for c in candidates)


def test_measures_and_candidates_equal_both_models_predictions(sampled, pair):
    shown, _ = read(sampled, pair[0].tokenizer)
    row = min(read_shards(sampled[0]), key=lambda row: row["index"])
    answer = shown["answers"][0]
    step = answer["kept"].index(1)
    prefix = row["prompt_ids"] + row["token_ids"][:step]
    with torch.no_grad():
        p, q = (m.model(torch.tensor([prefix])).logits[0, -1].log_softmax(-1) for m in pair)
    assert answer["kl"][step] == pytest.approx(float(contrast.kl_nats(p, q)), abs=2e-4)
    assert answer["expert_entropy"][step] == pytest.approx(
        float(contrast.entropy_nats(p)), abs=2e-4
    )
    assert answer["same_top1"][step] == int(p.argmax() == q.argmax())
    assert answer["mask_size"][step] == int(contrast.plausible(p, ALPHA).sum())
    candidates = answer["candidates"][step]
    by_probability = sorted(candidates, key=lambda one: -one[1])
    assert candidates == by_probability
    assert by_probability[0][1] == pytest.approx(float(p.max().exp()), abs=1e-4)
    best = sorted(candidates, key=lambda one: -one[2])[:4]
    assert [one[2] for one in best] == pytest.approx(q.exp().topk(4).values.tolist(), abs=1e-4)
    assert sum(one[3] for one in candidates) == answer["mask_size"][step]
    # Both probabilities of a candidate belong to the same token.
    pairs = torch.stack([p.exp(), q.exp()], dim=1)
    for _, expert, amateur, *_ in candidates:
        assert (pairs - torch.tensor([expert, amateur])).abs().amax(dim=1).min() < 1e-4


def test_candidates_are_the_expert_s_and_amateur_s_top_tokens_and_the_mask():
    """Log-probabilities of ten tokens, listed by their ids: what is shown is by probability."""
    expert = [
        math.log(share) for share in (0.05, 0.3, 0.02, 0.2, 0.01, 0.15, 0.1, 0.07, 0.06, 0.04)
    ]
    scores = {
        "support_ids": list(range(10)),
        "support_expert": expert,
        "support_amateur": [0.0] * 10,
        "amateur_top_ids": [4, 1, 77],
        "amateur_top_expert": [expert[4], expert[1], math.log(1e-6)],
        "amateur_top_amateur": [0.0] * 3,
    }

    def shown(mask):
        return [token for token, _, _ in reading._candidates(scores, mask)]

    assert shown({1}) == [1, 3, 5, 6, 7, 4, 77]
    assert shown({1, 3, 5, 6, 7, 8, 0}) == [1, 3, 5, 6, 7, 8, 0, 4, 77]
    assert shown(set(range(10))) == [1, 3, 5, 6, 7, 8, 0, 9, 4, 77]  # at most eight of the mask


class Pairing:
    """A tokenizer in which a token's text depends on the token before it."""

    def decode(self, ids, **_):
        return "".join(f"[{a}-{b}]" for a, b in zip(["", *ids], ids, strict=False))


def test_a_token_s_text_is_decoded_after_the_token_before_it(sampled):
    shown, _ = read(sampled, Pairing())
    row = min(read_shards(sampled[0]), key=lambda row: row["index"])
    answer = shown["answers"][0]
    before = [row["prompt_ids"][-1], *row["token_ids"]]
    assert [shown["tokens"][place] for place in answer["token"]] == [
        f"[{a}-{b}]" for a, b in zip(before, row["token_ids"], strict=False)
    ]
    for step, candidates in enumerate(answer["candidates"]):
        assert all(shown["tokens"][one[0]].startswith(f"[{before[step]}-") for one in candidates)


def test_the_sample_has_wrong_answers_and_others(monkeypatch, sampled, pair):
    monkeypatch.setattr(reading, "_MAX_ANSWERS", 4)
    monkeypatch.setattr(reading, "_MAX_WRONG", 2)

    def verdict(index, text):
        is_right = index < 6
        return {"reference": "7", "predicted": "7" if is_right else "8", "correct": is_right}

    shown, _ = read(sampled, pair[0].tokenizer, verdict=verdict)
    assert [answer["correct"] for answer in shown["answers"]] == [True, True, False, False]
    last = shown["answers"][-1]
    assert (last["reference"], last["predicted"], shown["answers_total"]) == ("7", "8", 12)
    assert shown["chosen"] == "the first 2 wrong answers and the first 2 others, of 12 answers"


def test_the_file_s_size_is_limited(monkeypatch, sampled, pair):
    whole, _ = read(sampled, pair[0].tokenizer)
    assert whole["chosen"] == "all 12 answers"
    monkeypatch.setattr(reading, "_MAX_BYTES", len(json.dumps(whole)) // 2)
    monkeypatch.setattr(reading, "_MAX_TOKENS", 40)
    part, _ = read(sampled, pair[0].tokenizer)
    assert 1 <= len(part["answers"]) < 12
    answer = part["answers"][0]
    assert len(answer["token"]) == len(answer["candidates"]) == 40 < answer["tokens_total"]


def test_a_method_without_an_amateur_shows_its_own_tokens(tmp_path, sampled, pair):
    upft = method(select="first", target="token", parameters={"first": 3})
    selected(sampled[0], None, upft).supervision.save(tmp_path)
    options = {"alpha": None, "verdict": lambda i, text: None}
    given = sampled[0], None, tmp_path, pair[0].tokenizer
    shown = reading.sample_for_display(*given, **options)
    for answer in shown["answers"]:
        assert answer["kept"] == [1, 1, 1] + [0] * (len(answer["token"]) - 3)
        assert set(answer["kl"]) == {None}
        assert [c[0][4] for c in answer["candidates"][:3]] == [1.0, 1.0, 1.0]


def test_steps_by_position_count_all_steps(monkeypatch, sampled):
    selection = selected(*sampled, method(alpha=ALPHA, beta=BETA))
    shown = selection.profile["by_position"]
    steps, kept = [0] * len(shown["steps"]), [0] * len(shown["steps"])
    for row in read_shards(sampled[1]):
        steps[row["step"] // 8] += 1
        kept[row["step"] // 8] += row["kl"] > BETA
    assert (shown["bin_tokens"], shown["steps"], shown["kept"]) == (8, steps, kept)

    # Later positions share the last bin.
    monkeypatch.setattr(profile, "_MAX_BINS", 3)
    upft = method(select="first", target="token", parameters={"first": 20})
    shown = selected(sampled[0], None, upft).profile["by_position"]
    lengths = [len(row["token_ids"]) for row in read_shards(sampled[0])]
    assert shown["steps"] == [8 * 12, 8 * 12, sum(lengths) - 16 * 12]
    assert shown["kept"] == [8 * 12, 8 * 12, 4 * 12]
