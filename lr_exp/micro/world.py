"""The micro world's questions: stories that need digit-by-digit arithmetic, each solved two ways.

Knows stories, carries and borrows; knows nothing of tokens, models or training, and imports no
tensor library.

Every problem has a *careful* solution, which takes each carry or borrow into the next column, and
a *careless* one, which forgets them all. The two texts are the same up to the first carry; there
they fork in one word (`` (note 1)`` or not), and from there on each goes its own way.

The design, openly: the expert is trained on a corpus in which a minority of solutions is careful.
So its greedy answers are careless, while care stays latent, as the second likeliest word at the
fork. The amateur saw hardly any care. Expert and amateur agree wherever care makes no difference
and disagree at the fork, so the contrast between them lifts what is latent there. It amplifies a
skill the expert has; it does not teach one: all families below, and both ways of solving them, are
in the expert's corpus. What a tuning run never sees is which way is right.

In the families with carries the careless answer differs from the right one for nearly all
questions: a draw where the two agree is kept one time in ten, which leaves 98 % that differ in
`micro_add` and `micro_phrased`, over 99 % in `micro_long`, 96 % in `micro_subtract`. In
`micro_plain` no column ever carries, the two are always the same, and a model that carries where
there is nothing to carry would show as a loss.
"""

import difflib
import hashlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

SPLITS = ("train", "test")

# One question in five is a test question, by its hash.
_TEST_SHARE = 5
# Share of draws kept where the careless way happens to be right (families with carries only).
_KEEP_HARMLESS = 0.1

_NAMES = ("Tom", "Mia", "Leo", "Ana", "Ben", "Zoe")
_NOUNS = ("pens", "eggs", "cups", "toys", "cards", "coins")
# `micro_phrased` shares no name, noun or sentence with the other families.
_OTHER_NAMES = ("Kim", "Raj", "Eva", "Sam")
_OTHER_NOUNS = ("shells", "keys", "books", "stamps")

_ADD_STORIES = (
    "{who} has {0} {what}. {who} buys {1} more. Then {who} finds {2} more."
    " How many {what} does {who} have?",
    "{who} has {0} {what}. {who} gets {1} more. Then {who} buys {2} more."
    " How many {what} does {who} have?",
    "{who} owns {0} {what}. {who} finds {1} more. Then {who} gets {2} more."
    " How many {what} does {who} have?",
)
_LONG_STORIES = (
    "{who} has {0} {what}. {who} buys {1} more. Then {who} finds {2} more. Later {who} gets {3}"
    " more. How many {what} does {who} have?",
    "{who} owns {0} {what}. {who} gets {1} more. Then {who} buys {2} more. Later {who} finds {3}"
    " more. How many {what} does {who} have?",
)
_PHRASED_STORIES = (
    "A box holds {0} {what}. {who} puts in {1} and then {2} extra. What is the total?",
    "On a shelf lie {0} {what}. {who} brings {1} and then {2} extra. Count all {what}.",
)
_SUBTRACT_STORIES = (
    "{who} has {0} {what}. {who} sells {1}. Then {who} loses {2} more. How many {what} are left?",
    "{who} owns {0} {what}. {who} loses {1}. Then {who} sells {2} more. How many {what} are left?",
)


@dataclass(frozen=True)
class Problem:
    r"""One question with its right answer and two worked solutions.

    question: the story, one line.
    answer: the right answer, decimal digits.
    solution: the careful worked solution, one line a step, ends in ``\boxed{answer}``.
    careless: the worked solution that forgets every carry or borrow, ends in ``\boxed{...}``;
        the same text as `solution` where nothing is to be carried.
    """

    question: str
    answer: str
    solution: str
    careless: str


@dataclass(frozen=True)
class _Family:
    stories: tuple[str, ...]
    names: tuple[str, ...]
    nouns: tuple[str, ...]
    sign: str  # "+" or "-", the operation of every step
    operands: Callable[[random.Random], tuple[int, ...]]
    carries: bool  # whether the careless way is meant to go wrong


def _two_digit(count: int) -> Callable[[random.Random], tuple[int, ...]]:
    return lambda rng: tuple(rng.randint(10, 99) for _ in range(count))


def _falling(rng: random.Random) -> tuple[int, ...]:
    """Three operands whose running difference keeps two digits."""
    start = rng.randint(45, 99)
    first = rng.randint(11, start - 31)
    return start, first, rng.randint(11, start - first - 10)


def _no_carry(rng: random.Random) -> tuple[int, ...]:
    """Three two-digit operands whose digits add up to at most 9 in each column."""
    columns = []
    for low in (1, 0):  # tens digits start at 1, units at 0
        room = 9 - 3 * low
        first = rng.randint(0, room)
        second = rng.randint(0, room - first)
        third = rng.randint(0, room - first - second)
        digits = [low + first, low + second, low + third]
        rng.shuffle(digits)
        columns.append(digits)
    return tuple(10 * tens + units for tens, units in zip(*columns, strict=True))


_FAMILIES = {
    "micro_add": _Family(_ADD_STORIES, _NAMES, _NOUNS, "+", _two_digit(3), True),
    "micro_long": _Family(_LONG_STORIES, _NAMES, _NOUNS, "+", _two_digit(4), True),
    "micro_phrased": _Family(
        _PHRASED_STORIES, _OTHER_NAMES, _OTHER_NOUNS, "+", _two_digit(3), True
    ),
    "micro_subtract": _Family(_SUBTRACT_STORIES, _NAMES, _NOUNS, "-", _falling, True),
    "micro_plain": _Family(_ADD_STORIES, _NAMES, _NOUNS, "+", _no_carry, False),
}

FAMILIES: tuple[str, ...] = tuple(_FAMILIES)
"""Names of the families; the first is the one whose unlabelled questions a tuning run uses."""


def problems(family: str, count: int, seed: int, split: str) -> list[Problem]:
    """Draw `count` different problems of a family.

    The same arguments give the same list on every machine, and a longer list starts with the
    shorter one. A question belongs to "test" or "train" by a hash of its text, so no test
    question occurs in training, whatever the seeds.

    Raises ValueError for an unknown family or split, and where the family has too few questions.
    """
    return list(_problems(family, count, seed, split))


@lru_cache(maxsize=32)  # the cells of a sweep ask for the same questions again and again
def _problems(family: str, count: int, seed: int, split: str) -> tuple[Problem, ...]:
    return tuple(drawn(family, count, seed, split))


def drawn(family: str, count: int, seed: int, split: str) -> Iterator[Problem]:
    """The problems of `problems` one by one; of those before, a short digest is remembered."""
    _check_name("family", family, FAMILIES)
    _check_name("split", split, SPLITS)
    rng = random.Random(f"{family}/{split}/{seed}")
    # Of 100,000 questions two have the same 64 bits once in four thousand million lists; the
    # second would be left out, nothing worse.
    found: set[bytes] = set()
    for _ in range(100 * count + 1000):
        if len(found) >= count:
            return
        problem = _draw(_FAMILIES[family], rng)
        digest = hashlib.sha256(problem.question.encode()).digest()[:8]
        if split_of(problem.question) == split and digest not in found:
            found.add(digest)
            yield problem
    raise ValueError(
        f"{family} has too few different {split} questions: {count} asked for, "
        f"{len(found)} found; ask for fewer"
    )


def corpus(count: int, careful_share: float, seed: int) -> Iterator[tuple[str, str]]:
    """Yield `count` pairs (question, solution text) over all families, from the train split only.

    careful_share: probability that a pair has the careful solution, 0..1; drawn for each pair
        alone, so nothing in the question tells which of the two follows.
    """
    if not 0.0 <= careful_share <= 1.0:
        raise ValueError(f"careful_share is a probability, 0..1, not {careful_share}")
    rng = random.Random(f"corpus/{seed}")
    for _ in range(count):
        family = _FAMILIES[rng.choice(FAMILIES)]
        problem = _draw(family, rng)
        while split_of(problem.question) != "train":
            problem = _draw(family, rng)
        careful = rng.random() < careful_share
        yield problem.question, problem.solution if careful else problem.careless


def split_of(question: str) -> str:
    """Which split a question belongs to, by its text alone: one in five to "test"."""
    digest = hashlib.sha256(question.encode()).digest()
    return "test" if digest[0] % _TEST_SHARE == 0 else "train"


def careless_answer(problem: Problem) -> str:
    """The answer that the careless solution ends in."""
    return problem.careless.rpartition("{")[2].removesuffix("}")


def _draw(family: _Family, rng: random.Random) -> Problem:
    while True:
        operands = family.operands(rng)
        answer, solution = _solve(operands, family.sign, careful=True)
        wrong, careless = _solve(operands, family.sign, careful=False)
        if answer != wrong or not family.carries or rng.random() < _KEEP_HARMLESS:
            break
    story = rng.choice(family.stories)
    question = story.format(*operands, who=rng.choice(family.names), what=rng.choice(family.nouns))
    return Problem(question, str(answer), solution, careless)


def _solve(operands: tuple[int, ...], sign: str, careful: bool) -> tuple[int, str]:
    """Fold the operands from the left; returns the result and the worked text."""
    lines = []
    total = operands[0]
    for operand in operands[1:]:
        total, line = _step(total, operand, sign, careful)
        lines.append(line)
    return total, "\n".join([*lines, f"\\boxed{{{total}}}"])


def _step(left: int, right: int, sign: str, careful: bool) -> tuple[int, str]:
    """One addition or subtraction, column by column from the units.

    ``47 + 38: 7 + 8 = 15 (note 1); 4 + 3 + 1 = 8, so 85`` (careless: ``15; 4 + 3 = 7, so 75``)
    ``83 - 38: 13 - 8 = 5 (note 1); 8 - 3 - 1 = 4, so 45`` (careless: ``5; 8 - 3 = 5, so 55``)
    The careful way notes every carry, also the top column's, so that noting depends on the column
    alone. The top column of a sum is written in full either way: its carry cannot get lost.
    """
    width = max(len(str(left)), len(str(right)))
    columns = []
    written = 0
    carry = 0
    for place in range(width):
        top = left // 10**place % 10
        bottom = right // 10**place % 10
        taken = f" {sign} {carry}" if carry else ""
        if sign == "+":
            value = top + bottom + carry
            carry = value // 10
            digit = value if place == width - 1 else value % 10
        else:
            borrow = int(top < bottom + carry)
            value = digit = top + 10 * borrow - bottom - carry
            top += 10 * borrow
            carry = borrow
        note = " (note 1)" if carry and careful else ""
        columns.append(f"{top} {sign} {bottom}{taken} = {value}{note}")
        written += digit * 10**place
        if not careful:
            carry = 0
    return written, f"{left} {sign} {right}: {'; '.join(columns)}, so {written}"


def _check_name(kind: str, name: str, valid: tuple[str, ...]) -> None:
    if name in valid:
        return
    nearest = difflib.get_close_matches(name, valid, n=1, cutoff=0.0)[0]
    raise ValueError(
        f"unknown {kind} {name!r}; did you mean {nearest!r}? (valid: {', '.join(valid)})"
    )
