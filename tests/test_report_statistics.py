"""The report's statistics against numbers computed by hand."""

import math

import numpy as np
import pytest

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
    ],
)
def test_mcnemar_is_exact(won: int, lost: int, p: float) -> None:
    assert paired.mcnemar(won, lost) == p


def test_mcnemar_of_many_questions_neither_overflows_nor_vanishes() -> None:
    # Beyond 1024 discordant questions a float cannot hold 2^n. Normal approximation: z = 6.96.
    p = paired.mcnemar(1100, 800)
    z = (1100 - 800 - 1) / math.sqrt(1900)
    assert p == pytest.approx(math.erfc(z / math.sqrt(2)), rel=0.05)


def test_one_seed_has_the_binomial_error() -> None:
    estimate = paired.accuracy(_of("1110"))
    assert estimate.mean == 0.75
    assert estimate.stderr == pytest.approx(math.sqrt(0.75 * 0.25 / 4))


def test_questions_and_seeds_both_count() -> None:
    # Questions' means 1, 0.5, 0.5, 0: variance 0.125 over 4 questions. Seeds' accuracies 0.75 and
    # 0.25: variance 0.125 over 2 seeds.
    estimate = paired.accuracy(_of("1110", "1000"))
    assert estimate.mean == 0.5
    assert estimate.stderr == pytest.approx(math.sqrt(0.125 / 4 + 0.125 / 2))


def test_counts_alone_bound_the_error_of_questions_from_above() -> None:
    exact = paired.accuracy(_of("1110", "1000"))
    bound = paired.accuracy_from_counts([0.75, 0.25], 4)
    assert bound.mean == exact.mean
    assert bound.question_variance == pytest.approx(0.25 / 4)
    assert bound.stderr > exact.stderr


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
    assert better.mean == 0.5
    assert better.stderr == pytest.approx(math.sqrt(0.25 / 4))


def test_differences_of_unequal_numbers_of_seeds_are_refused() -> None:
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
    assert paired.sign_flips(differences) == pytest.approx(2 * 10 / 2**9, abs=0.006)
    assert paired.sign_flips(-differences) == paired.sign_flips(differences)
    # Scaling and rounding the differences does not change p.
    assert paired.sign_flips(differences / 3) == paired.sign_flips(differences)


def test_grouped_sign_flips_equal_individual_ones() -> None:
    rng = np.random.default_rng(3)
    ours, theirs = rng.random((3, 40)) < 0.6, rng.random((2, 40)) < 0.4
    differences = ours.mean(axis=0) - theirs.mean(axis=0)
    signs = rng.choice([-1, 1], size=(20_000, 40))
    plain = (np.abs(signs @ differences) >= abs(differences.sum()) - 1e-9).mean()
    assert paired.sign_flips(differences) == pytest.approx(plain, abs=0.01)


def test_sign_flips_see_what_the_majority_of_seeds_hides() -> None:
    # One of three seeds learned all questions, the others none: no majority on any question.
    ours, theirs = _of("1" * 30, "0" * 30, "0" * 30), _of("0" * 30)
    assert paired.mcnemar(*paired.won_and_lost(ours, theirs)) == 1.0
    assert paired.sign_flips(ours.mean(axis=0) - theirs.mean(axis=0)) == 1 / 10_001


def test_sign_flips_of_zero_differences_give_one_and_are_deterministic() -> None:
    assert paired.sign_flips(np.zeros(5)) == 1.0
    mixed = np.array([0.5, -0.25, 1.0, 0.25, 0.75])
    assert paired.sign_flips(mixed) == paired.sign_flips(mixed)
    assert paired.sign_flips(mixed) != paired.sign_flips(mixed, seed=1)


def test_bootstrap_interval_is_that_of_the_paired_difference() -> None:
    rng = np.random.default_rng(7)
    theirs = (rng.random((1, 400)) < 0.5).astype(float)
    ours = theirs.copy()
    ours[0, :40] = 1 - ours[0, :40]  # 40 questions change
    drawn = paired.resampled_accuracies([ours, theirs])
    low, high = paired.interval(drawn[:, 0] - drawn[:, 1])
    exact = paired.difference(ours, theirs)
    assert low == pytest.approx(exact.mean - 1.96 * exact.stderr, abs=0.006)
    assert high == pytest.approx(exact.mean + 1.96 * exact.stderr, abs=0.006)
    # An unpaired interval would be several times as wide.
    assert high - low < 0.5 * 2 * 1.96 * math.sqrt(2 * 0.25 / 400)


def test_bootstrap_of_equal_answers_is_zero_and_of_all_won_is_one() -> None:
    drawn = paired.resampled_accuracies([_of("1111"), _of("0000"), _of("1111")], resamples=50)
    assert paired.interval(drawn[:, 0] - drawn[:, 2]) == (0.0, 0.0)
    assert paired.interval(drawn[:, 0] - drawn[:, 1]) == (1.0, 1.0)


def test_bootstrap_is_the_same_for_the_same_seed_only() -> None:
    right = _of("1101001011")
    first, again, other = (
        paired.resampled_accuracies([right], seed=seed, resamples=150) for seed in (3, 3, 4)
    )
    assert first.shape == (150, 1)
    assert (first == again).all()
    assert (first != other).any()
