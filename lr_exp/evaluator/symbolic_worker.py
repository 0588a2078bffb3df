"""The process that compares expressions with math-verify, started by `symbolic`.

Reads pairs of expressions from stdin and writes whether they are equal to stdout, one JSON value a
line. The kernel ends it after a comparison of `argv[1]` seconds, even inside a single operation
that Python cannot interrupt. It imports nothing of this package, so that it starts fast.
"""

import json
import logging
import signal
import sys
from typing import Any

from latex2sympy2_extended import NormalizationConfig
from math_verify import LatexExtractionConfig, parse, verify

# boxed: its patterns backtrack, and the `$...$` below already anchors the expression (without an
# anchor, "1/2 ..." is parsed as 1). units: it reduces `2ab` to 2 and `6m` to 6.
_NOTATION = NormalizationConfig(
    basic_latex=True,
    units=False,
    malformed_operators=True,
    nits=True,
    boxed="none",
    equations=False,
)
_CONFIG = [LatexExtractionConfig(boxed_match_priority=-1, normalization_config=_NOTATION)]


def _parsed(text: str) -> list[Any]:
    return parse(
        f"${text}$",
        _CONFIG,
        fallback_mode="no_fallback",
        parsing_timeout=None,  # pyright: ignore[reportArgumentType] - None is documented
        raise_on_error=True,
    )


def _are_equal(gold: str, answer: str) -> bool:
    golds = _parsed(gold)
    answers = _parsed(answer) if golds else []
    return bool(golds and answers) and bool(
        verify(
            golds,
            answers,
            allow_set_relation_comp=True,
            timeout_seconds=None,
            raise_on_error=True,
        )
    )


def main() -> None:
    """Compares until stdin ends."""
    logging.disable()  # math-verify warns that its own timeouts are disabled
    results, sys.stdout = sys.stdout, sys.stderr  # libraries may print
    seconds = float(sys.argv[1])
    print("ready", file=results, flush=True)
    for line in sys.stdin:
        gold, answer = json.loads(line)
        signal.setitimer(signal.ITIMER_REAL, seconds)  # its signal ends the process
        try:
            equal = _are_equal(gold, answer)
        except Exception:  # an answer that makes sympy fail is wrong
            equal = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        print(json.dumps(equal), file=results, flush=True)


if __name__ == "__main__":
    main()
