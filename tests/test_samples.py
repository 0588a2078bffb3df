"""Several samples of each question: avg@k, pass@k, maj@k and coverage, worked by hand."""

import json
from pathlib import Path

import pytest

from lr_exp.config.settings import EvaluatorSettings
from lr_exp.data.questions import Question
from lr_exp.evaluator.grade import grade_all
from lr_exp.evaluator.votes import with_votes
from lr_exp.pipeline import evaluating
from lr_exp.report.analyse.paired import wilson
from lr_exp.report.analyse.rows import sweeps
from lr_exp.report.analyse.samples import by_question, coverage, pass_at, sampled_result
from lr_exp.report.build import build
from lr_exp.report.names import ABSENT
from lr_exp.report.page import run_page
from lr_exp.report.read.runs import find_runs
from lr_exp.report.read.summary import parse_summary
from lr_exp.report.tables.formats import csv_text
from lr_exp.report.tables.samples import samples_table
from lr_exp.report.terminal import summary_table
from tests.support.demo import go, skip_figures
from tests.support.files import read_lines
from tests.support.run_folders import SAMPLES, write_run

GREEDY = ("data.count=12", "benchmarks=[micro_add]", "evaluator.max_examples=6")
SAMPLED = ("evaluator.samples=4", "evaluator.temperature=1", *GREEDY)


def records(*questions: str) -> list[dict]:
    """Sampled answers, a word a question and a letter a sample: equal letters are equal answers,
    capital letters are correct, and `-` is no answer."""
    return [
        {"correct": letter.isupper(), "vote": None if letter == "-" else letters.index(letter)}
        for letters in questions
        for letter in letters
    ]


def result_of(*questions: str, counts: tuple[int, ...] = (1, 2, 4)):
    return sampled_result(by_question(records(*questions), len(questions[0])), counts)


@pytest.mark.parametrize(
    ("correct", "expected"),
    [(0, (0, 0, 0)), (1, (1 / 4, 1 / 2, 1)), (2, (1 / 2, 5 / 6, 1)), (4, (1, 1, 1))],
)
def test_pass_at_k_is_the_share_of_draws_without_replacement(correct, expected):
    """One of two is correct: 1 - C(3, 2) / C(4, 2) = 1 / 2, and 1 - C(2, 2) / C(4, 2) = 5 / 6."""
    assert tuple(pass_at(4, correct, count) for count in (1, 2, 4)) == pytest.approx(expected)


def test_shares_are_means_over_questions():
    """0, 1 and 2 of 4 samples are correct."""
    found = result_of("abca", "aBcc", "BaBc")
    assert found.avg.share == pytest.approx(1 / 4)
    assert {k: one.share for k, one in found.pass_at.items()} == pytest.approx(
        {"1": 1 / 4, "2": (1 / 2 + 5 / 6) / 3, "4": 2 / 3}
    )
    assert found.maj.share == pytest.approx(1 / 3)
    assert {one.total for one in found.by_name.values()} == {3}
    assert [*found.by_name] == ["avg_at_4", "pass_at_1", "pass_at_2", "pass_at_4", "maj_at_4"]
    # Shares of 0, 1/4 and 1/2 have a variance of 1/24: the mean's is 1/72.
    assert found.avg.stderr == pytest.approx((1 / 72) ** 0.5)


def test_intervals_have_questions_as_their_unit_and_never_a_width_of_0():
    """Wilson's at 0 of 2 is 0 to z^2 / (2 + z^2), where z^2 = 3.8416."""
    none, every = result_of("aaaa", "bbbb"), result_of("AAAA", "AAAA")
    for low, high in zip(none.by_name.values(), every.by_name.values(), strict=True):
        assert low.ci95 == pytest.approx([0, 3.8416 / 5.8416])
        assert high.ci95 == pytest.approx([2 / 5.8416, 1])
    # Values of 0 and 1: two questions, whatever was sampled. Wilson's at 1 of 2.
    assert result_of("AAAA", "aaaa").avg.ci95 == pytest.approx([0.09453, 0.90547], abs=1e-5)
    # Equal shares have no spread, which does not make them exact: two questions, too.
    assert result_of("AaAa", "AaAa").avg.ci95 == pytest.approx([0.09453, 0.90547], abs=1e-5)
    # Equal thirds have one by rounding alone. Five questions, not 15 samples.
    thirds = result_of(*["Aaa"] * 5, counts=(3,)).avg
    assert thirds.ci95 == pytest.approx([*wilson(1 / 3, 5)])
    # 1/4 and 3/4: the mean's variance is 1/32, that of 0.25 / (1/32) = 8 answers.
    # Wilson's for a share of 0.5 is 0.5 ± 1.96 / (2 sqrt(n + z^2)).
    half = 1.96 / (2 * (8 + 3.8416) ** 0.5)
    assert result_of("Aaaa", "AAAa").avg.ci95 == pytest.approx([0.5 - half, 0.5 + half])
    # 1/4 and 1/2: 30 answers by their spread, 0.234375 / (1/128), but there are only 8.
    low, high = result_of("Aaaa", "AAaa").avg.ci95
    assert high - low == pytest.approx(
        2 * 1.96 / (1 + 3.8416 / 8) * (0.375 * 0.625 / 8 + 3.8416 / 256) ** 0.5
    )


@pytest.mark.parametrize(
    ("answers", "is_correct"),
    [
        ("aBBa", False),  # a tie: the first answer counts
        ("BaaB", True),
        ("aBcB", True),
        ("--B-", True),  # an answer without a vote does not count
        ("aa-B", False),
        ("----", False),
    ],
)
def test_the_most_frequent_answer_is_the_majority(answers, is_correct):
    assert result_of(answers).maj.share == is_correct


def votes(kind: str, reference: str, *outputs: str) -> list[int | None]:
    question = Question("q/0", "What?", answer=reference, choices=("x", "y", "z"))
    answers = [
        {"question_id": "q/0", "output": output, "tokens": 1, "finished": True}
        for output in outputs
    ]
    graded = grade_all([question] * len(outputs), answers, kind)
    return [one["vote"] for one in with_votes(graded, len(outputs))]


def test_equal_answers_have_one_vote_whatever_their_notation():
    """A right answer in two notations must not win because only the reference joins notations."""
    boxed = [f"\\boxed{{{answer}}}" for answer in ("\\frac{1}{2}", "3", "0.5", "3.0", "0.50")]
    assert votes("math", "3", *boxed) == [0, 1, 0, 1, 0]
    assert votes("math", "7", *boxed) == [0, 1, 0, 1, 0]
    assert votes("number", "7", "It is 1,200.", "nothing", "\\boxed{1200}") == [0, None, 0]
    assert votes("choice", "A", "\\boxed{B}", "\\boxed{A}", "\\boxed{b}") == [0, 1, 0]


def test_an_answer_that_cannot_be_a_reference_votes_with_its_own_text():
    assert votes("number", "7", "\\boxed{x}", "\\boxed{y}", "\\boxed{x}", "\\boxed{7}") == [
        0,
        1,
        0,
        3,
    ]


def test_votes_are_counted_within_a_question():
    question = [Question(f"q/{n}", "What?", answer="3") for n in (0, 0, 1, 1)]
    outputs = [
        {"question_id": one.id, "output": "\\boxed{4}", "tokens": 1, "finished": True}
        for one in question
    ]
    assert [one["vote"] for one in with_votes(grade_all(question, outputs, "number"), 2)] == [
        0,
        0,
    ] * 2


def test_coverage_counts_questions_that_were_wrong_before():
    """Of those won, 1 of 2 has a correct sample; of those that stay wrong, 2 of 3."""
    before = [{"correct": letter == "1"} for letter in "0000011"]
    after = [{"correct": letter == "1"} for letter in "1100010"]
    sampled = by_question(records("aA", "ab", "aA", "Aa", "aa", "AA", "aA"), 2)
    found = coverage(before, after, sampled)
    assert found.to_dict() == {
        "won": 2,
        "had_right": 1,
        "both_wrong": 3,
        "both_wrong_had_right": 2,
    }


def test_pass_at_is_measured_for_powers_of_two_and_always_for_all_samples():
    def counts(samples: int, *chosen: int) -> list[int]:
        temperature = float(samples > 1)
        return EvaluatorSettings(
            samples=samples, temperature=temperature, pass_at=[*chosen]
        ).pass_at_counts

    assert counts(8) == [1, 2, 4, 8]
    assert counts(6) == [1, 2, 4, 6]
    assert counts(1) == counts(1, 1) == [1]
    assert counts(8, 5) == [5, 8]


def test_the_table_has_pass_at_k_of_the_untuned_beside_pass_at_1_of_the_tuned(tmp_path):
    write_run(tmp_path / "0", evaluate__samples=SAMPLES)
    untuned = {key: SAMPLES[key] for key in ("samples", "temperature", "expert")}
    write_run(tmp_path / "1", seed=1, evaluate__samples={**untuned, "samples": 8})
    write_run(tmp_path / "2", seed=2)
    (sweep,) = sweeps(find_runs(tmp_path))
    table = samples_table(sweep, "name")
    assert table is not None
    assert [column.title for column in table.columns] == [
        *("variant", "benchmark", "seed", "T"),
        *(f"untuned {name}" for name in ("greedy", "avg@8", "pass@8", "maj@8")),
        *(f"tuned {name}" for name in ("greedy", "avg@8", "pass@8", "maj@8")),
        *("won, covered", "both wrong, covered"),
    ]
    first, second = (row[1:] for row in table.rows)
    assert first[:3] == ["micro_add", "0", "0.7"]
    assert first[3].startswith("25.0 ± ")  # 1 of 4
    assert first[4:7] == ["30.0 ± 20.0", "70.0 ± 20.0", "25.0 ± 20.0"]
    assert first[7].startswith("75.0 ± ")
    assert first[8:] == [
        "50.0 ± 20.0",
        "80.0 ± 20.0",
        "60.0 ± 20.0",
        "1 of 2 (50 %)",
        "0 of 1 (0 %)",
    ]
    assert second[3:7] == first[3:7]
    assert second[7] == first[7]
    assert second[8:] == [ABSENT] * 5
    assert "can be luck" in table.notes[0]
    record = table.records[0]
    assert (record["k"], record["temperature"], record["untuned_pass_at_1"]) == (8, 0.7, 30.0)
    assert (record["tuned_pass_at_8_low"], record["had_right"]) == (60.0, 1)
    assert "untuned_maj_at_8_stderr" in csv_text(table).partition("\n")[0]


def test_the_report_and_the_page_show_the_table(tmp_path):
    folder = write_run(tmp_path / "run", evaluate__samples=SAMPLES)
    with pytest.MonkeyPatch.context() as patch:
        skip_figures(patch)
        page = run_page(folder, find_runs(folder))
        report = build(tmp_path)
    assert "won, covered" in page
    assert "1 of 2 (50 %)" in report.files["report.html"].decode()
    assert "results_samples.tex" in report.files
    line = "untuned pass@8 70.0 %, a correct one for 1 of 2 (50 %) questions won"
    summary = parse_summary(json.loads((folder / "summary.json").read_text("utf-8")))
    assert line in " ".join(summary_table(summary).split())


def test_without_samples_nothing_mentions_them(tmp_path):
    folder = write_run(tmp_path / "run")
    (sweep,) = sweeps(find_runs(tmp_path))
    assert samples_table(sweep, "name") is None
    summary = parse_summary(json.loads((folder / "summary.json").read_text("utf-8")))
    assert "pass@8" not in summary_table(summary)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """The folder and the summary of a run with four samples a question."""
    place = tmp_path_factory.mktemp("measured")
    return place, go(place, "run", *SAMPLED)


def graded(place: Path, who: str) -> list[dict]:
    return read_lines(place / "run" / "answers" / who / "micro_add.jsonl")


@pytest.mark.integration
def test_the_summary_is_true_to_the_sampled_answers(measured):
    place, summary = measured
    assert summary["evaluate"]["generated"] == ["micro_add"]
    found = summary["evaluate"]["samples"]
    assert [*found] == ["samples", "temperature", "expert", "tuned", "coverage", "seconds"]
    drawn = {}
    for who in ("expert", "tuned"):
        lines = graded(place, f"{who}_samples")
        ids = [line["id"] for line in graded(place, who)]
        assert [line["id"] for line in lines] == [one for one in ids for _ in range(4)]
        assert len({line["output"] for line in lines}) > len(ids)  # not one answer repeated
        drawn[who] = [
            [line["correct"] for line in lines[start : start + 4]] for start in range(0, 24, 4)
        ]
        own = found[who]["micro_add"]
        right = sum(map(sum, drawn[who]))
        assert own["avg"]["share"] == pytest.approx(right / 24)
        assert [*own["pass_at"]] == ["1", "2", "4"]
        assert own["pass_at"]["1"]["share"] == pytest.approx(right / 24)
        assert own["pass_at"]["4"]["share"] == pytest.approx(sum(map(any, drawn[who])) / 6)
        assert own["maj"]["total"] == 6
        logged = [
            line["pass_at_4"]
            for line in read_lines(place / "run" / "metrics.jsonl")
            if line["family"] == "eval/micro_add"
            and "pass_at_4" in line
            and line["step"] == (8 if who == "tuned" else 0)
        ]
        assert logged == [own["pass_at"]["4"]["share"]]
    before, after = (
        [line["correct"] for line in graded(place, who)] for who in ("expert", "tuned")
    )
    covered = found["coverage"]["micro_add"]
    won = [
        any(own) for own, b, a in zip(drawn["expert"], before, after, strict=True) if a and not b
    ]
    missed = [
        any(own) for own, b, a in zip(drawn["expert"], before, after, strict=True) if not (a or b)
    ]
    assert covered == {
        "won": len(won),
        "had_right": sum(won),
        "both_wrong": len(missed),
        "both_wrong_had_right": sum(missed),
    }
    assert covered["won"] == summary["evaluate"]["gains"]["micro_add"]["same_prompt"]["won"]


@pytest.mark.integration
def test_a_second_run_reuses_the_samples_and_another_draw_has_its_own_address(
    measured, monkeypatch
):
    """The greedy answers are the same in all of them."""
    place, summary = measured
    drawn = []
    generate = evaluating.answer.answer

    def counted(*arguments, **settings):
        drawn.append(settings["sampling"].samples)
        return generate(*arguments, **settings)

    monkeypatch.setattr(evaluating.answer, "answer", counted)
    again = go(place, "again", *SAMPLED)
    assert drawn == []
    assert again["evaluate"]["samples"] == summary["evaluate"]["samples"]
    one = go(place, "one", *GREEDY)
    assert "samples" not in one["evaluate"]
    for who in ("expert", "tuned"):
        assert one["evaluate"][who] == summary["evaluate"][who]
    assert drawn == []
    words = (*GREEDY, "stages=[evaluate]")
    go(place, "pass", *words, *SAMPLED[:2], "evaluator.pass_at=[3]")
    assert drawn == []
    for other in (
        ("evaluator.samples=4", "evaluator.temperature=0.5"),
        ("evaluator.samples=2", "evaluator.temperature=1"),
        (*SAMPLED[:2], "seed=1"),
    ):
        drawn.clear()
        found = go(place, "other", *words, *other)["evaluate"]["samples"]
        assert drawn == [found["samples"]]
        assert "tuned" not in found
        assert "coverage" not in found
