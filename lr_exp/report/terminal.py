"""The results of a run as text for the terminal."""

import math
import os
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lr_exp.errors import printable
from lr_exp.store.run_folder import PAGE

if TYPE_CHECKING:  # importing pydantic would slow down --help
    from lr_exp.report.read.summary import (
        DistillSummary,
        EvaluateSummary,
        Gap,
        Result,
        SampleSummary,
        Summary,
    )

_WIDTH = 80  # columns of sentences
_UNIT = re.compile(r"(?<=\d) (?=(?:s|nats)\b)|(?<=\d s) (?=\(from)")


def summary_table(summary: "Summary") -> str:
    """A short report: what ran, what was kept, what it cost, accuracy before and after."""
    lines = ["", _headline(summary)]
    if summary.sample is not None:
        lines.append(_sample_line(summary.sample))
    if summary.distill is not None:
        distill = summary.distill
        lines.append(
            _sentence(
                "distilled  ",
                f"{distill.optimizer_steps:,} optimizer steps, {distill.tuned_tokens:,} tuned "
                f"tokens, final loss {distill.final_loss:.4f}{_cost(distill)}",
            )
        )
    if summary.stopped is not None:
        lines.append(_sentence("stopped    ", summary.stopped))
    lines += [_sentence("odd        ", warning) for warning in summary.warnings or []]
    if summary.evaluate is not None and summary.evaluate.expert:
        lines += ["", *_accuracies(summary.evaluate)]
    return "\n".join([*lines, ""])


def results_lines(folder: Path) -> str:
    """The paths of a run's folder and of its page, if it has one."""
    shown = printable(min(str(folder), os.path.relpath(folder), key=len))
    page = f"\nReport:  {shown}/{PAGE}" if (folder / PAGE).exists() else ""
    return f"Results: {shown}{page}"


def _sentence(start: str, text: str) -> str:
    indent = " " * len(start)
    text = printable(" ".join(text.split()))
    text = _UNIT.sub("\xa0", text)  # keeps a number and its unit on one line
    filled = textwrap.fill(text, _WIDTH, initial_indent=start, subsequent_indent=indent)
    return filled.replace("\xa0", " ")


def _headline(summary: "Summary") -> str:
    parts = [f"expert {_name(summary.expert)}"]
    if summary.amateur is not None:
        parts.append(f"amateur {_name(summary.amateur)}")
    numbers = {"alpha": summary.alpha, "beta": summary.beta}
    parts += [f"{name} {value:g}" for name, value in numbers.items() if value is not None]
    trained = summary.sample is not None or summary.distill is not None
    method = summary.method or (f"supervision from {summary.data}" if trained else "as it is")
    return f"{_name(method)}: {', '.join(parts)}, seed {summary.seed}"


def _sample_line(sample: "SampleSummary") -> str:
    steps, kept = sample.steps, sample.kept or 0
    of = f" of {steps:,} steps ({kept / steps:.1%})" if steps else " steps"
    mean = f", mean KL {sample.kl_mean:.3f} nats" if sample.kl_mean is not None else ""
    text = f"{sample.questions:,} questions, kept {kept:,}{of}{mean}{_cost(sample)}"
    return _sentence("sampled    ", text)


def _cost(stage: "SampleSummary | DistillSummary | EvaluateSummary") -> str:
    return f", {stage.seconds:.1f} s{' (from the store)' if stage.reused else ''}"


def _accuracies(evaluate: "EvaluateSummary") -> list[str]:
    expert, tuned = evaluate.expert or {}, evaluate.tuned
    names = list(expert)
    rows = {name: [expert[name], *([tuned[name]] if tuned else [])] for name in names}
    width = max(len(_name(name)) for name in ["benchmark", *names])
    head = f"{'benchmark':<{width}}  {'n':>6}  {'expert':>13}"
    lines = [head + (f"  {'tuned':>13}  {'gain':>6}" if tuned else "")]
    lines.append("-" * len(lines[0]))
    lines += [_row(_name(name), width, results) for name, results in rows.items()]
    if len(rows) > 1:
        averages = [_average(results) for results in zip(*rows.values(), strict=True)]
        lines.append(_row("average", width, averages))
    models = {"expert": expert, "tuned": tuned or {}}
    cut_off = {who: sum(result.cut_off for result in own.values()) for who, own in models.items()}
    if any(cut_off.values()):
        counts = ", ".join(f"{count:,} of the {who}'s" for who, count in cut_off.items() if count)
        lines.append(f"answers ended by a limit (evaluator.max_new_tokens): {counts}")
    decoded = "" if evaluate.decoder == "greedy" else f" {evaluate.decoder} decoding,"
    points = "; gain in points" if tuned else ""
    lines.append(f"pass@1 in % ± one standard error{points};{decoded} {_cost(evaluate)[2:]}")
    if evaluate.gap is not None:
        lines.append(_gap(evaluate.gap))
    return lines


def _row(name: str, width: int, results: "list[Result]") -> str:
    """One benchmark: questions, accuracies and, of two models, the gain."""
    line = f"{name:<{width}}  {results[0].total:>6,}"
    line += "".join(f"  {_percent(result)}" for result in results)
    if len(results) > 1:
        gain = 100 * (results[1].accuracy - results[0].accuracy)
        line += f"  {gain:>+6.1f}"
    return line


def _average(results: "Sequence[Result]") -> "Result":
    """The unweighted mean over benchmarks, as in the paper; errors are taken as independent."""
    from lr_exp.report.read.summary import Result

    return Result(
        accuracy=sum(result.accuracy for result in results) / len(results),
        stderr=math.hypot(*(result.stderr or 0 for result in results)) / len(results),
        correct=sum(result.correct for result in results),
        total=sum(result.total for result in results),
    )


def _gap(gap: "Gap") -> str:
    (benchmark, expert), *_ = gap.expert.items()
    amateur = gap.amateur[benchmark]
    difference = 100 * (expert.accuracy - amateur.accuracy)
    return (
        f"gap on {_name(benchmark)} ({gap.decoder}): expert {_percent(expert).strip()}, amateur "
        f"{_percent(amateur).strip()}: {difference:+.1f}"
    )


def _percent(result: "Result") -> str:
    return f"{100 * result.accuracy:>6.1f} ± {100 * (result.stderr or 0):>4.1f}"


def _name(text: str) -> str:
    """A name on one line, without control characters: users and model folders choose names."""
    return printable(" ".join(text.split()))
