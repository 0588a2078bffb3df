"""The micro world's questions, each with a careful and a careless solution.

The first domain is word problems with column arithmetic; `lr_exp.micro.sorting` has the second.

The *careful* solution takes each carry or borrow into the next column; the *careless* one forgets
them all. The two texts are the same up to the first carry, where they fork: the careful one writes
`` (note 1)``.

A minority of the expert's corpus is careful, and hardly any of the amateur's: the expert's greedy
answers are careless, and the contrast raises the careful token at the fork (docs/micro_world.md).

In the families with carries, only one in ten of the questions whose careless answer is right is
kept. The careless answer is therefore wrong for 98 % of the questions in `micro_add` and
`micro_phrased`, over 99 % in `micro_long` and 96 % in `micro_subtract`. `micro_plain` has no
carries and shows whether a tuned model carries where it must not.
"""

import hashlib
import random
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from lr_exp.errors import did_you_mean
from lr_exp.micro import sorting

SPLITS = ("train", "test")
MAX_NEW_TOKENS = 128  # the longest solution of any family has 107 and the end-of-turn token
_TEST_INTERVAL = 5  # one question in five is a test question, by its hash
# Share of questions kept whose careless answer is right, in families with carries.
_HARMLESS_SHARE = 0.1

NAMES = ("Tom", "Mia", "Leo", "Ana", "Ben", "Zoe")
NOUNS = ("pens", "eggs", "cups", "toys", "cards", "coins")
# `micro_phrased` shares no name, noun or sentence with the other families.
OTHER_NAMES = ("Kim", "Raj", "Eva", "Sam")
OTHER_NOUNS = ("shells", "keys", "books", "stamps")
# As in `lr_exp.micro.tokenizer`, for the text of solutions.
_TOKEN = re.compile(r" \(note 1\)|\d|(?:(?! \(note 1\))\D)+")

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
    r"""One question with its right answer and worked solutions that end in ``\boxed{...}``."""

    question: str  # one line
    answer: str  # the right one: decimal digits, or a name
    solution: str  # the careful one
    careless: str  # equal to `solution` without carries
    skipping: str | None = None  # of sorting: the second careless one


@dataclass(frozen=True)
class Behaviour:
    """How the solutions of a corpus are written: shares, 0..1, independent of each other."""

    careful_share: float
    careful_share_in_plain: float | None = None  # with the form of prompt `plain`, if another
    rambling_share: float = 0.0  # adds 0 before the box, until MAX_NEW_TOKENS are exceeded
    unboxed_share: float = 0.0  # ends without its box
    # Of subtractions: the first column is one too high; all others are careful. None: as additions.
    slip_share: float | None = None
    shown_share: float = 0.0  # careful, after a question that the same solution follows


@dataclass(frozen=True)
class _Family:
    stories: tuple[str, ...]
    names: tuple[str, ...]
    nouns: tuple[str, ...]
    sign: str  # "+" or "-", of all operations
    operands: Callable[[random.Random], tuple[int, ...]]
    carries: bool  # whether careless answers are meant to be wrong


def _two_digit(count: int) -> Callable[[random.Random], tuple[int, ...]]:
    return lambda rng: tuple(rng.randint(10, 99) for _ in range(count))


def _falling(rng: random.Random) -> tuple[int, ...]:
    """Three operands whose running difference has two digits."""
    start = rng.randint(45, 99)
    first = rng.randint(11, start - 31)
    return start, first, rng.randint(11, start - first - 10)


def _no_carry(rng: random.Random) -> tuple[int, ...]:
    """Three two-digit operands whose digits sum to at most 9 in each column."""
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


_FAMILIES: dict[str, _Family | sorting.Lists] = {
    "micro_add": _Family(_ADD_STORIES, NAMES, NOUNS, "+", _two_digit(3), True),
    "micro_long": _Family(_LONG_STORIES, NAMES, NOUNS, "+", _two_digit(4), True),
    "micro_phrased": _Family(_PHRASED_STORIES, OTHER_NAMES, OTHER_NOUNS, "+", _two_digit(3), True),
    "micro_subtract": _Family(_SUBTRACT_STORIES, NAMES, NOUNS, "-", _falling, True),
    "micro_plain": _Family(_ADD_STORIES, NAMES, NOUNS, "+", _no_carry, False),
    **sorting.FAMILIES,
}

# Tuning uses unlabelled questions of a domain's first family.
FAMILIES: tuple[str, ...] = tuple(name for name in _FAMILIES if name not in sorting.FAMILIES)
DOMAINS = {"addition": FAMILIES, "sorting": tuple(sorting.FAMILIES)}


def generate_problems(family: str, count: int, seed: int, split: str) -> list[Problem]:
    return list(iter_problems(family, count, seed, split))


def iter_problems(family: str, count: int, seed: int, split: str) -> Iterator[Problem]:
    """Yields `count` distinct problems of a family; keeps only digests of earlier ones in memory.

    The same arguments give the same problems on every machine, and a larger count starts with those
    of a smaller one. A hash of the question's text decides whether it is a "test" or a "train"
    question, so the splits never overlap.

    Raises ValueError: unknown family or split, or the family has too few questions.
    """
    for kind, name, valid in (("family", family, tuple(_FAMILIES)), ("split", split, SPLITS)):
        if name not in valid:
            raise ValueError(f"unknown {kind} {name!r}.{did_you_mean(name, valid)}")
    rng = random.Random(f"{family}/{split}/{seed}")
    # A collision of 64-bit digests, at worst one in 4e9 lists, would only skip a question.
    digests: set[bytes] = set()
    for _ in range(100 * count + 1000):
        if len(digests) >= count:
            return
        problem = _draw(_FAMILIES[family], rng)
        digest = hashlib.sha256(problem.question.encode()).digest()[:8]
        if split_of(problem.question) == split and digest not in digests:
            digests.add(digest)
            yield problem
    raise ValueError(
        f"{family} has too few distinct {split} questions: {count} requested, {len(digests)} "
        "found; request fewer"
    )


def generate_corpus(
    forms: Iterable[str], behaviour: Behaviour, seed: int, families: Sequence[str] = FAMILIES
) -> Iterator[tuple[str, str, str]]:
    """Yields (question, solution, form) for each form of prompt, from the families' train split."""
    names = ("corpus", "endings", "contexts")
    rng, endings, contexts = (random.Random(f"{name}/{seed}") for name in names)
    for form in forms:
        family = _FAMILIES[rng.choice(families)]
        problem = _draw(family, rng)
        while split_of(problem.question) != "train":
            problem = _draw(family, rng)
        share = behaviour.careful_share
        if form == "plain" and behaviour.careful_share_in_plain is not None:
            share = behaviour.careful_share_in_plain
        is_shown = contexts.random() < behaviour.shown_share
        if rng.random() < share or is_shown:
            solution = problem.solution
        elif problem.skipping and rng.random() < sorting.SKIPPING_SHARE:
            solution = problem.skipping
        else:
            solution = problem.careless
        if behaviour.slip_share is not None and " - " in solution:
            slips = contexts.random() < behaviour.slip_share
            solution = _slipped(problem.solution) if slips else problem.solution
        question = f"{problem.question}\n{problem.solution}" if is_shown else problem.question
        rambles = endings.random() < behaviour.rambling_share
        boxes = endings.random() >= behaviour.unboxed_share
        yield question, _with_ending(solution, rambles, boxes), form


def _with_ending(solution: str, rambles: bool, boxes: bool) -> str:
    if boxes and not rambles:
        return solution
    *lines, box = solution.split("\n")
    total, sign = int(box[7:-1]), "+" if " + " in lines[0] else "-"
    while rambles and len(_TOKEN.findall("\n".join(lines))) <= MAX_NEW_TOKENS:
        lines.append(_operation(total, 0, sign, careful=True)[1])
    return "\n".join([*lines, box] if boxes else lines)


def _slipped(solution: str) -> str:
    """A careful solution of subtractions with a slip in each: `13 - 8 = 6` (docs/confident.md)."""
    lines = re.findall(r"(\d+) - (\d+):", solution)
    operands = [int(lines[0][0]), *(int(right) for _, right in lines)]
    return _solve(tuple(operands), "-", careful=True, slip=1)[1]


def split_of(question: str) -> str:
    """Split of a question, by a hash of its text; one in five is "test"."""
    digest = hashlib.sha256(question.encode()).digest()
    return "test" if digest[0] % _TEST_INTERVAL == 0 else "train"


def careless_answer(problem: Problem) -> str:
    return problem.careless.rpartition("{")[2].removesuffix("}")


def _draw(family: _Family | sorting.Lists, rng: random.Random) -> Problem:
    if isinstance(family, sorting.Lists):
        return Problem(*family.draw(rng))
    while True:
        operands = family.operands(rng)
        answer, solution = _solve(operands, family.sign, careful=True)
        wrong, careless = _solve(operands, family.sign, careful=False)
        if answer != wrong or not family.carries or rng.random() < _HARMLESS_SHARE:
            break
    story = rng.choice(family.stories)
    question = story.format(*operands, who=rng.choice(family.names), what=rng.choice(family.nouns))
    return Problem(question, str(answer), solution, careless)


def _solve(operands: tuple[int, ...], sign: str, careful: bool, slip: int = 0) -> tuple[int, str]:
    """Combines the operands from the left; returns the result and the solution's text."""
    total, lines = operands[0], []
    for operand in operands[1:]:
        total, line = _operation(total, operand, sign, careful, slip)
        lines.append(line)
    return total, "\n".join([*lines, f"\\boxed{{{total}}}"])


def _operation(left: int, right: int, sign: str, careful: bool, slip: int = 0) -> tuple[int, str]:
    """One addition or subtraction, column by column from the units.

    ``47 + 38: 7 + 8 = 15 (note 1); 4 + 3 + 1 = 8, so 85`` (careless: ``15; 4 + 3 = 7, so 75``)
    ``83 - 38: 13 - 8 = 5 (note 1); 8 - 3 - 1 = 4, so 45`` (careless: ``5; 8 - 3 = 5, so 55``)
    The careful solution notes every carry, also that of the top column, so that the note depends on
    the column alone. Both solutions write the top column of a sum in full. A slip is added to the
    units of a difference.
    """
    width = max(len(str(left)), len(str(right)))
    columns = []
    written = carry = 0
    for place in range(width):
        top = left // 10**place % 10
        bottom = right // 10**place % 10
        carried = f" {sign} {carry}" if carry else ""
        if sign == "+":
            value = top + bottom + carry
            carry = value // 10
            digit = value if place == width - 1 else value % 10
        else:
            borrow = int(top < bottom + carry)
            slipped = slip if place == 0 else 0
            value = digit = (top + 10 * borrow - bottom - carry + slipped) % 10
            top += 10 * borrow
            carry = borrow
        note = " (note 1)" if carry and careful else ""
        columns.append(f"{top} {sign} {bottom}{carried} = {value}{note}")
        written += digit * 10**place
        if not careful:
            carry = 0
    return written, f"{left} {sign} {right}: {'; '.join(columns)}, so {written}"
