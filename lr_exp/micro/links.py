"""The micro world's second domain: following links in a small table.

The *careful* solution looks up, for each link, the row that starts with the current name. After the
first link, two shortcuts need no look-up: *reading on* takes the rows below in the table's order,
and *stopping early* answers with the first link's end. All three fork at the same token, the one
after the first ``, `` of the solution.
"""

import random
from dataclasses import dataclass
from itertools import pairwise

NAMES: tuple[str, ...] = (
    *("Tom", "Mia", "Leo", "Ana", "Ben", "Zoe"),
    *("Kim", "Raj", "Eva", "Sam", "Max", "Ida"),
)
EARLY_SHARE = 0.45  # of the careless solutions in a corpus; the others read on
_ROWS = 7
_COUNTS = {3: "three", 4: "four"}
WORDS = (
    *NAMES,
    *(" > ", ", ", "\\boxed{", "}", "\n"),
    *("Follow ", *_COUNTS.values(), " links from ", " in the table "),
    # The prompt form `plain`: a space follows `Answer:`.
    *("Question: ", "Answer:", *(f" {name}" for name in NAMES)),
)

Row = tuple[str, str]  # where a link starts and where it ends


@dataclass(frozen=True)
class Table:
    """A family of questions: tables of seven rows, in which no two start or end alike."""

    hops: int  # links to follow
    ordered: bool = False  # the rows to follow are adjacent and in order: reading on is right

    def draw(self, rng: random.Random) -> tuple[str, str, str, str, str]:
        """A question, its answer, and three solutions: careful, reading on, stopping early."""
        while True:
            rows = list(zip(rng.sample(NAMES, _ROWS), rng.sample(NAMES, _ROWS), strict=True))
            start, ends = rng.randrange(_ROWS - self.hops + 1), dict(rows)
            path = [rows[start][0]]
            while len(path) <= self.hops and path[-1] in ends:
                path.append(ends[path[-1]])
            if len(set(path)) == self.hops + 1 and all(left != right for left, right in rows):
                break
        chain = list(pairwise(path))
        if self.ordered:
            others = [row for row in rows if row not in chain]
            rows = [*others[:start], *chain, *others[start:]]
        question = f"Follow {_COUNTS[self.hops]} links from {path[0]} in the table {_written(rows)}"
        followed = (chain, rows[start : start + self.hops], chain[:1])
        careful, reading_on, early = (f"{_written(f)}, \\boxed{{{f[-1][1]}}}" for f in followed)
        return question, path[-1], careful, reading_on, early


def _written(rows: list[Row]) -> str:
    return ", ".join(f"{left} > {right}" for left, right in rows)


FAMILIES = {
    "micro_links": Table(hops=3),
    "micro_links_long": Table(hops=4),
    "micro_links_ordered": Table(hops=3, ordered=True),
}
