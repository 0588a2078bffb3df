"""The sampler's stages as recipes: from questions to supervision."""

import logging
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lr_exp import distributed
from lr_exp.config.settings import Settings
from lr_exp.errors import UserError
from lr_exp.evaluator import grade
from lr_exp.models import loading
from lr_exp.pipeline.context import RunContext
from lr_exp.pipeline.trajectories import Trajectories
from lr_exp.pipeline.versions import RENDERING_PACKAGES
from lr_exp.sampler import reading, records, score, select
from lr_exp.sampler.supervision import StoredSupervision
from lr_exp.store import Artifact, Recipe, file_digest

log = logging.getLogger(__name__)

_MIN_EXPERT_TOP1_SHARE = 0.95


class SamplerStages:
    """Questions to supervision."""

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._inputs = context.inputs

    def trajectories(self) -> Trajectories:
        """The answers that the method learns from."""
        return self._inputs.method.trajectories(self._context)

    def score(self, trajectories: Artifact) -> Artifact:
        """Trajectories to the step table."""
        inputs = self._inputs
        sampler = inputs.settings.sampler
        settings = {
            "system_prompt": sampler.system_prompt,
            "support_floor": sampler.support_floor,
            "tokens_per_pass": sampler.tokens_per_pass,
        }
        recipe = Recipe(
            "score",
            score.VERSION,
            {
                "trajectories": trajectories.address,
                "expert": inputs.expert.fingerprint,
                "amateur": inputs.amateur.fingerprint,
                "shared": asdict(inputs.shared),
            },
            {**settings, **inputs.machine},
        )

        def build(folder: Path) -> dict[str, Any]:
            expert, amateur = self._context.models.pair()
            return score.score(
                trajectories.folder, expert, amateur, inputs.shared, folder, **settings
            )

        steps = self._context.artifacts.make_if_requested("sample", recipe, build, together=True)
        by_engine = sampler.engine != "transformers" and trajectories.stage == "rollout"
        if by_engine and distributed.is_rank0():
            _check_engine(score.expert_top1_share(steps.folder), inputs.settings)
        return steps

    def select(self, trajectories: Artifact, steps: Artifact | None) -> Artifact:
        """The step table to supervision; without one, the trajectories' own tokens."""
        method = self._inputs.method
        # A setting that the method does not read is None, so that its values share an address.
        settings = dict.fromkeys(("alpha", "beta", "seed", "first", "share"))
        settings |= {
            "steps": method.select.choice.name,
            **method.select.arguments,
            "target": method.target.choice.name,
            **method.target.arguments,
            **method.outside_sources("select", "target"),
        }
        recipe = Recipe(
            "supervision",
            select.VERSION,
            {"trajectories": trajectories.address, "steps": steps.address if steps else None},
            settings,
        )

        def build(folder: Path) -> dict[str, Any]:
            table = steps.folder if steps else None
            return select.write(trajectories.folder, table, method, folder)

        return self._context.artifacts.make_if_requested("sample", recipe, build)

    def import_records(self) -> Artifact:
        """A file of kept steps in the published form to supervision."""
        inputs = self._inputs
        path = Path(inputs.settings.data.path or "").expanduser()
        settings = {
            "system_prompt": inputs.settings.sampler.system_prompt,
            **{name: version(name) for name in RENDERING_PACKAGES},
        }
        recipe_inputs = {
            "records": file_digest(path) if path.is_file() else None,
            "expert": inputs.expert.fingerprint,  # its tokenizer reads prefixes without ids
        }
        tokenizer = loading.load_tokenizer(inputs.expert)

        def build(folder: Path) -> dict[str, Any]:
            supervision = records.import_records(
                path,
                tokenizer,
                system_prompt=settings["system_prompt"],
                vocabulary_size=len(loading.tokens_by_id(tokenizer)),
            )
            supervision.save(folder)
            return {**records.profile(supervision), "digest": supervision.digest()}

        # Reading a file does not count as the stage `sample`: it happens whatever `stages` says.
        recipe = Recipe("records", records.VERSION, recipe_inputs, settings)
        return self._context.artifacts.make(recipe, build, measured=False)

    def read(
        self, trajectories: Trajectories, steps: Artifact | None, supervision: Artifact
    ) -> dict[str, Any]:
        """Some of the answers with their scores and labels, for pages."""
        inputs = self._inputs
        method, settings = inputs.method, inputs.settings

        def verdict(index: int, text: str) -> reading.Verdict | None:
            question = inputs.questions[index // trajectories.answers_per_question]
            if question.answer is None or not trajectories.by_expert:
                return None
            try:
                graded = grade.grade_answer(
                    text, question.answer, settings.data.answer, question.choices
                )
            except UserError:  # the reference is broken
                return None
            return reading.Verdict(question.answer, graded.extracted, graded.correct)

        names = {
            "method": method.name,
            "expert": settings.expert.name,
            "amateur": settings.amateur.name if steps else None,
            "beta": settings.beta if method.reads("beta") else None,
        }
        return names | reading.sample_for_display(
            trajectories.artifact.folder,
            steps.folder if steps else None,
            StoredSupervision(supervision.folder),
            loading.load_tokenizer(inputs.expert),
            alpha=settings.alpha if steps and method.reads("alpha") else None,
            verdict=verdict,
        )

    def export(self, supervision: Artifact) -> Path | None:
        """Writes the kept steps in the published form to `sampler.export`, if it is set."""
        inputs = self._inputs
        if inputs.settings.sampler.export is None:
            return None
        path = Path(inputs.settings.sampler.export)
        tokenizer = loading.load_tokenizer(inputs.expert)
        distributed.run_on_rank0(
            lambda: records.export_records(StoredSupervision(supervision.folder), tokenizer, path)
        )
        return path


def _check_engine(top1_share: float, settings: Settings) -> None:
    """Warns where an engine's greedy tokens are often not the expert's own most probable ones.

    Rounding changes one token in a hundred at most; a quantized copy, another model with the same
    tokenizer or an attached adapter changes many.
    """
    if top1_share < _MIN_EXPERT_TOP1_SHARE:
        log.warning(
            "sampler.engine=%s: only %.1f%% of the generated tokens are the most probable ones of "
            "the expert %s. Does the engine serve another model, another precision or an adapter?",
            settings.sampler.engine,
            100 * top1_share,
            settings.expert.name,
        )
