"""The report's statistics against numbers computed by hand and against scipy."""

import math

import numpy as np
import pytest
from scipy import stats

from lr_exp.report.analyse import paired
from lr_exp.report.analyse.paired import Estimate


def _of(*seeds: str) -> np.ndarray:
    """`1101` is a seed's grades of four questions."""
    return np.array([[int(letter) for letter in seed] for seed in seeds], dtype=float)


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
def test_mcnemar_is_exact(won: int, lost: int, p: float) -> None:
    assert paired.mcnemar(won, lost) == pytest.approx(p, rel=1e-12)


def test_errors_count_questions_and_seeds() -> None:
    one = paired.accuracy(_of("1110"))
    assert (one.mean, one.stderr) == (0.75, pytest.approx(math.sqrt(0.75 * 0.25 / 4)))
    # Questions' means 1, 0.5, 0.5, 0: variance 0.125 over 4 questions. Seeds' accuracies 0.75 and
    # 0.25: variance 0.125 over 2 seeds.
    two = paired.accuracy(_of("1110", "1000"))
    assert (two.mean, two.stderr) == (0.5, pytest.approx(math.sqrt(0.125 / 4 + 0.125 / 2)))
    # Without the graded answers, the error of the questions is bounded from above.
    bound = paired.accuracy_from_counts([0.75, 0.25], 4)
    assert (bound.mean, bound.question_variance) == (0.5, pytest.approx(0.25 / 4))
    assert bound.stderr > two.stderr


def test_average_weights_benchmarks_equally_and_pairs_their_seeds() -> None:
    small = Estimate((0.2, 0.4), 10, 0.01)
    large = Estimate((0.8, 0.6), 1000, 0.0001)
    average = paired.average([small, large])
    assert average.mean == pytest.approx(0.5)
    # Each seed's average is 0.5, so the seeds have no variance.
    assert average.stderr == pytest.approx(math.sqrt(0.0101) / 2)
    assert average.questions == 1010


def test_difference_is_paired_by_question() -> None:
    # Correct on the same questions: the difference has no error, though each accuracy has one.
    same = paired.difference(_of("1100"), _of("1100"))
    assert (same.mean, same.stderr) == (0.0, 0.0)
    # Differences 1, 1, 0, 0: variance 0.25 over 4 questions.
    better = paired.difference(_of("1110"), _of("0010"))
    assert (better.mean, better.stderr) == (0.5, pytest.approx(math.sqrt(0.25 / 4)))
    with pytest.raises(ValueError, match="2 seeds cannot be paired with 3"):
        paired.difference(_of("11", "10"), _of("11", "10", "00"))


def test_independent_difference_adds_squared_errors() -> None:
    ours, theirs = Estimate((0.6, 0.8), 10, 0.02), Estimate((0.5,), 10, 0.03)
    found = paired.independent_difference(ours, theirs)
    assert found.mean == pytest.approx(0.2)
    assert found.stderr == pytest.approx(math.sqrt(0.02 + 0.03 + 0.02 / 2))


def test_majority_needs_more_than_half_of_the_seeds() -> None:
    assert paired.majority(_of("110", "100")).tolist() == [True, False, False]
    assert paired.majority(_of("110", "100", "010")).tolist() == [True, True, False]
    # Ours by majority: 1 1 0; theirs: 0 1 1.
    assert paired.won_and_lost(_of("110", "100", "010"), _of("011")) == (1, 1)


def test_sign_flips_of_equal_differences_are_the_sign_test() -> None:
    # 8 questions up, 1 down, 20 unchanged: of 2^9 signs, 2 (1 + 9) are as far from even.
    differences = np.array([1.0] * 8 + [-1.0] + [0.0] * 20)
    p = paired.sign_flips(differences)
    assert p == pytest.approx(2 * 10 / 2**9, abs=0.006)
    assert paired.sign_flips(-differences) == paired.sign_flips(differences / 3) == p
    assert paired.sign_flips(np.zeros(5)) == 1.0
    assert paired.sign_flips(differences, seed=1) != p


def test_sign_flips_are_scipys_permutation_test() -> None:
    rng = np.random.default_rng(3)
    ours, theirs = rng.random((3, 40)) < 0.6, rng.random((2, 40)) < 0.4
    differences = ours.mean(axis=0) - theirs.mean(axis=0)
    expected = stats.permutation_test(
        (differences,), np.sum, permutation_type="samples", n_resamples=20_000, rng=1
    )
    assert paired.sign_flips(differences) == pytest.approx(expected.pvalue, abs=0.01)


def test_sign_flips_see_what_the_majority_of_seeds_hides() -> None:
    # One of three seeds learned all questions, the others none: no majority on any question.
    ours, theirs = _of("1" * 30, "0" * 30, "0" * 30), _of("0" * 30)
    assert paired.mcnemar(*paired.won_and_lost(ours, theirs)) == 1.0
    assert paired.sign_flips(ours.mean(axis=0) - theirs.mean(axis=0)) == 1 / 10_001


def test_bootstrap_interval_is_scipys_of_the_paired_difference() -> None:
    rng = np.random.default_rng(7)
    theirs = (rng.random((1, 400)) < 0.5).astype(float)
    ours = theirs.copy()
    ours[0, :40] = 1 - ours[0, :40]  # 40 questions change
    drawn = paired.resampled_accuracies([ours, theirs])
    assert drawn.shape == (paired.RESAMPLES, 2)
    expected = stats.bootstrap(((ours - theirs)[0],), np.mean, method="percentile", rng=1)
    assert paired.interval(drawn[:, 0] - drawn[:, 1]) == pytest.approx(
        tuple(expected.confidence_interval), abs=0.003
    )


def test_bootstrap_of_equal_answers_is_zero_and_depends_on_its_seed_only() -> None:
    answers = [_of("1111"), _of("0000"), _of("1111"), _of("1101")]
    drawn = paired.resampled_accuracies(answers, resamples=150)
    assert paired.interval(drawn[:, 0] - drawn[:, 2]) == (0.0, 0.0)
    assert paired.interval(drawn[:, 0] - drawn[:, 1]) == (1.0, 1.0)
    assert (drawn == paired.resampled_accuracies(answers, resamples=150)).all()
    assert (drawn != paired.resampled_accuracies(answers, seed=1, resamples=150)).any()
