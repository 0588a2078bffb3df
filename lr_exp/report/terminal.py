"""The table at the end of a run, as text. Knows `summary.json`'s form and nothing else."""

from typing import Any

from lr_exp.hygiene import printable

_WHO = ("expert", "tuned")


def summary_table(summary: dict[str, Any]) -> str:
    """A short report: what ran, what was kept, what it cost, accuracy before and after."""
    lines = ["", _headline(summary)]
    if "sample" in summary:
        lines.append(_sample_line(summary["sample"]))
    if "distill" in summary:
        distill = summary["distill"]
        lines.append(
            f"distilled  {distill['optimizer_steps']} optimizer steps, {distill['tuned_tokens']:,} "
            f"tuned tokens, final loss {distill['final_loss']:.4f}{_cost(distill)}"
        )
    if summary.get("evaluate", {}).get("expert"):
        lines += ["", *_accuracies(summary["evaluate"])]
    return "\n".join([*lines, ""])


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
    return (
        f"sampled    {sample['questions']:,} questions, kept {sample['kept']:,}{of}{mean}"
        f"{_cost(sample)}"
    )


def _cost(part: dict[str, Any]) -> str:
    return f", {part['seconds']:.1f} s{' (from the store)' if part['reused'] else ''}"


def _accuracies(evaluate: dict[str, Any]) -> list[str]:
    tuned = evaluate.get("tuned")
    names = list(evaluate["expert"])
    width = max(len(_name(name)) for name in ["benchmark", *names])
    head = f"{'benchmark':<{width}}  {'n':>5}  {'expert':>13}"
    lines = [head + (f"  {'tuned':>13}  {'gain':>6}" if tuned else "")]
    lines.append("-" * len(lines[0]))
    for name in names:
        before = evaluate["expert"][name]
        line = f"{_name(name):<{width}}  {before['total']:>5}  {_percent(before)}"
        if tuned:
            gain = 100 * (tuned[name]["accuracy"] - before["accuracy"])
            line += f"  {_percent(tuned[name])}  {gain:>+6.1f}"
        lines.append(line)
    cut_off = {who: sum(r["cut_off"] for r in evaluate.get(who, {}).values()) for who in _WHO}
    if any(cut_off.values()):
        told = ", ".join(f"{count:,} of the {who}'s" for who, count in cut_off.items() if count)
        lines.append(f"answers ended by a limit (evaluator.max_new_tokens): {told}")
    decoded = "" if evaluate["decoder"] == "greedy" else f" {evaluate['decoder']} decoding,"
    lines.append(f"pass@1 in % ± one standard error;{decoded} {_cost(evaluate)[2:]}")
    return lines


def _percent(result: dict[str, Any]) -> str:
    return f"{100 * result['accuracy']:>6.1f} ± {100 * result['stderr']:>4.1f}"


def _name(text: str) -> str:
    """A name on one line that no terminal obeys: users and model folders choose them."""
    return printable(" ".join(text.split()))
