"""The micro world's second domain: writing a short list of names in alphabetical order.

The *careful* solution compares the names. Two shortcuts do not: *copying* writes the list as it is
given, *skipping* does so from its second name on and writes the first one last. The three part at
the first name. The question asks who is second.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

NAMES: tuple[str, ...] = (  # in alphabetical order
    *("Ana", "Ben", "Eva", "Fay", "Gus", "Ida", "Jon", "Kim"),
    *("Leo", "Mia", "Ned", "Raj", "Sam", "Tom", "Uma", "Zoe"),
)
SKIPPING_SHARE = 0.45  # of the careless solutions in a corpus; the others copy
WORDS = (
    *(f" {name}" for name in NAMES),
    *(f"{name}}}" for name in NAMES),  # in the box
    *("Names:", ". Who is second in order?", "Sorted:", ", second is \\boxed{"),
    *("Question: ", "\n", "Answer:", " Sorted:"),  # the prompt form `plain`
)


@dataclass(frozen=True)
class Lists:
    """A family of questions: lists of distinct names."""

    length: int
    ordered: bool = False  # already in order: copying is right

    def draw(self, rng: random.Random) -> tuple[str, str, str, str, str]:
        """A question, its answer, and three solutions: careful, copying, skipping."""
        given = rng.sample(NAMES, self.length)
        in_order = sorted(given)
        if self.ordered:
            given = in_order
        question = f"Names: {' '.join(given)}. Who is second in order?"
        careful, copying, skipping = map(_solution, (in_order, given, [*given[1:], given[0]]))
        return question, in_order[1], careful, copying, skipping


def _solution(names: Sequence[str]) -> str:
    return f"Sorted: {' '.join(names)}, second is \\boxed{{{names[1]}}}"


FAMILIES = {
    "micro_sort": Lists(5),
    "micro_sort_long": Lists(6),
    "micro_sort_ordered": Lists(5, ordered=True),
}
