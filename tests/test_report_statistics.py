"""The report's statistics against numbers computed by hand and against scipy."""

import math

import numpy as np
import pytest
from scipy import stats

from lr_exp.report.analyse import paired
from lr_exp.report.analyse.paired import Estimate
from lr_exp.report.read.summary import Result


def _of(*seeds: str) -> np.ndarray:
    """`1101` is a seed's grades of four questions."""
    return np.array([[int(letter) for letter in seed] for seed in seeds], dtype=float)


def _result(correct: int, total: int) -> Result:
    return Result(accuracy=correct / total, correct=correct, total=total)


@pytest.mark.parametrize(
    ("won", "lost", "p"),
    [
        (1, 8, 2 * (1 + 9) / 2**9),  # 0.0390625
        (8, 1, 0.0390625),
        (0, 5, 2 / 2**5),
        (2, 3, 1.0),  # 2 (1 + 5 + 10) / 32
        (4, 4, 1.0),  # the tails share the middle, so p would exceed 1 without the limit
        (0, 0, 1.0),
        (1100, 800, stats.binomtest(800, 1900).pvalue),  # 2^n does not fit in a float
    ],
)
def test_mcnemar_is_exact(won, lost, p):
    assert paired.mcnemar(won, lost) == pytest.approx(p, rel=1e-12)


def test_errors_count_questions_and_seeds():
    one = paired.accuracy(_of("1110"))
    assert (one.mean, one.stderr) == (0.75, pytest.approx(math.sqrt(0.75 * 0.25 / 4)))
    # Questions' means 1, 0.5, 0.5, 0: variance 0.125 over 4 questions. Seeds' accuracies 0.75 and
    # 0.25: variance 0.125 over 2 seeds.
    two = paired.accuracy(_of("1110", "1000"))
    assert (two.mean, two.stderr) == (0.5, pytest.approx(math.sqrt(0.125 / 4 + 0.125 / 2)))
    # Without the graded answers, the error of the questions is bounded from above.
    bound = paired.accuracy_from_counts(_result(3, 4), _result(1, 4))
    assert (bound.mean, bound.question_variance) == (0.5, pytest.approx(0.25 / 4))
    assert bound.stderr > two.stderr


def test_average_weights_benchmarks_equally_and_pairs_their_seeds():
    small = Estimate((0.2, 0.4), 10, 0.01, (0.1, 0.5))
    large = Estimate((0.8, 0.6), 1000, 0.0001, (0.6, 0.8))
    average = paired.average([small, large])
    assert average.mean == pytest.approx(0.5)
    # Each seed's average is 0.5, so the seeds have no variance.
    assert average.stderr == pytest.approx(math.sqrt(0.0101) / 2)
    assert average.questions == 1010


def test_difference_is_paired_by_question():
    # Correct on the same questions: the difference has no error, though each accuracy has one.
    same = paired.difference(_of("1100"), _of("1100"))
    assert (same.mean, same.stderr) == (0.0, 0.0)
    # Differences 1, 1, 0, 0: variance 0.25 over 4 questions.
    better = paired.difference(_of("1110"), _of("0010"))
    assert (better.mean, better.stderr) == (0.5, pytest.approx(math.sqrt(0.25 / 4)))
    with pytest.raises(ValueError, match="2 seeds cannot be paired with 3"):
        paired.difference(_of("11", "10"), _of("11", "10", "00"))


def test_holm_multiplies_by_the_number_of_remaining_tests():
    # 3 x 0.01; 2 x 0.03; 1 x 0.04, which is not below the one before.
    assert paired.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert paired.holm([0.9, 0.001, 0.6]) == pytest.approx([1.0, 0.003, 1.0])
    assert paired.holm([0.2]) == [0.2]
    assert paired.holm([]) == []


def test_majority_needs_more_than_half_of_the_seeds():
    assert paired.majority(_of("110", "100")).tolist() == [True, False, False]
    assert paired.majority(_of("110", "100", "010")).tolist() == [True, True, False]
    # Ours by majority: 1 1 0; theirs: 0 1 1.
    assert paired.won_and_lost(_of("110", "100", "010"), _of("011")) == (1, 1)


def test_sign_flips_of_equal_differences_are_the_sign_test():
    # 8 questions up, 1 down, 20 unchanged: of 2^9 signs, 2 (1 + 9) are as far from even.
    differences = np.array([1.0] * 8 + [-1.0] + [0.0] * 20)
    p = paired.sign_flips(differences)
    assert p == pytest.approx(2 * 10 / 2**9, abs=0.006)
    assert paired.sign_flips(-differences) == paired.sign_flips(differences / 3) == p
    assert paired.sign_flips(np.zeros(5)) == 1.0
    assert paired.sign_flips(differences, seed=1) != p


def test_sign_flips_are_scipys_permutation_test():
    rng = np.random.default_rng(3)
    ours, theirs = rng.random((3, 40)) < 0.6, rng.random((2, 40)) < 0.4
    differences = ours.mean(axis=0) - theirs.mean(axis=0)
    expected = stats.permutation_test(
        (differences,), np.sum, permutation_type="samples", n_resamples=20_000, rng=1
    )
    assert paired.sign_flips(differences) == pytest.approx(expected.pvalue, abs=0.01)


def test_sign_flips_see_what_the_majority_of_seeds_hides():
    # One of three seeds learned all questions, the others none: no majority on any question.
    ours, theirs = _of("1" * 30, "0" * 30, "0" * 30), _of("0" * 30)
    assert paired.mcnemar(*paired.won_and_lost(ours, theirs)) == 1.0
    assert paired.sign_flips(ours.mean(axis=0) - theirs.mean(axis=0)) == 1 / 10_001


def test_wilson_interval_of_one_run():
    # p = 0.5, n = 4, z^2 = 3.8416: 0.5 ± 1.96 sqrt(0.0625 + 0.06) / 1.9604.
    assert paired.accuracy(_of("1100")).ci95 == pytest.approx((0.15004, 0.84996), abs=1e-5)
    low, high = stats.binomtest(7, 20).proportion_ci(0.95, "wilson")
    assert paired.accuracy_from_counts(_result(7, 20)).ci95 == pytest.approx((low, high), abs=1e-4)
    # 300 of 300: the lower end is n / (n + z^2); 0 of 300 mirrors it.
    right, wrong = (paired.accuracy(_of(one * 300)).ci95 for one in "10")
    assert right == pytest.approx((300 / 303.8416, 1.0))
    assert wrong == pytest.approx((0.0, 3.8416 / 303.8416))


def test_seeds_that_vary_widen_the_interval_and_three_have_a_t_interval():
    same, varied = (paired.accuracy(_of(*seeds)) for seeds in (["1100"] * 3, ["1110", "1000"]))
    assert same.ci95 == paired.accuracy(_of("1100")).ci95
    assert same.seeds_ci95 is None  # never a width of 0
    # Accuracies of 0.75 and 0.25 have a standard error of 0.25, and t is 12.7 with two seeds.
    assert varied.ci95 == (0.0, 1.0)
    three = Estimate((0.5, 0.6, 0.7), 10, 0.0, (0.5, 0.8), 0.0)
    interval = stats.t.interval(0.95, 2, 0.6, 0.1 / 3**0.5)
    assert three.seeds_ci95 == pytest.approx(interval, abs=1e-4)
    half = interval[1] - 0.6
    assert three.ci95 == pytest.approx(
        (0.6 - math.hypot(0.1, half), 0.6 + math.hypot(0.2, half)), abs=1e-4
    )


def test_the_seeds_part_of_an_average_counts_once_for_all_benchmarks() -> None:
    """A seed's adapter is the same on all benchmarks, so its effect does not average out."""
    one = Estimate((0.5, 0.6, 0.7), 10, 0.0, (0.5, 0.7), 0.0)
    average = paired.average([one, one])
    assert average.seeds_ci95 == one.seeds_ci95
    below = math.hypot(math.hypot(0.1, 0.1) / 2, 0.6 - (one.seeds_ci95 or (0, 0))[0])
    assert 0.6 - average.ci95[0] == pytest.approx(below)


@pytest.mark.parametrize("freedom", [1, 2, 9, 10, 14, 40])
def test_students_t(freedom: int) -> None:
    assert paired.student_t95(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), abs=3e-3)


def test_paired_interval_counts_won_and_lost_with_one_more_of_each():
    # won 3, lost 1 of 10: p = 4/12, q = 2/12, half = 1.96 sqrt((0.5 - 1/36) / 12).
    gain = paired.difference(_of("1110000000"), _of("0001000000"))
    half = 1.96 * math.sqrt((0.5 - 1 / 36) / 12)
    assert gain.mean == pytest.approx(0.2)
    assert gain.ci95 == pytest.approx((1 / 6 - half, 1 / 6 + half))
    # Two seeds: a question won by one of them counts half.
    seeds = paired.difference(_of("1110000000", "1110000000"), _of("0001000000"))
    assert seeds.ci95 == gain.ci95
    unchanged = paired.difference(_of("1" * 300), _of("1" * 300)).ci95
    assert unchanged == pytest.approx((-1.96 * 2**0.5 / 302, 1.96 * 2**0.5 / 302))
    assert paired.difference(_of("1"), _of("0")).ci95[1] == 1.0  # never above 1


def test_averages_and_unpaired_differences_add_squared_errors_and_distances():
    ours = Estimate((0.6, 0.8), 10, 0.02, (0.4, 0.9))
    theirs = Estimate((0.5,), 10, 0.03, (0.2, 0.8))
    found = paired.independent_difference(ours, theirs)
    assert found.mean == pytest.approx(0.2)
    assert found.stderr == pytest.approx(math.sqrt(0.02 + 0.03 + 0.02 / 2))
    one = Estimate((0.5,), 10, 0.01, (0.2, 0.6))
    other = Estimate((0.9,), 10, 0.01, (0.5, 1.0))
    average = paired.average([one, other])
    assert average.ci95 == pytest.approx((0.7 - 0.25, 0.7 + math.hypot(0.1, 0.1) / 2))
    gain = paired.independent_difference(other, one)
    assert gain.ci95 == pytest.approx((0.4 - math.hypot(0.4, 0.1), 0.4 + math.hypot(0.1, 0.3)))
