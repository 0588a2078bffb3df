"""Formats results as Markdown tables and inserts them into a document."""

from pathlib import Path
from typing import Any

from lr_exp.errors import UserError
from lr_exp.store import write_atomically

START, END = "<!-- bench -->", "<!-- /bench -->"

_TITLES = {
    "sampling": "sampling, time per question",
    "training": "training, time per kept step, {train_batch_size} per optimizer step",
    "training_whole": "training, time per kept step, {train_batch_size} per optimizer step",
    "training_order": "training, the same, in the published order (`distiller.order=steps`)",
    "evaluation": "evaluation, time per question",
    "harness": "evaluation, the same against lm-evaluation-harness, up to {new_tokens} tokens in "
    "batches of {batch_size} ({equal} of {questions} answers are identical)",
}


def markdown(results: dict[str, Any]) -> str:
    """Tables of a benchmark's results, and a description of the machine."""
    sections = (_compared, _scaling, _startup, _precision, _floors, _machine)
    texts = [section(results) for section in sections]
    return "\n\n".join(text for text in texts if text) + "\n"


def insert_into_document(path: Path, text: str) -> None:
    """Replaces the text between the markers.

    Raises:
        UserError: the document lacks a marker.
    """
    document = path.read_text("utf-8")
    # The start marker may also serve as the end marker.
    end = END if END in document else START
    before, opening, rest = document.partition(START)
    _, closing, after = rest.partition(end)
    if not opening or not closing:
        raise UserError(f"{path}: no place for the table. Add the lines {START} and {END}.")
    write_atomically(path, f"{before}{START}\n\n{text}\n{end}{after}")


def _compared(results: dict[str, Any]) -> str:
    rows = []
    for part, title in _TITLES.items():
        for pair, figures in results["parts"].get(part, {}).items():
            rows.append((title.format(**figures), pair, figures))
    for pair, tasks in results["parts"].get("memory", {}).items():
        rows += [(_memory_title(task), pair, figures) for task, figures in tasks.items()]
    if not rows:
        return ""
    lines = [
        "| measurement | pair | loop or library | this project | ratio (lowest to highest) |",
        "|---|---|---|---|---|",
    ]
    for title, pair, figures in rows:
        plain, ours = (
            _amount(figures[side]["median"], figures["unit"]) for side in ("plain", "ours")
        )
        ratio = figures["ratio"]
        spread = f"{_times(ratio['median'])} ({_times(ratio['min'])} to {_times(ratio['max'])})"
        lines.append(f"| {title} | {pair} | {plain} | {ours} | {spread} |")
    return "\n".join(lines)


def _memory_title(task: str) -> str:
    other = " against lm-evaluation-harness" if task == "evaluation" else ""
    return f"{task}, peak memory{other}"


def _scaling(results: dict[str, Any]) -> str:
    blocks = []
    for pair, rows in results["parts"].get("scaling", {}).items():
        lines = [
            f"| questions ({pair}) | time per question | peak memory above the models |",
            "|---|---|---|",
        ]
        for row in rows:
            time, memory = _amount(row["seconds"], "s/question"), _amount(row["bytes"], "bytes")
            lines.append(f"| {row['questions']:,} | {time} | {memory} |")
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def _startup(results: dict[str, Any]) -> str:
    figures = results["parts"].get("startup")
    if figures is None:
        return ""
    return (
        f"From starting the program to the first sampled token of the micro pair: "
        f"{figures['median']:.1f} s ({figures['min']:.1f} to {figures['max']:.1f})."
    )


def _precision(results: dict[str, Any]) -> str:
    lines = [
        f"bf16 weights on this CPU ({pair}, log-softmax in fp32): scoring the same answers is "
        f"{_times(figures['ratio'])} as fast; the KL divergence differs by "
        f"{figures['kl_error_median']:.2g} nats in the median and {figures['kl_error_p99']:.2g} at "
        f"the 99th percentile, and {figures['kept_otherwise']:.2%} of {figures['steps']:,} steps "
        f"cross β."
        for pair, figures in results["parts"].get("precision", {}).items()
    ]
    return "\n\n".join(lines)


def _floors(results: dict[str, Any]) -> str:
    lines = []
    for part in _TITLES:
        for pair, figures in results["parts"].get(part, {}).items():
            for stage, floor in figures.get("work", {}).items():
                if "train_batch_size" in figures:
                    stage = f"{stage}, {figures['train_batch_size']} per optimizer step"
                if part == "training_order":
                    stage = f"{stage}, published order"
                lines.append(
                    f"| {stage} | {pair} | {floor['gflop']:.3g} | {floor['gigabytes']:.3g} | "
                    f"{_amount(floor['floor_seconds'], 's')} | {_amount(floor['seconds'], 's')} | "
                    f"{floor['share']:.0%} |"
                )
    if not lines:
        return ""
    limits = results["limits"]
    return "\n".join(
        [
            f"Minimum work per question (training: per kept step) on a device that "
            f"computes {limits['flops'] / 1e9:,.0f} GFLOP/s and reads "
            f"{limits['bytes'] / 1e9:,.1f} GB/s ({limits['source']}):",
            "",
            "| stage | pair | GFLOP | GB | minimum | measured | utilization |",
            "|---|---|---|---|---|---|---|",
            *lines,
        ]
    )


def _machine(results: dict[str, Any]) -> str:
    machine, sizes = results["machine"], results["sizes"]
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['ram_gib']} GiB, torch "
        f"{machine['torch']} with {machine['threads']} threads, {machine['date']}. Medians of "
        f"{sizes['repeats']} alternating repeats (memory: one repeat fewer; scaling, bf16: one "
        f"repeat); {sizes['questions']} questions in this project and a few of median length in "
        f"the plain loop, at most {sizes['new_tokens']} new tokens, batches of "
        f"{sizes['batch_size']}, {sizes['kept']} kept steps per trajectory. Memory: growth "
        f"of the resident set above the loaded models in a separate process; in sampling both "
        f"sides have as many rows per pass as a batch has."
    )


def _amount(value: float, unit: str) -> str:
    if unit == "bytes":
        return f"{value / 2**20:,.0f} MiB"
    return f"{value:.3g} s" if value >= 1 else f"{value * 1e3:.3g} ms"


def _times(value: float) -> str:
    return f"{value:.1f}x" if value < 10 else f"{value:.0f}x"
