"""Forced answers, and the decomposition of a gain, worked by hand."""

import csv
import re

import pytest

from lr_exp.config.settings import EvaluatorSettings
from lr_exp.data.questions import Question
from lr_exp.errors import UserError
from lr_exp.evaluator import forcing
from lr_exp.inference.decoding import Decoded
from lr_exp.models.prompt_forms import Prompt, builtin_form
from lr_exp.report.__main__ import main as report
from lr_exp.report.analyse.decomposition import decompose, has_format
from lr_exp.report.analyse.paired import Estimate
from lr_exp.report.analyse.pooled import parts_of
from lr_exp.report.read.summary import Decomposition, EvaluateSummary
from lr_exp.report.tables.decomposition import in_words, latent_share
from tests.support.html_page import Page
from tests.support.run_folders import write_run
from tests.support.tiny import TURN_END, load_folder, tiny_model

TEXT = "\nThe final answer is \\boxed{"


def graded(*kinds: str) -> list[dict]:
    """Graded answers; a letter each: S strict, w wrong in a box, u unboxed, c cut off (capital
    letters are correct)."""
    return [
        {
            "id": f"q/{number}",
            "correct": kind.isupper(),
            "rule": "last" if kind in "uU" else "box",
            "finished": kind not in "cC",
        }
        for number, kind in enumerate(kinds)
    ]


def forced(lines: list[dict], *right: int) -> list[dict]:
    """Forced answers to the questions that need them; `right` are numbers of questions."""
    numbers = [number for number, line in enumerate(lines) if not has_format(line)]
    return [{"id": f"q/{number}", "correct": number in right} for number in numbers]


def evaluation(found: Decomposition, *, cut_off: tuple[int, int] = (0, 0)) -> EvaluateSummary:
    """A run's, on one benchmark of 10 questions."""
    results = [
        {"g": {"accuracy": 0.5, "correct": 5, "total": 10, "truncated": count}} for count in cut_off
    ]
    gains = {"same_prompt": found.strict.to_dict(), "decomposition": found.to_dict()}
    keys = {"expert": results[0], "tuned": results[1], "gains": {"g": gains}}
    return EvaluateSummary.model_validate(keys)


def shown(found: Decomposition) -> tuple[Estimate, Estimate]:
    parts = parts_of([evaluation(found)])["g"]
    return parts.strict, parts.latent


def test_a_gain_that_is_only_format_has_no_latent_part():
    """The untuned model had the answers all along: it did not box them, or was cut off."""
    before, after = graded("U", "u", "c", "w", "S"), graded("S", "S", "S", "w", "S")
    found = decompose((before, forced(before, 0, 1, 2)), (after, []))
    assert (found.strict.gain, found.strict.won, found.strict.lost) == (0.6, 3, 0)
    assert (found.latent.gain, found.latent.won, found.latent.lost) == (0, 0, 0)
    assert (found.format.gain, found.format.won) == (0.6, 3)
    assert found.won_from == {"unboxed": 2, "cut off": 1}
    assert found.lost_to == {}
    # p = 4 / 7, q = 1 / 7: p - q = 0.4286, and 1.96 sqrt((5 / 7 - 0.4286^2) / 7) = 0.5397
    assert found.strict.ci95 == pytest.approx([-0.1111, 0.9683], abs=1e-4)
    assert latent_share(*shown(found)) is None  # the interval includes 0


def test_a_gain_that_is_only_skill_has_no_format_part():
    before, after = graded(*"wwwwwwwwwwSS"), graded(*"SSSSSSSSSSuw")
    found = decompose((before, []), (after, forced(after)))
    assert found.strict.gain == found.latent.gain == pytest.approx(8 / 12)
    assert (found.format.gain, found.format.won, found.format.lost) == (0, 0, 0)
    assert (found.strict.won, found.strict.lost) == (10, 2)
    assert found.won_from == {"other answer": 10}
    assert found.lost_to == {"unboxed": 1, "other answer": 1}
    assert latent_share(*shown(found)) == pytest.approx(100)


def test_the_parts_add_up_where_they_have_opposite_signs():
    before, after = graded(*"wuuS"), graded(*"SCcS")
    found = decompose((before, forced(before, 1)), (after, forced(after, 1, 2)))
    assert found.strict.gain == 0.25  # question 0
    assert found.latent.gain == 0.5  # questions 0 and 2
    assert found.format.gain == -0.25
    assert (found.format.won, found.format.lost) == (0, 1)


def test_the_parts_of_several_seeds_are_pooled_and_said_in_words():
    """Seeds gain 1 and 0.8 strictly, of which 0.8 and 0.6 are latent."""
    before = graded(*"uuwwwwwwww")
    forced_before = forced(before, 0, 1)
    after = [graded(*"SSSSSSSSSS"), graded(*"SSSSSSSScw")]
    made = [decompose((before, forced_before), (one, forced(one))) for one in after]
    evaluations = [
        evaluation(one, cut_off=(2, count)) for one, count in zip(made, (0, 1), strict=True)
    ]
    (parts,) = parts_of(evaluations).values()
    assert parts.strict.by_seed == pytest.approx((1, 0.8))
    assert parts.latent.by_seed == pytest.approx((0.8, 0.6))
    assert parts.format.by_seed == pytest.approx((0.2, 0.2))
    assert parts.cut_off == pytest.approx((0.2, 0.05))
    assert parts.won_from == {"unboxed": 4, "other answer": 14}
    assert parts.strict.seeds_ci95 == pytest.approx((0.9 - 1.2706, 0.9 + 1.2706), abs=1e-4)
    # One run alone, with q = 1 / 12: strict p = 11 / 12, 1.96 sqrt((12 / 12 - 0.8333^2) / 12) =
    # 0.3128; latent p = 9 / 12, 1.96 sqrt((10 / 12 - 0.6667^2) / 12) = 0.3529; format p = 3 / 12,
    # 1.96 sqrt((4 / 12 - 0.1667^2) / 12) = 0.3128.
    (alone,) = parts_of(evaluations[:1]).values()
    assert alone.latent.ci95 == pytest.approx((0.3138, 1.0), abs=1e-4)
    assert in_words(alone) == (
        "Of the strict gain of +100.0 (+52.1 to +100.0) points, +80.0 (+31.4 to +100.0) are latent "
        "and +20.0 (-14.6 to +47.9) format; 0 is in the interval of the format part."
    )


def test_the_table_has_one_row_per_variant_and_benchmark_over_its_seeds(tmp_path):
    before, after = graded(*"uwww"), graded(*"SSSw")
    made = decompose((before, forced(before, 0)), (after, [])).to_dict()
    gains = {"same_prompt": made["strict"], "decomposition": made}
    for seed in range(3):
        write_run(
            tmp_path / f"run {seed}",
            seed=seed,
            before={"micro_add": [0] * 4, "micro_long": [0] * 4},
            after={"micro_add": [1, 1, 1, 0], "micro_long": [1, 1, 1, 0]},
            evaluate__gains={"micro_add": gains, "micro_long": gains},
        )
    assert report([str(tmp_path)]) == 0
    with (tmp_path / "report" / "results_decomposition.csv").open(encoding="utf-8") as file:
        rows = {row["benchmark"]: row for row in csv.DictReader(file)}
    assert [*rows] == ["micro_add", "micro_long", "AVG"]
    assert {(row["strict"], row["latent"], row["format"]) for row in rows.values()} == {
        ("75.0", "50.0", "25.0")
    }
    assert [(row["n"], row["seeds"]) for row in rows.values()] == [("4", "3")] * 2 + [("8", "3")]
    page = Page((tmp_path / "report" / "report.html").read_text("utf-8"))
    assert re.search(r"micro_add [^+]*\+75.0 ", page.words)
    assert re.search(r"micro_add [^+]* 4 3 ", page.words)  # in the table's second part


@pytest.mark.parametrize(
    ("kind", "needs"), [("S", False), ("w", False), ("U", True), ("u", True), ("C", True)]
)
def test_answers_that_were_cut_off_or_have_no_box_are_forced(kind, needs):
    (one,) = graded(kind)
    assert has_format(one) != needs


def test_the_text_follows_the_answer_and_is_read_up_to_the_matching_brace(tmp_path):
    model = load_folder(tiny_model(tmp_path / "models"))
    encode = model.tokenizer.encode
    questions = [Question("q/0", "2+2?", "4"), Question("q/1", "1/2?", r"\frac{1}{2}")]
    answers = [encode(f"It is four.{TURN_END}"), encode("Let us think")]
    asked = []

    def generate(requests):
        asked.extend(model.tokenizer.decode(request.prompt) for request in requests)
        assert {request.max_new_tokens for request in requests} == {32}
        texts = {True: r"\frac{1}{2}}. So \boxed{3}", False: "4}, and not 5}"}
        return [
            Decoded(encode(texts["1/2?" in model.tokenizer.decode(one.prompt)]), finished=True)
            for one in requests
        ]

    forcing.force(
        questions,
        answers,
        model,
        tmp_path,
        name="test",
        prompt=Prompt(form=builtin_form("plain")),
        forced_text=TEXT,
        batch_size=2,
        generate=generate,
    )
    assert sorted(asked) == [
        f"Question: 1/2?\nAnswer:Let us think{TEXT}",
        f"Question: 2+2?\nAnswer:It is four.{TEXT}",  # without the stop token
    ]
    found = forcing.grade_forced(questions, tmp_path, "math")
    assert [one["text"] for one in found] == [f"{TEXT}4}}", TEXT + r"\frac{1}{2}}"]
    assert all(one["correct"] for one in found)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("One step.\nSo it is 3", "One step."),
        ("One step\n\n", "One step"),
        ("It has 3.5 m. Then it", "It has 3.5 m."),
        ("It has 3.5 m", "It has 3.5 m"),  # no end: nothing is lost
        ("\nSo it", "\nSo it"),
        ("", ""),
    ],
)
def test_a_cut_answer_loses_its_incomplete_sentence(tmp_path, text, kept):
    tokenizer = load_folder(tiny_model(tmp_path / "models")).tokenizer
    found = forcing.complete_part(tokenizer, tokenizer.encode(text))
    assert tokenizer.decode(found) == kept


def test_a_box_that_is_not_closed_is_no_answer(tmp_path):
    model = load_folder(tiny_model(tmp_path / "models"))
    question = Question("q/0", "2+2?", "4")
    forcing.force(
        [question],
        [[]],
        model,
        tmp_path,
        name="test",
        prompt=Prompt(),
        forced_text=TEXT,
        batch_size=1,
        generate=lambda _: [Decoded(model.tokenizer.encode("4"), finished=False)],
    )
    (one,) = forcing.grade_forced([question], tmp_path, "math")
    assert not one["correct"]


def test_a_forced_text_without_an_open_box_is_an_error():
    with pytest.raises(UserError, match=r"evaluator\.forced_text must end in \\boxed{"):
        EvaluatorSettings(forced_text="The answer is")
