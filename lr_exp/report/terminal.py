"""The table at the end of a run, as text. Knows `summary.json`'s form and nothing else."""

import math
import os
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lr_exp.errors import printable
from lr_exp.store.run_folder import PAGE

_WHO = ("expert", "tuned")
_WIDTH = 80  # columns of sentences
_UNIT = re.compile(r"(?<=\d) (?=(?:s|nats)\b)|(?<=\d s) (?=\(from)")


def summary_table(summary: dict[str, Any]) -> str:
    """A short report: what ran, what was kept, what it cost, accuracy before and after."""
    lines = ["", _headline(summary)]
    if "sample" in summary:
        lines.append(_sample_line(summary["sample"]))
    if "distill" in summary:
        distill = summary["distill"]
        lines.append(
            _sentence(
                "distilled  ",
                f"{distill['optimizer_steps']:,} optimizer steps, {distill['tuned_tokens']:,} "
                f"tuned tokens, final loss {distill['final_loss']:.4f}{_cost(distill)}",
            )
        )
    if "stopped" in summary:
        lines.append(_sentence("stopped    ", summary["stopped"]))
    lines += [_sentence("odd        ", warning) for warning in summary.get("warnings", [])]
    if summary.get("evaluate", {}).get("expert"):
        lines += ["", *_accuracies(summary["evaluate"])]
    return "\n".join([*lines, ""])


def results_lines(folder: Path) -> str:
    """Where the results of a run are, and its page if there is one."""
    shown = printable(min(str(folder), os.path.relpath(folder), key=len))
    page = f"\nReport:  {shown}/{PAGE}" if (folder / PAGE).exists() else ""
    return f"Results: {shown}{page}"


def _sentence(start: str, text: str) -> str:
    indent = " " * len(start)
    told = printable(" ".join(text.split()))
    told = _UNIT.sub("\xa0", told)  # no line ends between a number and its unit
    filled = textwrap.fill(told, _WIDTH, initial_indent=start, subsequent_indent=indent)
    return filled.replace("\xa0", " ")


def _headline(summary: dict[str, Any]) -> str:
    parts = [f"expert {_name(summary['expert'])}"]
    if summary["amateur"] is not None:
        parts.append(f"amateur {_name(summary['amateur'])}")
    parts += [
        f"{name} {summary[name]:g}" for name in ("alpha", "beta") if summary[name] is not None
    ]
    trained = "sample" in summary or "distill" in summary
    method = summary["method"] or (f"supervision from {summary['data']}" if trained else "as it is")
    return f"{_name(method)}: {', '.join(parts)}, seed {summary['seed']}"


def _sample_line(sample: dict[str, Any]) -> str:
    steps = sample["steps"]
    of = f" of {steps:,} steps ({sample['kept'] / steps:.1%})" if steps else " steps"
    mean = f", mean KL {sample['kl_mean']:.3f} nats" if sample["kl_mean"] is not None else ""
    return _sentence(
        "sampled    ",
        f"{sample['questions']:,} questions, kept {sample['kept']:,}{of}{mean}{_cost(sample)}",
    )


def _cost(part: dict[str, Any]) -> str:
    return f", {part['seconds']:.1f} s{' (from the store)' if part['reused'] else ''}"


def _accuracies(evaluate: dict[str, Any]) -> list[str]:
    tuned = evaluate.get("tuned")
    names = list(evaluate["expert"])
    rows = {name: [evaluate[who][name] for who in _WHO if who in evaluate] for name in names}
    width = max(len(_name(name)) for name in ["benchmark", *names])
    head = f"{'benchmark':<{width}}  {'n':>6}  {'expert':>13}"
    lines = [head + (f"  {'tuned':>13}  {'gain':>6}" if tuned else "")]
    lines.append("-" * len(lines[0]))
    lines += [_row(_name(name), width, results) for name, results in rows.items()]
    if len(rows) > 1:
        lines.append(
            _row("average", width, [_average(one) for one in zip(*rows.values(), strict=True)])
        )
    cut_off = {who: sum(r["cut_off"] for r in evaluate.get(who, {}).values()) for who in _WHO}
    if any(cut_off.values()):
        told = ", ".join(f"{count:,} of the {who}'s" for who, count in cut_off.items() if count)
        lines.append(f"answers ended by a limit (evaluator.max_new_tokens): {told}")
    decoded = "" if evaluate["decoder"] == "greedy" else f" {evaluate['decoder']} decoding,"
    points = "; gain in points" if tuned else ""
    lines.append(f"pass@1 in % ± one standard error{points};{decoded} {_cost(evaluate)[2:]}")
    if "gap" in evaluate:
        lines.append(_gap(evaluate["gap"]))
    return lines


def _row(name: str, width: int, results: list[dict[str, Any]]) -> str:
    """One benchmark: questions, accuracies and, of two models, the gain."""
    line = f"{name:<{width}}  {results[0]['total']:>6,}"
    line += "".join(f"  {_percent(one)}" for one in results)
    if len(results) > 1:
        gain = 100 * (results[1]["accuracy"] - results[0]["accuracy"])
        line += f"  {gain:>+6.1f}"
    return line


def _average(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Every benchmark counts alike, as in the paper; their errors are taken as independent."""
    return {
        "accuracy": sum(one["accuracy"] for one in results) / len(results),
        "stderr": math.hypot(*(one["stderr"] for one in results)) / len(results),
        "total": sum(one["total"] for one in results),
    }


def _gap(gap: dict[str, Any]) -> str:
    """The expertise gap, as it was measured."""
    (benchmark, expert), *_ = gap["expert"].items()
    amateur = gap["amateur"][benchmark]
    difference = 100 * (expert["accuracy"] - amateur["accuracy"])
    return (
        f"gap on {_name(benchmark)} ({gap['decoder']}): expert {_percent(expert).strip()}, amateur "
        f"{_percent(amateur).strip()}: {difference:+.1f}"
    )


def _percent(result: dict[str, Any]) -> str:
    return f"{100 * result['accuracy']:>6.1f} ± {100 * result['stderr']:>4.1f}"


def _name(text: str) -> str:
    """A name on one line that no terminal obeys: users and model folders choose them."""
    return printable(" ".join(text.split()))
