"""The sampler's stages as recipes: what determines each, and which function makes it.

Knows inputs, the workbench and the rooms' functions; knows neither Hydra nor W&B.
"""

import logging
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lr_exp import distributed
from lr_exp.config.settings import Settings
from lr_exp.data.questions import fingerprint, prompts_fingerprint
from lr_exp.errors import UserError
from lr_exp.evaluator import grade
from lr_exp.evaluator.prompts import worked_answer
from lr_exp.models import loading, locating
from lr_exp.pipeline.inputs import GRADING_PACKAGES, RENDERING_PACKAGES, Inputs
from lr_exp.pipeline.workbench import Workbench
from lr_exp.sampler import reading, records, references, rollout, score, select
from lr_exp.sampler.supervision import StoredSupervision
from lr_exp.store import Artifact, Recipe, file_digest

log = logging.getLogger(__name__)

_LEAST_OWN_SHARE = 0.95


class SamplerStages:
    """Questions to supervision."""

    def __init__(self, inputs: Inputs, bench: Workbench) -> None:
        self._inputs = inputs
        self._bench = bench

    def trajectories(self) -> list[Artifact]:
        """What the method learns from, last; before it, what that was made from."""
        kind = self._inputs.settings.method.trajectories
        if kind == "expert_greedy":
            return [self._roll_out()]
        if kind == "human_solution":
            return [self._write_solutions()]
        answers = self._sample_answers()
        return [answers, self._keep_verified(answers)]

    def _roll_out(self) -> Artifact:
        """Questions to the expert's own answers."""
        sampler = self._inputs.settings.sampler
        told = {
            "system_prompt": sampler.system_prompt,
            "max_new_tokens": sampler.max_new_tokens,
            "batch_size": sampler.batch_size,
        }
        return self._written_by_expert("rollout", rollout.roll_out, told)

    def _sample_answers(self) -> Artifact:
        """Questions to several full answers each, drawn from the expert."""
        source = self._inputs
        sampler, method = source.settings.sampler, source.settings.method
        told = {
            "system_prompt": sampler.system_prompt,
            "batch_size": sampler.batch_size,
            "max_new_tokens": method.max_new_tokens,
            "samples": method.samples,
            "temperature": method.temperature,
            "top_p": method.top_p,
            "seed": source.settings.seed,
        }
        return self._written_by_expert("sampled", rollout.sample_answers, told)

    def _written_by_expert(
        self, stage: str, write: Callable[..., dict[str, Any]], told: dict[str, Any]
    ) -> Artifact:
        """The expert's answers to the questions, `write` being told how."""
        source = self._inputs
        recipe = Recipe(
            stage,
            rollout.VERSION,
            {
                "questions": prompts_fingerprint(source.questions),
                "expert": source.expert.fingerprint,
            },
            {**told, **self._bench.machine("sampler")},
        )

        def build(folder: Path) -> dict[str, Any]:
            with self._bench.answering("sampler") as (expert, generate):
                return write(source.questions, expert, folder, **told, generate=generate)

        return self._bench.make_if_asked("sample", recipe, build, together=True)

    def _keep_verified(self, answers: Artifact) -> Artifact:
        """Sampled answers to those that equal the reference."""
        source = self._inputs
        kind, samples = source.settings.data.answer, source.settings.method.samples
        recipe = Recipe(
            "verified",
            references.VERSION,
            {
                "answers": answers.address,
                "questions": fingerprint(source.questions),  # their references
                **{name: version(name) for name in GRADING_PACKAGES},
            },
            {"kind": kind, "grading": grade.VERSION},
        )

        def is_right(index: int, text: str) -> bool:
            question = source.questions[index // samples]
            return grade.grade_answer(text, question.answer or "", kind, question.choices).correct

        return self._bench.make_if_asked(
            "sample",
            recipe,
            lambda folder: references.keep_verified(
                answers.folder,
                loading.load_tokenizer(source.expert),
                is_right,
                folder,
                samples=samples,
            ),
        )

    def _write_solutions(self) -> Artifact:
        """Questions to their human solutions, as the expert's tokens."""
        source = self._inputs
        told = {"system_prompt": source.settings.sampler.system_prompt}
        recipe = Recipe(
            "solutions",
            references.VERSION,
            {
                "questions": fingerprint(source.questions),
                "expert": source.expert.fingerprint,
            },
            {**told, **{name: version(name) for name in RENDERING_PACKAGES}},
        )

        def build(folder: Path) -> dict[str, Any]:
            return references.write_solutions(
                source.questions,
                (worked_answer(q) if q.answer else q.solution or "" for q in source.questions),
                loading.load_tokenizer(source.expert),
                folder,
                context=locating.config_context(source.expert),
                **told,
            )

        return self._bench.make_if_asked("sample", recipe, build)

    def score(self, trajectories: Artifact) -> Artifact:
        """Trajectories to the step table."""
        source = self._inputs
        sampler = source.settings.sampler
        told = {
            "system_prompt": sampler.system_prompt,
            "support_floor": sampler.support_floor,
            "tokens_per_pass": sampler.tokens_per_pass,
        }
        recipe = Recipe(
            "score",
            score.VERSION,
            {
                "trajectories": trajectories.address,
                "expert": source.expert.fingerprint,
                "amateur": source.amateur.fingerprint,
                "shared": asdict(source.shared),
            },
            {**told, **source.machine},
        )
        steps = self._bench.make_if_asked(
            "sample",
            recipe,
            lambda folder: score.score(
                trajectories.folder, *self._bench.pair(), source.shared, folder, **told
            ),
            together=True,
        )
        if not distributed.is_rank0():
            return steps  # one warning is enough
        if source.settings.sampler.engine != "transformers" and trajectories.stage == "rollout":
            _check_writer(score.own_share(steps.folder), source.settings)
        return steps

    def select(self, trajectories: Artifact, steps: Artifact | None) -> Artifact:
        """The step table to supervision, and what is known of the divergences.

        Without a step table, for methods that ask no amateur, the trajectories' own tokens.
        """
        source = self._inputs
        method, settings = source.settings.method, source.settings
        # A choice that does not read a number has one address for all of its values.
        told = {
            "steps": method.steps,
            "target": method.target,
            "alpha": settings.alpha if method.reads_alpha else None,
            "beta": settings.beta if method.reads_beta else None,
            "first": method.first if method.steps == "first" else None,
            "share": method.share if method.steps == "kl_top" else None,
            "seed": settings.seed if method.steps == "random" else None,
        }
        recipe = Recipe(
            "supervision",
            select.VERSION,
            {
                "trajectories": trajectories.address,
                "steps": steps.address if steps else None,
            },
            told,
        )

        def build(folder: Path) -> dict[str, Any]:
            return select.write(
                trajectories.folder,
                steps.folder if steps else None,
                method,
                folder,
                alpha=settings.alpha,
                beta=settings.beta,
                seed=settings.seed,
            )

        return self._bench.make_if_asked("sample", recipe, build)

    def import_records(self) -> Artifact:
        """A file of kept steps in the published form to supervision."""
        source = self._inputs
        path = Path(source.settings.data.path or "").expanduser()
        told = {
            "system_prompt": source.settings.sampler.system_prompt,
            **{name: version(name) for name in RENDERING_PACKAGES},
        }
        inputs = {
            "records": file_digest(path) if path.is_file() else None,
            "expert": source.expert.fingerprint,  # its tokenizer reads prefixes without ids
        }
        tokenizer = loading.load_tokenizer(source.expert)

        def build(folder: Path) -> dict[str, Any]:
            supervision = records.import_records(
                path,
                tokenizer,
                system_prompt=told["system_prompt"],
                vocabulary_size=len(loading.tokens_by_id(tokenizer)),
            )
            supervision.save(folder)
            return {**records.profile(supervision), "digest": supervision.digest()}

        # Reading a file is no sampling: it is done whichever stages were asked for.
        return self._bench.store.make(Recipe("records", records.VERSION, inputs, told), build)

    def read(
        self, trajectories: Artifact, steps: Artifact | None, supervision: Artifact
    ) -> dict[str, Any]:
        """Some of the answers for a person, see `reading.readable`."""
        source = self._inputs
        method, settings = source.settings.method, source.settings
        samples = method.samples if method.trajectories == "expert_verified" else 1

        def verdict(index: int, text: str) -> reading.Verdict | None:
            question = source.questions[index // samples]
            # A human's solution is no answer of the expert's.
            if question.answer is None or method.trajectories == "human_solution":
                return None
            try:
                graded = grade.grade_answer(
                    text, question.answer, settings.data.answer, question.choices
                )
            except UserError:  # a broken reference: nothing is known
                return None
            return reading.Verdict(question.answer, graded.extracted, graded.correct)

        names = {
            "method": method.name,
            "expert": settings.expert.name,
            "amateur": settings.amateur.name if steps else None,
            "beta": settings.beta if method.reads_beta else None,
        }
        return names | reading.readable(
            trajectories.folder,
            steps.folder if steps else None,
            StoredSupervision(supervision.folder),
            loading.load_tokenizer(source.expert),
            alpha=settings.alpha if steps and method.reads_alpha else None,
            verdict=verdict,
        )

    def export(self, supervision: Artifact) -> Path | None:
        """Writes the kept steps in the published form, if the settings ask for it."""
        source = self._inputs
        if source.settings.sampler.export is None:
            return None
        path = Path(source.settings.sampler.export)
        tokenizer = loading.load_tokenizer(source.expert)
        distributed.run_on_rank0(
            lambda: records.export_records(StoredSupervision(supervision.folder), tokenizer, path)
        )
        return path


def _check_writer(own_share: float, settings: Settings) -> None:
    """Warns where an engine's greedy answers are not what the expert would have written.

    Rounding alone makes another token of one in a hundred at most; a quantized copy, another model
    with the same tokenizer or an adapter that was left on makes many.
    """
    if own_share < _LEAST_OWN_SHARE:
        log.warning(
            "sampler.engine=%s: the expert %s itself would have chosen only %.1f%% of the tokens "
            "that were written for it. Does the engine serve another model, another precision or "
            "an adapter?",
            settings.sampler.engine,
            settings.expert.name,
            100 * own_share,
        )
