"""The evaluator's stages as recipes: what determines answers and grades, and what makes them.

Knows inputs, the workbench and the evaluator's functions. Answers are kept apart from their grades,
so that a mended reference or grader asks no model again.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lr_exp.config.settings import BenchmarkSettings
from lr_exp.data.questions import Question, fingerprint, prompts_fingerprint
from lr_exp.evaluator import answer, grade
from lr_exp.evaluator.aggregate import Aggregate, aggregate
from lr_exp.pipeline.distilling import Tuned
from lr_exp.pipeline.inputs import GRADING_PACKAGES, Inputs
from lr_exp.pipeline.workbench import Workbench
from lr_exp.store import Artifact, Recipe, write_atomically

ANSWERS = "answers.jsonl"


@dataclass(frozen=True)
class Evaluation:
    """A benchmark's result for one model, and where its graded answers are."""

    result: Aggregate
    seconds: float  # of answering and grading, whenever they were done
    reused: bool  # the answers were in the store
    cut_off: int  # answers that a limit ended
    answers: Path
    graded: Artifact  # what `answers` is a file of


class EvaluatorStages:
    """A model and a benchmark to graded answers."""

    def __init__(self, inputs: Inputs, bench: Workbench) -> None:
        self._inputs = inputs
        self._bench = bench

    def evaluate(
        self,
        benchmark: BenchmarkSettings,
        tuned: Tuned | None = None,
        *,
        who: str = "expert",
        decoder: str | None = None,
    ) -> Evaluation:
        """One benchmark, by one model.

        Args:
            benchmark: one of `benchmarks`.
            tuned: the expert with this adapter; None for a model as it came.
            who: "expert" or, without an adapter, "amateur".
            decoder: greedy, contrastive or sampled; None is `evaluator.decoder`. Only with that is
                it a point of the accuracy over training.
        """
        questions = self._inputs.benchmark_questions[benchmark.name]
        is_of_curve = who == "expert" and decoder is None  # otherwise the gap would be a second one
        decoder = decoder or self._inputs.settings.evaluator.decoder
        answers = self._answers(benchmark, questions, tuned, who, decoder)
        recipe = Recipe(
            "grades",
            grade.VERSION,
            {
                "answers": answers.address,
                "questions": fingerprint(questions),  # their references
                **{name: version(name) for name in GRADING_PACKAGES},
            },
            {"kind": benchmark.answer, "version": benchmark.version},
        )

        def build(folder: Path) -> dict[str, Any]:
            graded = grade.grade_all(
                questions, answer.read_outputs(answers.folder), benchmark.answer
            )
            lines = (json.dumps(line, ensure_ascii=False) + "\n" for line in graded)
            write_atomically(folder / ANSWERS, "".join(lines))
            return dict(aggregate([line["correct"] for line in graded]))

        grades = self._bench.store.make(recipe, build)
        result = Aggregate(**grades.facts)
        if is_of_curve:
            self._log_evaluation(benchmark.name, tuned, result)
        return Evaluation(
            result=result,
            seconds=answers.seconds + grades.seconds,
            reused=answers.reused,
            cut_off=answers.facts["questions"] - answers.facts["finished"],
            answers=grades.folder / ANSWERS,
            graded=grades,
        )

    def _log_evaluation(self, name: str, tuned: Tuned | None, result: Aggregate) -> None:
        """One point of the accuracy over training: the expert's is at step 0."""
        trained = self._inputs.settings.distiller.steps if tuned else 0
        step = trained if tuned is None or tuned.step is None else tuned.step
        self._bench.on_log(
            f"eval/{name}",
            step,
            {
                "accuracy": result["accuracy"],
                "stderr": result["stderr"],
                "correct": result["correct"],
                "total": result["total"],
            },
        )

    def _answers(
        self,
        benchmark: BenchmarkSettings,
        questions: Sequence[Question],
        tuned: Tuned | None,
        who: str,
        decoder: str,
    ) -> Artifact:
        source = self._inputs
        evaluator = source.settings.evaluator
        asked = source.amateur if who == "amateur" else source.expert
        shots = source.shots[benchmark.name]
        told: dict[str, Any] = {
            "system_prompt": evaluator.system_prompt,
            "max_new_tokens": evaluator.max_new_tokens,
            "batch_size": evaluator.batch_size,
        }
        inputs: dict[str, Any] = {
            "questions": prompts_fingerprint(questions),
            "shots": fingerprint(shots),
            "expert": asked.fingerprint,
            "adapter": tuned.digest if tuned else None,
            "benchmark": [benchmark.name, benchmark.version],
        }
        # Greedy answers keep the address that they had before there were other decoders.
        if decoder == "contrastive":
            inputs |= {
                "amateur": source.amateur.fingerprint,
                "shared": asdict(source.shared),
            }
            told |= {"decoder": decoder, "alpha": source.settings.alpha}
        elif decoder == "sampled":
            told |= {"decoder": decoder, "temperature": 1.0, "seed": 0}  # one draw for all runs
        machine = source.machine if who == "amateur" else self._bench.machine("evaluator")
        recipe = Recipe("answers", answer.VERSION, inputs, {**told, **machine})
        name = who if tuned is None else "tuned"
        if tuned is not None and tuned.step is not None:
            name = f"tuned, step {tuned.step}"
        told_apart = "" if decoder == "greedy" else f", {decoder}"

        def build(folder: Path) -> dict[str, Any]:
            pair = {}
            if decoder == "contrastive":
                pair = {"amateur": self._bench.amateur(), "shared": source.shared}
            adapter = tuned.adapter if tuned else None
            with self._bench.answering("evaluator", adapter, who) as (language_model, generate):
                return answer.answer(
                    questions,
                    language_model,
                    folder,
                    answer.AnswerSettings(shots=shots, **told),
                    generate=generate,
                    name=f"{benchmark.name} ({name}{told_apart})",
                    **pair,
                )

        return self._bench.make(recipe, build, together=True)
