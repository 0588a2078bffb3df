"""Figures to Markdown, and into a document between its markers. Knows figures, measures nothing."""

from pathlib import Path
from typing import Any

from lr_exp.errors import UserError
from lr_exp.store import write_atomically

START, END = "<!-- bench -->", "<!-- /bench -->"

_WHAT = {
    "sampling": "sampling, time a question",
    "training": "training, time a kept step, {step_size} an optimizer step",
    "training_whole": "training, time a kept step, {step_size} an optimizer step",
    "evaluation": "evaluation, time a question",
}


def markdown(found: dict[str, Any]) -> str:
    """The tables of a benchmark's figures, with the machine they are of."""
    said = (_compared, _scaling, _startup, _precision, _floors, _machine)
    blocks = [block(found) for block in said]
    return "\n\n".join(block for block in blocks if block) + "\n"


def into_document(path: Path, text: str) -> None:
    """Replaces what stands between the markers.

    Raises:
        UserError: the document has no such markers, or not each once.
    """
    document = path.read_text("utf-8")
    # Two equal markers do as well.
    end = END if END in document else START
    before, opening, rest = document.partition(START)
    _, closing, after = rest.partition(end)
    if not opening or not closing:
        raise UserError(f"{path} has no place for the table: it needs {START} and {END}.")
    write_atomically(path, f"{before}{START}\n\n{text}\n{end}{after}")


def _compared(found: dict[str, Any]) -> str:
    rows = []
    for part, what in _WHAT.items():
        for pair, figures in found["parts"].get(part, {}).items():
            rows.append((what.format(**figures), pair, figures))
    for pair, tasks in found["parts"].get("memory", {}).items():
        rows += [(f"{task}, peak memory", pair, figures) for task, figures in tasks.items()]
    if not rows:
        return ""
    lines = [
        "| what | pair | plain loop | here | ratio (least to greatest) |",
        "|---|---|---|---|---|",
    ]
    for what, pair, figures in rows:
        plain, ours = (
            _amount(figures[side]["median"], figures["unit"]) for side in ("plain", "ours")
        )
        ratio = figures["ratio"]
        spread = f"{_times(ratio['median'])} ({_times(ratio['min'])} to {_times(ratio['max'])})"
        lines.append(f"| {what} | {pair} | {plain} | {ours} | {spread} |")
    return "\n".join(lines)


def _scaling(found: dict[str, Any]) -> str:
    blocks = []
    for pair, rows in found["parts"].get("scaling", {}).items():
        lines = [
            f"| questions ({pair}) | time a question | peak memory over the models |",
            "|---|---|---|",
        ]
        for row in rows:
            time, memory = _amount(row["seconds"], "s/question"), _amount(row["bytes"], "bytes")
            lines.append(f"| {row['questions']:,} | {time} | {memory} |")
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def _startup(found: dict[str, Any]) -> str:
    figures = found["parts"].get("startup")
    if figures is None:
        return ""
    return (
        f"From calling the program to the first sampled token of the micro pair: "
        f"{figures['median']:.1f} s ({figures['min']:.1f} to {figures['max']:.1f})."
    )


def _precision(found: dict[str, Any]) -> str:
    said = [
        f"bf16 weights on this CPU ({pair}, log-softmax in fp32 as always): the same answers are "
        f"scored {_times(one['ratio'])} as fast; the step KL is off by "
        f"{one['kl_error_median']:.2g} nats in the median and {one['kl_error_p99']:.2g} at the "
        f"99th percentile, and "
        f"{one['kept_otherwise']:.2%} of {one['steps']:,} steps cross β."
        for pair, one in found["parts"].get("precision", {}).items()
    ]
    return "\n\n".join(said)


def _floors(found: dict[str, Any]) -> str:
    lines = []
    for part in _WHAT:
        for pair, figures in found["parts"].get(part, {}).items():
            for stage, floor in figures.get("work", {}).items():
                if "step_size" in figures:
                    stage = f"{stage}, {figures['step_size']} a step"
                lines.append(
                    f"| {stage} | {pair} | {floor['gflop']:.3g} | {floor['gigabytes']:.3g} | "
                    f"{_amount(floor['floor_seconds'], 's')} | {_amount(floor['seconds'], 's')} | "
                    f"{floor['share']:.0%} |"
                )
    if not lines:
        return ""
    limits = found["limits"]
    return "\n".join(
        [
            f"What each question (in training: each kept step) needs at least, on a device that "
            f"computes {limits['flops'] / 1e9:,.0f} GFLOP/s and reads "
            f"{limits['bytes'] / 1e9:,.1f} GB/s ({limits['source']}):",
            "",
            "| stage | pair | GFLOP | GB | floor | taken | reached |",
            "|---|---|---|---|---|---|---|",
            *lines,
        ]
    )


def _machine(found: dict[str, Any]) -> str:
    told, sizes = found["machine"], found["sizes"]
    return (
        f"{told['cpu']}, {told['cores']} cores, {told['ram_gib']} GiB, torch {told['torch']} with "
        f"{told['threads']} threads, {told['date']}. Medians of {sizes['repeats']} repeats taken "
        f"in turns (memory: fewer by one; scaling, bf16: one); {sizes['questions']} questions "
        f"here and some of median length in the plain loop, {sizes['new_tokens']} new tokens at "
        f"most, batches of {sizes['batch_size']}; {sizes['kept']} kept steps a trajectory. Memory: "
        f"growth of the resident set over the loaded models, in a process of its own; in sampling "
        f"both sides have as many rows a pass as a batch has."
    )


def _amount(value: float, unit: str) -> str:
    if unit == "bytes":
        return f"{value / 2**20:,.0f} MiB"
    return f"{value:.3g} s" if value >= 1 else f"{value * 1e3:.3g} ms"


def _times(value: float) -> str:
    return f"{value:.1f}x" if value < 10 else f"{value:.0f}x"
