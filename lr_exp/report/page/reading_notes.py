"""Explanations of the numbers in a report's tables."""

from collections.abc import Sequence

from lr_exp.report.names import is_micro
from lr_exp.report.read.runs import Found
from lr_exp.report.tables.table import Table

_PLUS_MINUS = (
    "± is the wider side of the 95 % interval of an accuracy (pass@1 in %) or a gain. Over "
    "questions the interval is Wilson's, or the one of the questions won and lost; with several "
    "seeds, Student's t interval over their means is added (squared distances add up). With one "
    "seed it does not cover another training run. Questions of different benchmarks count as "
    "independent; a seed's effect is shared by all benchmarks. CSV files have the standard errors "
    "and both ends of the intervals."
)
_GAIN = (
    "AVG is the unweighted mean over the benchmarks shown. Gain is the difference in AVG to the "
    "untuned expert with greedy decoding, in points; it is shown only if that expert was "
    "evaluated, and its interval is paired by question if the graded answers are available. The "
    "untuned expert does not depend on the seed and is counted once. If a method trained nothing "
    "for a seed, the expert's own results are used for that seed."
)
_PUBLISHED = (
    "Columns named published are numbers from arXiv 2510.07962, in rows with the paper's models, "
    "method, data and thresholds; all other numbers were measured in the runs below. An asterisk "
    "marks rows in which another known setting differs from the paper's (training questions and "
    "answers, prompts, rollout and answer length, optimizer steps, batch size, learning rate, "
    "LoRA, a limit on evaluated questions); a note under the table lists the differences. The "
    "number of questions and answers behind the paper's SFT is our interpretation. A published "
    "average is shown only if it is over the same benchmarks."
)
_BOUND = (
    "KL divergences of runs with amateur.tokenizer=own are lower bounds: over the tokens of the "
    "expert's support and the rest."
)
MICRO = (
    "Numbers of the micro world (names with micro) show the mechanism on tiny models; the paper "
    "has no numbers to compare them with."
)


def reading_notes(found: Found, tables: Sequence[Table]) -> list[str]:
    """Explanations that apply to the tables of this report."""
    lines = [_PLUS_MINUS, _GAIN]
    if any(table.has_published for table in tables):
        lines.append(_PUBLISHED)
    if any(run.settings.get("amateur", {}).get("tokenizer") == "own" for run in found.runs):
        lines.append(_BOUND)
    if any(is_micro(run.expert, run.amateur, *run.benchmarks) for run in found.runs):
        lines.append(MICRO)
    return lines
