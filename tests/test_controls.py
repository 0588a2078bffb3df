"""Controls: targets of the family expert^a / amateur^b and others, worked by hand.

Four tokens, two models, alpha 0.2: the mask holds tokens 0, 1 and 2.
"""

import math
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from lr_exp import contrast
from lr_exp.errors import UserError
from lr_exp.micro.tokenizer import build_tokenizer
from lr_exp.pipeline.run import _pair_warnings
from lr_exp.report.read.summary import Gap, Result, SampleSummary
from lr_exp.sampler.references import keep_chosen
from lr_exp.sampler.supervision import Supervision
from lr_exp.sampler.targets import permute_plausible
from lr_exp.store.shards import read_shards
from tests.support.demo import go
from tests.support.files import summary_of, write_lines
from tests.support.methods import method
from tests.support.sampling import selected, write_answers
from tests.support.tiny import tiny_tokenizer

EXPERT = [0.5, 0.3, 0.15, 0.05]
AMATEUR = [0.25, 0.6, 0.1, 0.05]


def table(expert=(EXPERT,), amateur=(AMATEUR,)) -> dict[str, torch.Tensor]:
    rows = len(expert)
    return {
        "index": torch.arange(rows) // 4,
        "step": torch.arange(rows) % 4,
        "token_id": torch.zeros(rows, dtype=torch.int64),
        "support_ids": torch.tensor([[10, 11, 12, 13]] * rows),
        "support_expert": torch.tensor(expert).log(),
        "support_amateur": torch.tensor(amateur).log(),
    }


def label(target: str, steps=None, **parameters) -> dict[int, float]:
    """The first position's label by token id, without tokens of weight 0."""
    bound = method(target=target, parameters=parameters).target
    ids, weights = bound(table() if steps is None else steps)
    return {i: w for i, w in zip(ids[0].tolist(), weights[0].tolist(), strict=True) if w}


def normalized(*weights: float) -> dict[int, float]:
    total = sum(weights)
    return {10 + i: pytest.approx(w / total, rel=1e-5) for i, w in enumerate(weights) if w}


def random_table(rows: int = 200) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    expert = (2 * torch.randn(rows, 4)).softmax(-1).tolist()
    return table(expert, (2 * torch.randn(rows, 4)).softmax(-1).tolist())


@pytest.mark.parametrize(
    ("target", "parameters", "expected"),
    [
        ("contrast", {}, (2, 0.5, 1.5)),  # 0.5/0.25, 0.3/0.6, 0.15/0.1
        ("contrast", {"a": 1, "b": 0}, (0.5, 0.3, 0.15)),
        ("contrast", {"a": 0, "b": 1}, (4, 1 / 0.6, 10)),
        # The log-ratios ln 2, ln 0.5 and ln 1.5 are limited to 0.5 nats.
        ("contrast", {"clip": 0.5}, (math.exp(0.5), math.exp(-0.5), 1.5)),  # ln 1.5 is 0.405
        # expert^2 / amateur = expert (expert / amateur)
        ("extrapolation", {"lambda": 2}, (1, 0.15, 0.225)),
        ("extrapolation", {"lambda": 1}, (0.5, 0.3, 0.15)),
        ("runner_up", {}, (0, 1, 0)),
    ],
)
def test_labels_of_the_worked_example(target, parameters, expected):
    assert label(target, **parameters) == normalized(*expected)


def test_a_mixed_label_has_a_share_of_the_experts_whole_distribution():
    # 0.7 (2, 0.5, 1.5, 0) / 4 + 0.3 (0.5, 0.3, 0.15, 0.05)
    assert label("contrast", mix=0.7) == normalized(0.5, 0.1775, 0.3075, 0.015)


def test_extrapolation_by_lambda_is_the_family_with_a_of_lambda_and_b_of_lambda_less_one():
    assert label("extrapolation", **{"lambda": 1.25}) == {
        token: pytest.approx(weight, rel=1e-5)
        for token, weight in label("contrast", a=1.25, b=0.25).items()
    }


def test_a_clipped_ratio_limits_the_amateur_not_the_expert():
    # expert^2 / amateur = expert (expert / amateur), whose second factor is limited
    expected = (0.5 * math.exp(0.5), 0.3 * math.exp(-0.5), 0.15 * 1.5)
    assert label("contrast", a=2, b=1, clip=0.5) == normalized(*expected)


def test_the_runner_up_is_the_expert_where_nothing_else_is_plausible():
    steps = table([[0.9, 0.05, 0.03, 0.02]])
    assert label("runner_up", steps) == {10: 1.0}


def test_sharpened_labels_have_the_entropy_of_the_contrast_and_the_experts_order():
    steps = random_table()
    bound = {name: method(target=name).target for name in ("contrast", "sharpened")}
    mask = contrast.plausible(steps["support_expert"], 0.2)
    (_, contrasted), (_, sharpened) = (bound[name](steps) for name in bound)
    entropies = [contrast.weights_entropy_nats(w.double()) for w in (contrasted, sharpened)]
    assert (entropies[0] - entropies[1]).abs().max() < 1e-6
    assert (sharpened[~mask] == 0).all()
    assert torch.equal(sharpened.argmax(-1), steps["support_expert"].argmax(-1))
    order = steps["support_expert"].masked_fill(~mask, -math.inf).argsort(-1, descending=True)
    assert (sharpened.gather(-1, order).diff(dim=-1) <= 0).all()
    alone = mask.sum(-1) == 1
    assert alone.any()
    assert torch.equal(sharpened[alone], contrasted[alone])


def test_the_exponent_for_an_entropy_worked_by_hand():
    # p^2 of (2/3, 1/3) is (4/5, 1/5) after normalization.
    log_probs, mask = torch.tensor([[2 / 3, 1 / 3]]).log(), torch.ones(1, 2, dtype=torch.bool)
    entropy = -torch.tensor([0.8 * math.log(0.8) + 0.2 * math.log(0.2)])
    result = contrast.with_entropy(log_probs, mask, entropy)
    torch.testing.assert_close(result, torch.tensor([[0.8, 0.2]]))


def test_an_entropy_of_zero_gives_the_most_probable_token():
    log_probs = torch.tensor([[0.4, 0.3, 0.3], [0.400001, 0.399999, 0.2]]).log()
    result = contrast.with_entropy(log_probs, torch.ones(2, 3, dtype=torch.bool), torch.zeros(2))
    torch.testing.assert_close(result, torch.tensor([[1.0, 0, 0]] * 2))


def test_permuting_keeps_the_values_and_moves_only_plausible_tokens():
    steps = random_table()
    once = permute_plausible(steps, 0.2, seed=3)
    mask = contrast.plausible(steps["support_expert"], 0.2)
    assert torch.equal(once[~mask], steps["support_amateur"][~mask])
    assert torch.equal(once.sort(-1).values, steps["support_amateur"].sort(-1).values)


def test_every_permutation_of_a_mask_is_equally_likely_whatever_the_other_positions():
    rows = 3000
    steps = table([[0.4, 0.3, 0.29, 0.01]] * rows, [[0.4, 0.3, 0.2, 0.1]] * rows)
    permuted = permute_plausible(steps, 0.2, seed=0)
    orders = Counter(tuple(row) for row in permuted[:, :3].argsort().tolist())
    assert len(orders) == 6
    assert min(orders.values()) > 400  # of 500 expected
    part = {name: column[7:9] for name, column in steps.items()}
    assert torch.equal(permute_plausible(part, 0.2, seed=0), permuted[7:9])
    assert not torch.equal(permute_plausible(steps, 0.2, seed=1), permuted)


def test_the_permuted_label_is_the_contrast_with_the_permuted_amateur():
    steps = table()
    amateur = permute_plausible(steps, 0.2, seed=0)[0, :3].exp().tolist()
    expected = normalized(*(e / a for e, a in zip(EXPERT[:3], amateur, strict=True)))
    assert label("permuted_amateur") == expected


def test_entropy_loss_has_the_gradient_of_both_factors():
    logits = torch.tensor([[0.3, -1.0, 2.0]], dtype=torch.float64, requires_grad=True)
    empty = torch.empty(1, 0)
    loss = method(target="none", loss="entropy_min").loss(
        logits.log_softmax(-1), empty.long(), empty
    )
    loss.sum().backward()
    probs = logits.detach().softmax(-1)
    entropy = -(probs * probs.log()).sum()
    torch.testing.assert_close(loss, entropy[None])
    # dH / dz_k = -p_k (log p_k + H)
    torch.testing.assert_close(logits.grad, -probs * (probs.log() + entropy))


def test_a_uniform_amateur_differs_most_where_the_expert_is_surest():
    steps = {
        "index": torch.zeros(4).numpy(),
        "step": torch.arange(4).numpy(),
        "token_id": torch.zeros(4).numpy(),
        "kl": torch.tensor([0.5, 0.1, 0.9, 0.2]).numpy(),  # two above beta
        "expert_entropy": torch.tensor([0.3, 0.0, 1.2, 0.2]).numpy(),
    }
    keep = method(select="kl_to_uniform_top").select(steps)
    assert keep.tolist() == [False, True, False, True]


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"target": "extrapolation", "parameters": {"lambda": 0.9}}, r"method\.lambda=0\.9 .*\[1,"),
        ({"parameters": {"mix": 0}}, r"method\.mix=0 .*\(0, 1\]"),
        ({"parameters": {"clip": -1}}, r"method\.clip=-1"),
        ({"target": "none", "loss": "kl"}, "needs a target"),
    ],
)
def test_an_invalid_control_names_its_key(choices, message):
    with pytest.raises(UserError, match=message):
        method(**choices)


def test_all_sampled_answers_have_the_same_parameters():
    """One function declares them; a choice that is `like` it can have others too."""
    names = ("expert_sampled", "expert_verified", "expert_formatted_wrong")
    found = [method(trajectories=name, parameters={"samples": 3}) for name in names]
    assert {one.parameters["samples"] for one in found} == {3}
    assert len({frozenset(one.parameters) for one in found}) == 1
    more = method(trajectories="expert_formatted").parameters
    assert more.keys() - found[0].parameters == {"last_sentence", "boxed"}
    with pytest.raises(UserError, match=r"method\.samples=0 .*\[1,"):
        method(trajectories="expert_verified", parameters={"samples": 0})


# Answers that end and have a box ------------------------------------------------------------------

ANSWERS = [
    ("a", r"One. Two\nThus 2 is \boxed{2}.", True),
    ("a", r"So \boxed{1}! It is \fbox{3}", True),
    ("b", r"\boxed{4}", False),
]


def test_only_the_sentence_with_the_last_box_is_learned(tmp_path):
    source, out = tmp_path / "all", tmp_path / "chosen"
    source.mkdir()
    out.mkdir()
    answers = [(name, text.replace(r"\n", "\n"), ends) for name, text, ends in ANSWERS]
    write_answers(source, answers)
    tokenizer = tiny_tokenizer()
    options = {"samples": 3, "last_sentence": True}
    facts = keep_chosen(source, tokenizer, lambda *_: True, out, **options)
    assert facts == {"answers": 2, "drawn": 3, "right": 2, "solved": 1}
    rows = [*read_shards(out)]
    learned = [tokenizer.decode(row["token_ids"], skip_special_tokens=True) for row in rows]
    assert learned == [r"Thus 2 is \boxed{2}.", r"It is \fbox{3}"]
    for row, (_, text, _) in zip(rows, answers, strict=False):
        read = tokenizer.decode(row["prompt_ids"][2:])
        assert read + tokenizer.decode(row["token_ids"], skip_special_tokens=True) == text
    # The supervision reads the prefix and trains the sentence with its end token.
    kept = selected(out, None, method(select="all", target="token")).supervision.trajectories
    assert [len(one.steps) for one in kept] == [len(row["token_ids"]) for row in rows]


# Whole runs -------------------------------------------------------------------------------------

SMALL = ("stages=[sample,distill]", "data.count=12", "distiller.steps=2")


@pytest.mark.integration
def test_format_methods_learn_sampled_answers_with_a_box(program):
    words = ("experiment=micro_tables", *SMALL, "amateur.path=nowhere")
    every = summary_of(program(*words, "method=format_only"))["sample"]
    part = summary_of(program(*words, "method=format_tokens"))["sample"]
    wrong = summary_of(program(*words, "method=format_wrong"))["sample"]
    assert every["generated_tokens"] == part["generated_tokens"]
    assert every["kept"] == every["generated_tokens"]  # every answer ends with a box, repeats too
    assert 0 < part["kept"] < every["kept"]
    assert 0 < wrong["answers"] < every["answers"]


@pytest.mark.integration
def test_no_answer_to_learn_the_format_from_is_an_error(program):
    words = ("experiment=micro_tables", *SMALL, "method=format_only", "method.max_new_tokens=5")
    assert "none of the 48 sampled answers ends and has a box" in program(*words).error
    assert "none of the 48 sampled answers ends, so" in program(*words, "method.boxed=false").error
    both = ("method.boxed=false", "method.last_sentence=true")
    assert "needs method.boxed=true" in program(*words, *both).error


@pytest.mark.integration
def test_prompt_distillation_teaches_the_experts_other_prompt(tmp_path):
    words = (*SMALL, "method=prompt_distillation", "amateur.path=nowhere", "data.max_questions=4")
    summary = go(tmp_path, "run", *words)
    assert summary["amateur"] is None
    found = pq.read_table(summary["sample"]["artifact"] + "/supervision.parquet").to_pylist()
    tokenizer = build_tokenizer()
    starts = {tokenizer.decode(row["input_ids"][: row["prompt_length"]])[:9] for row in found}
    answers = {tokenizer.decode(row["input_ids"][row["prompt_length"] :])[:3] for row in found}
    assert len(found) == 4
    assert all("Question:" not in start for start in starts)  # the student's chat prompt
    assert "" not in answers
    assert summary["sample"]["kl_mean"] > 0  # the two prompts differ
    with pytest.raises(UserError, match=r"method\.teacher_prompt=chat gives the same prompts"):
        go(tmp_path, "same", *words, "method.teacher_prompt=chat", "evaluator.system_prompt=''")


PRIVILEGED = (*SMALL, "method=privileged_expert", "amateur.path=nowhere", "data.max_questions=null")
CONTEXT = 'method.expert_context="{question}\\n{solution}"'


def solved(tmp_path, **changed) -> list[str]:
    """The overrides of a run on one question, whose solution has words of no prompt and answer."""
    row = {
        "question": "Tom has 47 pens. Tom buys 38 more. Then Tom finds 12 more. How many pens does"
        " Tom have?",
        "answer": "97",
        "solution": "A box holds  extra Kim puts in Kim\n\\boxed{97}",
        **changed,
    }
    path = write_lines(tmp_path / "questions.jsonl", [row])
    return [*PRIVILEGED, "data=jsonl", f"data.path={path}", "data.answer=number"]


@pytest.mark.integration
def test_the_student_of_a_privileged_expert_never_reads_the_solution(tmp_path):
    words = ("method.select=all", "method.a=1", "method.b=0", "data.count=null", CONTEXT)
    summary = go(tmp_path, "run", *solved(tmp_path), *words)
    tokenizer = build_tokenizer()
    (trained,) = Supervision.load(Path(summary["sample"]["artifact"])).trajectories
    (rollout,) = (tmp_path / "store" / "rollout").glob("*/*.parquet")
    (answer,) = pq.read_table(rollout).to_pylist()
    # The prefixes are those of the expert's own answer to the question alone ...
    assert trained.input_ids == [*answer["prompt_ids"], *answer["token_ids"][:-1]]
    solution = {*tokenizer("A box holds  extra Kim puts in ")["input_ids"]} - {
        tokenizer.unk_token_id
    }
    assert not solution & {*trained.input_ids}
    # ... while the expert has read the solution: its labels are not those without it.
    (privileged,) = (tmp_path / "store" / "privileged").glob("*/*.parquet")
    (row,) = pq.read_table(privileged).to_pylist()
    assert solution <= {*row["prompt_ids"]}
    assert row["token_ids"] == answer["token_ids"]
    assert summary["sample"]["kl_mean"] > 0.1
    assert (summary["amateur"], summary["sample"]["steps"]) == (None, len(answer["token_ids"]))


@pytest.mark.parametrize(
    ("row", "words", "message"),
    [
        ({"solution": None}, [CONTEXT], r"needs human solutions, but question .* has none"),
        (
            {},
            ["method.expert_context=Solve"],
            r"method\.expert_context='Solve' has no \{solution\}",
        ),
        ({"solution": "8" * 200}, [CONTEXT], r"tokens, but the expert reads 256: lower"),
    ],
)
def test_a_privileged_expert_without_a_usable_solution_is_an_error(tmp_path, row, words, message):
    with pytest.raises(UserError, match=message):
        go(tmp_path, "run", *solved(tmp_path, **row), "data.count=null", *words)


def test_braces_in_a_question_are_not_fields_of_the_context(tmp_path):
    text = "Tom has {solution} 47 pens?"
    go(tmp_path, "run", *solved(tmp_path, question=text), "data.count=null", CONTEXT)
    (path,) = (tmp_path / "store" / "privileged").glob("*/*.parquet")
    (row,) = pq.read_table(path).to_pylist()
    boxed = build_tokenizer().convert_tokens_to_ids("\\boxed{")
    assert row["prompt_ids"].count(boxed) == 1  # the solution is there once


GAP = Gap(
    decoder="greedy",
    expert={"micro_add": Result(accuracy=0.9, correct=900, total=1000)},
    amateur={"micro_add": Result(accuracy=0.1, correct=100, total=1000)},
)


@pytest.mark.parametrize("gap", [None, GAP])
def test_labels_that_keep_the_experts_order_are_no_reason_to_change_the_amateur(gap):
    sample = SampleSummary(steps=10_000, kept=1_000, choice=500, moving_of_kept=0.0)
    of = {
        name: _pair_warnings(method(target=target, parameters=parameters), sample, gap)
        for name, target, parameters in (
            ("contrast", "contrast", {}),
            ("expert", "contrast", {"b": 0}),
            ("sharpened", "sharpened", {}),
        )
    }
    assert [len(found) for found in of.values()] == [1, 0, 0]
    assert "labels hardly move the expert" in of["contrast"][0]
    prompted = method(trajectories="expert_prompted", parameters={"teacher_prompt": "plain"})
    assert _pair_warnings(prompted, sample, gap) == []


def test_a_mask_of_one_token_everywhere_is_a_warning():
    alone = SampleSummary(steps=10_000, kept=1_000, choice=0, moving=0)
    (warning,) = _pair_warnings(method(target="contrast"), alone)
    assert "no other token is plausible" in warning
    assert _pair_warnings(method(target="token"), alone) == []  # the target has no mask
    second = alone.model_copy(update={"moving": 100})  # one token each, but not the expert's
    assert _pair_warnings(method(target="runner_up"), second) == []
