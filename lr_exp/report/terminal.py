"""The results of a run as text for the terminal."""

import os
import re
import textwrap
from collections.abc import Callable, Mapping
from itertools import chain
from pathlib import Path
from statistics import mean

from lr_exp.errors import printable
from lr_exp.report.analyse.paired import Estimate, accuracy_from_counts, average
from lr_exp.report.analyse.pooled import parts_of, pooled
from lr_exp.report.read.summary import (
    DistillSummary,
    EvaluateSummary,
    Result,
    Samples,
    SampleSummary,
    Summary,
)
from lr_exp.report.tables import cell
from lr_exp.report.tables.decomposition import in_words
from lr_exp.report.tables.formats import one_line, plain_table
from lr_exp.report.tables.table import Column, table_of, text_column
from lr_exp.store.run_folder import PAGE

_WIDTH = 80  # columns of sentences
_UNIT = re.compile(r"(?<=\d) (?=(?:s|nats)\b)|(?<=\d s) (?=\(from)")


def summary_table(summary: Summary) -> str:
    """A short report: what ran, what was kept, what it cost, accuracy before and after.

    Without the warnings, which were logged.
    """
    lines = ["", _headline(summary)]
    if summary.sample is not None:
        lines.append(_sentence("sampled", _sampled(summary.sample)))
    if summary.distill is not None:
        distill = summary.distill
        read = f", {distill.tokens_read:,} read" if distill.tokens_read is not None else ""
        best = f" (best: {distill.best_step:,})" if distill.best_step is not None else ""
        text = (
            f"{distill.optimizer_steps:,} optimizer steps{best}, "
            f"{distill.tuned_tokens:,} tuned tokens "
            f"({distill.passes or 0:,.1f} passes over {distill.kept_steps:,} steps{read}), "
            f"final loss {distill.final_loss:.4f}, {_cost(distill)}"
        )
        lines.append(_sentence("distilled", text))
    if summary.evaluate is not None and summary.evaluate.expert:
        lines += ["", *_accuracies(summary.evaluate)]
    return "\n".join([*lines, ""])


def cell_results(summary: Summary) -> dict[str, str]:
    """What the table of a sweep shows of a run, by column: kept steps and mean accuracies."""
    results = {}
    if summary.sample is not None:
        results["kept"] = f"{summary.sample.kept or 0:,}"
    if summary.evaluate is not None and summary.evaluate.expert:
        means = {who: [*own.values()][-1] for who, own in _shares(summary.evaluate).items()}
        results |= {who: cell.percent(one) for who, one in means.items()}
        if "tuned" in means:
            results["gain"] = cell.signed(100 * (means["tuned"].mean - means["expert"].mean))
    return results


def sweep_table(results: Mapping[str, Mapping[str, str]]) -> str:
    """A row of `cell_results` for each cell, by the cells' names."""
    names = dict.fromkeys(name for own in results.values() for name in own)
    columns = [(Column(name), [own.get(name, "") for own in results.values()]) for name in names]
    return plain_table(table_of("", "", [text_column("cell", results), *columns], []))


def results_lines(folder: Path) -> str:
    """The paths of a run's folder and of its page, if it has one."""
    shown = printable(relative(folder))
    page = f"\nReport:  {shown}/{PAGE}" if (folder / PAGE).exists() else ""
    return f"Results: {shown}{page}"


def relative(folder: Path) -> str:
    """A folder's path from the working directory if that is shorter."""
    return min(str(folder), os.path.relpath(folder), key=len)


def _sentence(label: str, text: str) -> str:
    text = _UNIT.sub("\xa0", one_line(text))  # keeps a number and its unit on one line
    filled = textwrap.fill(text, _WIDTH, initial_indent=f"{label:<11}", subsequent_indent=" " * 11)
    return filled.replace("\xa0", " ")


def _headline(summary: Summary) -> str:
    parts = [f"expert {one_line(summary.expert)}"]
    if summary.amateur is not None:
        parts.append(f"amateur {one_line(summary.amateur)}")
    numbers = {"alpha": summary.alpha, "beta": summary.beta}
    parts += [f"{name} {value:g}" for name, value in numbers.items() if value is not None]
    trained = summary.sample is not None or summary.distill is not None
    method = summary.method or (
        f"supervision from {summary.data}" if trained else "evaluation only"
    )
    return f"{one_line(method)}: {', '.join(parts)}, seed {summary.seed}"


def _sampled(sample: SampleSummary) -> str:
    steps, kept = sample.steps, sample.kept or 0
    moving = ""
    if sample.moving is not None:
        loss = sample.moving_loss_share
        carried = f", with {loss:.0%} of the loss before training" if loss else ""
        moving = f"; {sample.moving_of_kept:.1%} of them moving{carried}"
    of = f" of {steps:,} steps ({kept / steps:.1%}{moving})" if steps else " steps"
    of += "" if sample.conflicts is None else f", dropped {sample.conflicts:,} in conflict"
    kl = f", mean KL {sample.kl_mean:.3f} nats" if sample.kl_mean is not None else ""
    return f"{sample.questions:,} questions, kept {kept:,}{of}{kl}, {_cost(sample)}"


def _cost(stage: SampleSummary | DistillSummary | EvaluateSummary) -> str:
    return f"{stage.seconds:.1f} s{' (from the store)' if stage.reused else ''}"


def _shares(evaluate: EvaluateSummary) -> dict[str, dict[str, Estimate]]:
    """Shares of correct answers by model and benchmark; of several, the last is their average."""
    models = {"expert": evaluate.expert or {}, "tuned": evaluate.tuned or {}}
    shares = {
        who: {name: accuracy_from_counts(one) for name, one in results.items()}
        for who, results in models.items()
        if results
    }
    for own in shares.values():
        if len(own) > 1:  # the unweighted mean, as in the paper
            own["average"] = average(list(own.values()))
    return shares


def _accuracies(evaluate: EvaluateSummary) -> list[str]:
    shares = _shares(evaluate)
    before, after = shares["expert"], shares.get("tuned")
    columns = [
        text_column("benchmark", before),
        (Column("n"), [f"{one.questions:,}" for one in before.values()]),
        *(
            (Column(who), [cell.percent(own[name]) for name in before])
            for who, own in shares.items()
        ),
    ]
    if after:
        gains = [cell.signed(100 * (after[name].mean - before[name].mean)) for name in before]
        columns.append((Column("gain"), gains))
    lines = [plain_table(table_of("", "", columns, [])), _sentence("answers", _answers(evaluate))]
    if evaluate.prompts and len(evaluate.prompts) > 1:
        lines.append(_sentence("prompts", _prompts(evaluate)))
    if parts := [*parts_of([evaluate]).values()]:
        lines.append(_sentence("made of", in_words(parts[-1])))
    if evaluate.samples is not None:
        lines.append(_sentence("samples", _samples(evaluate.samples)))
    points = "; gain in points" if after else ""
    decoded = "" if evaluate.decoder == "greedy" else f"{evaluate.decoder} decoding, "
    about = "pass@1 in % ± the wider side of its 95 % interval"
    return [*lines, f"{about}{points}; {decoded}{_cost(evaluate)}"]


def _prompts(evaluate: EvaluateSummary) -> str:
    """The average accuracies with each prompt, and the gain between the best ones."""
    shown = []
    for name, prompt in (evaluate.prompts or {}).items():
        both = (own.values() for own in (prompt.expert, prompt.tuned) if own)
        means = [mean(one.accuracy for one in own) for own in both]
        gain = f" ({cell.signed(100 * (means[1] - means[0]))})" if len(means) == 2 else ""
        shown.append(f"{one_line(name)} {cell.change(*means)}{gain}")
    best = [*pooled([evaluate], lambda one: one.best_prompt).values()]
    less = [*pooled([evaluate], lambda one: one.shrinkage).values()]
    text = ", ".join(shown)
    if best and less:
        text += f"; between the best prompts of each: {cell.with_interval(best[-1])}, smaller by "
        text += cell.with_interval(less[-1])
    return text


def _samples(found: Samples) -> str:
    """pass@k of the untuned expert, averaged over benchmarks, and the won questions it covers."""
    k, covered = found.samples, [*(found.coverage or {}).values()]
    passed = mean(one.pass_at[str(k)].share for one in found.expert.values())
    text = f"{k:,} a question at temperature {found.temperature:g}, {found.seconds or 0:.1f} s: "
    text += f"untuned pass@{k} {100 * passed:.1f} %"
    if covered:
        won = sum(one.had_right for one in covered), sum(one.won for one in covered)
        text += f", a correct one for {cell.part_of(*won)} questions won"
    return text


def _answers(evaluate: EvaluateSummary) -> str:
    """How answers were read, averaged over benchmarks, `expert → tuned`."""
    evaluated = [own.values() for own in (evaluate.expert, evaluate.tuned) if own]
    models = [[one for one in own if one.metric is None] for own in evaluated]
    if not all(models):
        return "graded by lm-evaluation-harness"

    def shares(count: Callable[[Result], float | None]) -> str:
        return cell.change(*(mean((count(one) or 0) / one.total for one in own) for own in models))

    parts = {
        "cut off": shares(lambda one: one.truncated),
        "without an answer": shares(lambda one: one.no_answer),
        "boxed": shares(lambda one: one.boxed),
        "strict": shares(lambda one: (one.strict_accuracy or 0) * one.total),
    }
    if not any(one.no_answer for one in chain(*models)):
        del parts["without an answer"]
    hint = " (evaluator.max_new_tokens)" if any(one.truncated for one in chain(*models)) else ""
    return ", ".join(f"{name} {value} %" for name, value in parts.items()) + hint
