"""Probes where the loss lies: on right or wrong answers, and before or after an answer's error.

An answer's error is its first false `expression = number`. Others are not found: first read in how
many wrong answers one is. Nothing is trained.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from lr_exp.audit.continuations import is_right, labels_of
from lr_exp.config.settings import Settings
from lr_exp.evaluator.equations import first_false_equation
from lr_exp.models.vocabulary import count_within, text_of
from lr_exp.report.analyse.paired import wilson
from lr_exp.report.tables.table import Column, Table, table_of, text_column
from lr_exp.report.texts import report_text
from lr_exp.sampler.profile import effect_of
from lr_exp.sampler.supervision import read_supervision
from lr_exp.store.shards import read_shards

PLACES = ("before", "at", "after")  # of a kept position: relative to the number of the error


def losses(settings: Settings) -> list[dict[str, Any]]:
    """For each answer `question_id`, `right`, `has_error` and its loss by PLACES, all `before` if
    there is no error: sums of KL(label ‖ expert) over kept positions before training, in nats.

    Raises UserError: see `labels_of`.
    """
    context, trajectories, steps, supervision = labels_of(settings)
    inputs, tokenizer = context.inputs, context.inputs.expert_tokenizer
    scores = {(row["index"], row["step"]): row for row in read_shards(steps.folder)}
    answers = {row["index"]: row["token_ids"] for row in read_shards(trajectories.artifact.folder)}
    records = []
    for one in read_supervision(supervision.folder):
        ids = answers[one.index]
        question = inputs.questions[one.index // trajectories.answers_per_question]
        error = first_false_equation(text_of(tokenizer, ids))
        ends = [count_within(tokenizer, ids, end) for end in error or ()]
        parts = dict.fromkeys(PLACES, 0.0)
        for step, label in zip(one.steps, one.labels, strict=True):
            place = sum(step >= end for end in ends)  # 1 from the number on, 2 behind it
            parts[PLACES[place]] += effect_of(label, scores[one.index, step]).loss
        right = is_right(inputs, question, ids)
        record = {"question_id": one.question_id, "right": right, "has_error": error is not None}
        records.append(record | parts)
    return records


def errors_table(records: Sequence[dict[str, Any]]) -> Table:
    """Shares of answers and of the loss, with 95 % intervals over answers."""
    right, found = (np.array([one[key] for one in records]) for key in ("right", "has_error"))
    parts = np.array([[one[place] for place in PLACES] for one in records])
    loss, every = parts.sum(axis=1), np.ones(len(records))
    placed = found & ~right
    measured = [
        ("answers: wrong", every, ~right),
        ("loss: on wrong answers", loss, ~right),
        ("wrong answers: with a false equation", every * ~right, found),
        ("right answers: with a false equation", every * right, found),
        *(
            (f"their loss: {place} its number", loss * placed, parts[:, place_] / loss.clip(1e-9))
            for place_, place in enumerate(PLACES)
        ),
    ]
    rows: list[dict[str, Any]] = []
    for what, weights, shares in measured:
        if total := weights.sum():
            share = float((weights * shares).sum() / total)
            # Kish's number of equally weighted answers; Wilson's interval is wide for parts of one.
            ends = wilson(share, float(total**2 / (weights**2).sum()))
            percent, low, high = (100 * one for one in (share, *ends))
            row = {"share": what, "n": int((weights > 0).sum())}
            rows.append(row | {"percent": percent, "low": low, "high": high})
    columns = [
        text_column("share of", [one["share"] for one in rows]),
        (Column("n"), [str(one["n"]) for one in rows]),
        (Column("%"), ["{percent:.1f} ({low:.1f} to {high:.1f})".format(**one) for one in rows]),
    ]
    return table_of("errors", "Where the loss lies", columns, rows, [report_text("errors")])
