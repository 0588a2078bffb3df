"""The results of a run as text for the terminal."""

import os
import re
import textwrap
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
        lines.append(_sentence("sampled", _sampled(summary.sample)))
    if summary.distill is not None:
        distill = summary.distill
        text = (
            f"{distill.optimizer_steps:,} optimizer steps, {distill.tuned_tokens:,} tuned tokens, "
            f"final loss {distill.final_loss:.4f}, {_cost(distill)}"
        )
        lines.append(_sentence("distilled", text))
    if summary.stopped is not None:
        lines.append(_sentence("stopped", summary.stopped))
    lines += [_sentence("warning", warning) for warning in summary.warnings or []]
    if summary.evaluate is not None and summary.evaluate.expert:
        lines += ["", *_accuracies(summary.evaluate)]
    return "\n".join([*lines, ""])


def results_lines(folder: Path) -> str:
    """The paths of a run's folder and of its page, if it has one."""
    shown = printable(min(str(folder), os.path.relpath(folder), key=len))
    page = f"\nReport:  {shown}/{PAGE}" if (folder / PAGE).exists() else ""
    return f"Results: {shown}{page}"


def _sentence(label: str, text: str) -> str:
    text = _UNIT.sub("\xa0", _one_line(text))  # keeps a number and its unit on one line
    filled = textwrap.fill(text, _WIDTH, initial_indent=f"{label:<11}", subsequent_indent=" " * 11)
    return filled.replace("\xa0", " ")


def _headline(summary: "Summary") -> str:
    parts = [f"expert {_one_line(summary.expert)}"]
    if summary.amateur is not None:
        parts.append(f"amateur {_one_line(summary.amateur)}")
    numbers = {"alpha": summary.alpha, "beta": summary.beta}
    parts += [f"{name} {value:g}" for name, value in numbers.items() if value is not None]
    trained = summary.sample is not None or summary.distill is not None
    method = summary.method or (
        f"supervision from {summary.data}" if trained else "evaluation only"
    )
    return f"{_one_line(method)}: {', '.join(parts)}, seed {summary.seed}"


def _sampled(sample: "SampleSummary") -> str:
    steps, kept = sample.steps, sample.kept or 0
    of = f" of {steps:,} steps ({kept / steps:.1%})" if steps else " steps"
    mean = f", mean KL {sample.kl_mean:.3f} nats" if sample.kl_mean is not None else ""
    return f"{sample.questions:,} questions, kept {kept:,}{of}{mean}, {_cost(sample)}"


def _cost(stage: "SampleSummary | DistillSummary | EvaluateSummary") -> str:
    return f"{stage.seconds:.1f} s{' (from the store)' if stage.reused else ''}"


def _accuracies(evaluate: "EvaluateSummary") -> list[str]:
    from lr_exp.report.analyse.paired import accuracy_from_counts, average

    models = {"expert": evaluate.expert or {}, "tuned": evaluate.tuned or {}}
    models = {who: results for who, results in models.items() if results}
    rows = []
    for name in models["expert"]:
        results = [of_model[name] for of_model in models.values()]
        shares = [accuracy_from_counts([one.correct / one.total], one.total) for one in results]
        rows.append((_one_line(name), shares))
    if len(rows) > 1:  # the unweighted mean, as in the paper
        by_model = zip(*(shares for _, shares in rows), strict=True)
        rows.append(("average", list(map(average, by_model))))
    width = max(len(name) for name in ["benchmark", *(name for name, _ in rows)])
    head = f"{'benchmark':<{width}}  {'n':>6}" + "".join(f"  {who:>13}" for who in models)
    head += f"  {'gain':>6}" if len(models) > 1 else ""
    lines = [head, "-" * len(head)]
    for name, (before, *after) in rows:
        lines.append(
            f"{name:<{width}}  {before.questions:>6,}"
            + "".join(f"  {_percent(one.mean, one.stderr)}" for one in (before, *after))
            + "".join(f"  {100 * (one.mean - before.mean):>+6.1f}" for one in after)
        )
    cut_off = {who: sum(one.cut_off for one in own.values()) for who, own in models.items()}
    if any(cut_off.values()):
        counts = ", ".join(f"{count:,} of the {who}'s" for who, count in cut_off.items() if count)
        lines.append(f"answers ended by a limit (evaluator.max_new_tokens): {counts}")
    points = "; gain in points" if len(models) > 1 else ""
    decoded = "" if evaluate.decoder == "greedy" else f"{evaluate.decoder} decoding, "
    lines.append(f"pass@1 in % ± one standard error{points}; {decoded}{_cost(evaluate)}")
    return lines if evaluate.gap is None else [*lines, _gap(evaluate.gap)]


def _gap(gap: "Gap") -> str:
    (benchmark, expert), *_ = gap.expert.items()
    amateur = gap.amateur[benchmark]
    return (
        f"gap on {_one_line(benchmark)} ({gap.decoder}): expert {_result(expert)}, amateur "
        f"{_result(amateur)}: {100 * (expert.accuracy - amateur.accuracy):+.1f}"
    )


def _result(result: "Result") -> str:
    return _percent(result.accuracy, result.stderr or 0.0).strip()


def _percent(mean: float, stderr: float) -> str:
    return f"{100 * mean:>6.1f} ± {100 * stderr:>4.1f}"


def _one_line(text: str) -> str:
    """Text without line breaks and control characters: users and model folders choose names."""
    return printable(" ".join(text.split()))
