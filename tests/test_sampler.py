"""Scoring, selection and the record form, on the micro pair."""

import math
import shutil
import statistics
from dataclasses import replace

import numpy as np
import pytest
import torch

from lr_exp.errors import UserError
from lr_exp.models.loading import ModelPair
from lr_exp.models.prompt_forms import Prompt
from lr_exp.models.prompts import render_prompt
from lr_exp.models.vocabulary import SharedVocabulary
from lr_exp.sampler import records, score
from lr_exp.sampler.profile import Counts, effect_of
from lr_exp.sampler.supervision import SupervisedTrajectory, Supervision
from lr_exp.store.shards import read_shards, shard_paths
from tests.support.files import read_lines, write_lines
from tests.support.methods import method
from tests.support.sampling import SYSTEM, kept_steps, load_micro, sample, selected

ALPHA, BETA = 0.2, 0.4


def test_every_generated_token_is_a_step_the_first_one_and_the_stop_included(sampled):
    trajectories, steps = sampled
    table = list(read_shards(steps))
    for answer in read_shards(trajectories):
        rows = [row for row in table if row["index"] == answer["index"]]
        assert [row["step"] for row in rows] == list(range(len(answer["token_ids"])))
        assert [row["token_id"] for row in rows] == answer["token_ids"]
        # Greedy, so the expert's top token is the one that it chose: an off-by-one breaks this.
        assert [row["expert_top1"] for row in rows] == answer["token_ids"]


def test_a_smaller_floor_and_any_alpha_above_it_select_the_same(tmp_path, pair, shared, questions):
    wide = sample(tmp_path / "wide", pair, shared, questions[:4], floor=1e-6)
    tight = sample(tmp_path / "tight", pair, shared, questions[:4], floor=0.2)
    for alpha in (0.2, 0.5, 1.0):
        one = selected(*wide, method(alpha=alpha, beta=BETA)).supervision
        two = selected(*tight, method(alpha=alpha, beta=BETA)).supervision
        assert one.digest() == two.digest()


@pytest.mark.integration
def test_sampling_resumes_with_the_same_shards(tmp_path, pair, shared, questions, sampled):
    shutil.copytree(sampled[0].parent, tmp_path / "broken")
    for folder in (tmp_path / "broken").iterdir():
        shard_paths(folder)[1].unlink()  # as if it had not come that far
    broken = sample(tmp_path / "broken", pair, shared, questions)
    for one, two in zip(sampled, broken, strict=True):
        names = [path.name for path in shard_paths(one)]
        assert names == [path.name for path in shard_paths(two)]
        for name in names:
            assert (one / name).read_bytes() == (two / name).read_bytes()


def test_the_four_ablations_differ_only_in_step_rule_and_target(sampled):
    total = sum(1 for _ in read_shards(sampled[1]))

    def supervision(rule, target):
        chosen = method(select=rule, target=target, alpha=ALPHA, beta=BETA)
        return selected(*sampled, chosen).supervision

    full, everything = supervision("kl_above_beta", "contrast"), supervision("all", "contrast")
    assert 0 < full.kept < everything.kept == total
    hard = supervision("kl_above_beta", "token")
    assert hard.kept == full.kept
    answers = {row["question"]: row["token_ids"] for row in read_shards(sampled[0])}
    for trajectory in hard.trajectories:
        for step, ids, weights in zip(
            trajectory.steps, trajectory.target_ids, trajectory.target_weights, strict=True
        ):
            assert (ids, weights) == ([answers[trajectory.question][step]], [1.0])
    assert supervision("all", "token").kept == total


def test_supervision_is_in_the_questions_order_not_the_batches(tmp_path, pair, shared, questions):
    """The order in which batches were made must not reach the training."""
    uneven = [  # shorter ones first: batches take the longest first
        replace(question, text=" ".join([question.text] * (1 + number // 4)))
        for number, question in enumerate(questions[:8])
    ]
    folders = sample(tmp_path, pair, shared, uneven)
    written = [row["question_id"] for row in read_shards(folders[0])]
    in_order = [question.id for question in questions]
    assert written != in_order
    supervision = selected(*folders, method(alpha=ALPHA, beta=BETA)).supervision
    kept = [trajectory.question_id for trajectory in supervision.trajectories]
    assert len(kept) > 1
    assert kept == [one for one in in_order if one in kept]


def test_profile_counts_every_step_once(sampled):
    profile = selected(*sampled, method(alpha=ALPHA, beta=BETA)).profile
    kl = [row["kl"] for row in read_shards(sampled[1])]
    expected = {"answers": 12, "steps": len(kl), "kl_max": max(kl)}
    expected |= {"kept": sum(value > BETA for value in kl)}
    expected |= {"share_below_0.1": sum(value < 0.1 for value in kl) / len(kl)}
    assert profile.items() >= expected.items()
    assert sum(profile["histogram"]["counts"]) == len(kl)
    assert profile["kl_mean"] == pytest.approx(math.fsum(kl) / len(kl), rel=1e-6)


def test_labels_are_a_choice_moving_or_confirming():
    half, third, sixth = (math.log(p) for p in (1 / 2, 1 / 3, 1 / 6))
    scores = {"support_ids": [5, 6, 7], "support_expert": [half, third, sixth]}
    sure = effect_of({5: 1.0}, scores)
    assert sure == (False, False, pytest.approx(math.log(2)))  # -log 1/2
    # 1/4 log(1/4 / 1/2) + 3/4 log(3/4 / 1/3)
    moving = effect_of({5: 0.25, 6: 0.75}, scores)
    assert moving == (True, True, pytest.approx(0.25 * math.log(0.5) + 0.75 * math.log(2.25)))
    assert effect_of({5: 0.5, 6: 0.5}, scores)[:2] == (True, False)  # a tie in the label
    tied = scores | {"support_expert": [third, third, third]}
    assert effect_of({6: 1.0}, tied)[:2] == (False, False)  # a tie of the expert
    assert math.isnan(effect_of({9: 1.0}, scores).loss)  # its log-probability is not recorded

    counts = Counts(scored=False)
    step = np.arange(10)
    counts.add(1, {"step": step}, step < 4)
    for label in ({5: 1.0}, {5: 0.25, 6: 0.75}, {5: 0.5, 6: 0.5}):
        counts.add_label(label, scores)
    found = counts.profile()
    assert [found[f"choice{of}"] for of in ("", "_of_kept", "_of_all")] == [2, 2 / 3, 0.2]
    assert [found[f"moving{of}"] for of in ("", "_of_kept", "_of_all")] == [1, 1 / 3, 0.1]
    tie = 0.5 * math.log(1.5)  # 1/2 log(1/2 / 1/2) + 1/2 log(1/2 / 1/3)
    losses = [sure.loss, moving.loss, tie]
    assert found["moving_loss_share"] == pytest.approx(moving.loss / sum(losses))
    # Losses 0.69, 0.43 and 0.20; the seven other positions have none.
    histogram = found["loss_histogram"]
    assert histogram["counts"][:7] == [7, 0, 1, 0, 1, 0, 1]
    assert histogram["nats"][6] == pytest.approx(math.log(2), abs=1e-6)
    counts.add_label({9: 1.0}, scores)
    assert counts.profile()["moving_loss_share"] is None


def test_hard_labels_of_greedy_answers_only_confirm(sampled):
    soft, hard = (
        selected(*sampled, method(target=target, alpha=ALPHA, beta=BETA)).profile
        for target in ("contrast", "token")
    )
    assert 0 < soft["moving"] <= soft["choice"] < soft["kept"]
    assert soft["moving_loss_share"] > 0.9
    assert (hard["choice"], hard["moving"], hard["moving_loss_share"]) == (0, 0, 0)


def test_profile_means_are_over_the_steps_that_they_name(sampled, pair):
    answers = {row["index"]: row for row in read_shards(sampled[0])}
    log_probs = {}  # by answer: (steps, ids) of each model
    for index, answer in answers.items():
        ids, start = answer["prompt_ids"] + answer["token_ids"], len(answer["prompt_ids"])
        with torch.no_grad():
            logits = [model.model(torch.tensor([ids])).logits[0, start - 1 : -1] for model in pair]
        log_probs[index] = [each.log_softmax(-1) for each in logits]
    by_agreement = {True: [], False: []}
    for row in read_shards(sampled[1]):
        p, q = (each[row["step"]] for each in log_probs[row["index"]])
        assert (row["expert_top1"], row["amateur_top1"]) == (int(p.argmax()), int(q.argmax()))
        for name, own in (("expert_entropy", p), ("amateur_entropy", q)):
            assert row[name] == pytest.approx(-(own.exp() * own).sum().item(), abs=1e-4)
        by_agreement[row["expert_top1"] == row["amateur_top1"]].append(row["kl"])
    profile = selected(*sampled, method(alpha=ALPHA, beta=BETA)).profile
    for same, name in ((True, "kl_mean_same_top1"), (False, "kl_mean_other_top1")):
        assert profile[name] == pytest.approx(statistics.fmean(by_agreement[same]), rel=1e-5)


def test_each_model_reads_its_own_template(tmp_path, pair, shared, questions):
    """One tokenizer for both models would feed the amateur control tokens of another model."""
    expert, amateur = pair
    foreign = load_micro("micro")
    foreign.tokenizer.chat_template = (
        "{% for m in messages %}{{ m['content'] }}{% endfor %}<|assistant|>"
    )
    folders = sample(tmp_path, (expert, foreign), shared, questions[:2])
    row = next(iter(read_shards(folders[1])))
    answer = next(a for a in read_shards(folders[0]) if a["index"] == row["index"])
    prompt = render_prompt(foreign.tokenizer, answer["question"], Prompt(SYSTEM))
    assert prompt != answer["prompt_ids"]
    with torch.no_grad():
        p = expert.model(torch.tensor([answer["prompt_ids"]])).logits[0, -1].log_softmax(-1)
        q = amateur.model(torch.tensor([prompt])).logits[0, -1].log_softmax(-1)
    assert row["kl"] == pytest.approx((p.exp() * (p - q)).sum().item(), rel=1e-3, abs=1e-6)


def test_an_id_that_the_models_do_not_share_ends_the_scored_part():
    shared = SharedVocabulary(size=10, excluded=(7,))
    assert score.scored_length([1, 2, 3], shared) == 3
    # What the expert wanted at the step that chose 7 has left the distribution: the rest of it,
    # normalized, is noise, and a label made of it would train against ending.
    assert score.scored_length([1, 7, 3], shared) == 1
    assert score.scored_length([12, 1], shared) == 0


def test_excluded_ids_and_padding_rows_leave_both_distributions():
    """A model's rows without tokens hold whatever training left there."""
    expert, amateur = torch.randn(4, 12), torch.randn(4, 16)
    scores = score.score_steps(expert, amateur, SharedVocabulary(10, (3,)), floor=1e-9)
    columns = [0, 1, 2, 4, 5, 6, 7, 8, 9]
    p, q = expert[:, columns].softmax(-1), amateur[:, columns].softmax(-1)
    assert torch.allclose(scores["kl"], (p * (p / q).log()).sum(-1), atol=1e-6)
    assert scores["support_ids"].tolist() == columns * 4
    assert torch.allclose(scores["support_expert"], p.log().flatten(), atol=1e-6)
    assert torch.equal(scores["expert_top1"], torch.tensor(columns)[p.argmax(-1)])


def test_mean_log_likelihoods_are_those_of_the_tokens_in_the_shared_distribution(pair):
    """By hand: one plain pass of each model, renormalized without the excluded id."""
    expert, amateur = pair
    prompt, question = Prompt(SYSTEM), "Tom has 47 pens."
    ids = render_prompt(expert.tokenizer, question, prompt)
    answer = expert.tokenizer("47 + 38: 7 + 8 = 15")["input_ids"]
    row = {"question": question, "question_id": "0", "prompt_ids": ids, "token_ids": answer}
    shared = SharedVocabulary(len(expert.tokenizer), excluded=(4,))
    expected = []
    for model in pair:
        with torch.no_grad():
            logits = model.model(torch.tensor([[*ids, *answer]])).logits[0, len(ids) - 1 : -1]
        logits[:, 4] = -torch.inf
        log_probs = logits.log_softmax(-1)
        expected.append(statistics.fmean(log_probs[i, t].item() for i, t in enumerate(answer)))
    found = score.mean_log_likelihoods(row, ModelPair(expert, amateur, shared), prompt)
    assert found == pytest.approx(expected, rel=1e-4)


def test_nan_names_the_model_and_the_question(tmp_path, pair, shared, questions):
    expert, _ = pair
    broken = load_micro("micro")
    broken.model.lm_head.weight.data[3] = float("nan")
    with pytest.raises(UserError, match=r"amateur micro .* question micro/train/"):
        sample(tmp_path, (expert, broken), shared, questions[:2])


# The record form -------------------------------------------------------------------------------


def test_records_without_ids_are_read_as_the_published_reader_does(tmp_path, pair, sampled):
    """A published file has text only; where it tokenizes back, nothing is lost."""
    supervision = selected(*sampled, method(alpha=ALPHA, beta=BETA)).supervision
    tokenizer = pair[0].tokenizer
    file = tmp_path / "records.jsonl"
    records.export_records(supervision.trajectories, tokenizer, file)
    names = ["prompt_id", "step", "prefix", "tokens", "token_ids", "weights", "kl_divergence"]
    own = ["question_id", "prompt_token_ids", "prefix_token_ids"]
    exported = read_lines(file)
    assert all(list(record) == [*names, *own] for record in exported)
    write_lines(file, ({name: record[name] for name in names} for record in exported))
    again = records.import_records(
        file, tokenizer, prompt=Prompt(SYSTEM), vocabulary_size=len(tokenizer)
    )
    ids = {t.question: t.question_id for t in supervision.trajectories}
    restored = [replace(t, question_id=ids[t.question]) for t in again.trajectories]
    assert kept_steps(Supervision(restored)) == kept_steps(supervision)


def test_prefixes_that_do_not_nest_get_rows_of_their_own(tmp_path, pair):
    def record(step, prefix):
        return {
            "prompt_id": "q",
            "step": step,
            "prefix": "",
            "tokens": ["x"],
            "token_ids": [5],
            "weights": [1.0],
            "kl_divergence": 1.0,
            "prompt_token_ids": [1, 2],
            "prefix_token_ids": prefix,
        }

    file = tmp_path / "records.jsonl"
    lines = [record(1, [3]), record(2, [3, 4]), record(2, [9, 9]), record(3, [9, 9, 4])]
    write_lines(file, lines)
    made = records.import_records(file, pair[0].tokenizer, prompt=Prompt(), vocabulary_size=30)
    rows = [(t.input_ids, t.steps) for t in made.trajectories]
    assert rows == [([1, 2, 3, 4], [1, 2]), ([1, 2, 9, 9, 4], [2, 3])]


def test_supervision_survives_the_disk(tmp_path):
    targets = [[4], [5, 6]], [[1.0], [0.25, 0.75]]
    one = SupervisedTrajectory("a/1", "q", [1, 2, 3], 2, [0, 1], [0.5, 0.75], *targets)
    supervision = Supervision([one])
    supervision.save(tmp_path)
    (again,) = Supervision.load(tmp_path).trajectories
    assert again == supervision.trajectories[0]
    assert Supervision.load(tmp_path).digest() == supervision.digest()
    assert supervision.trajectories[0].read_at(0) == 1  # the prompt's last token predicts step 0
