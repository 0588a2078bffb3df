"""A run's stages, put together from settings and a store. Knows who needs whom, nothing else."""

from collections.abc import Sequence
from pathlib import Path

from lr_exp.config.settings import Settings
from lr_exp.pipeline.distilling import DistillerStages
from lr_exp.pipeline.evaluating import EvaluatorStages
from lr_exp.pipeline.inputs import Inputs
from lr_exp.pipeline.sampling import SamplerStages
from lr_exp.pipeline.workbench import Workbench
from lr_exp.store import Store


class Experiment:
    """The rooms of one run around its inputs and its workbench."""

    def __init__(self, settings: Settings, store: Store, conf_dirs: Sequence[Path]) -> None:
        self.settings = settings
        self.inputs = Inputs(settings, conf_dirs, store)
        self.bench = Workbench(self.inputs, store)
        self.sampler = SamplerStages(self.inputs, self.bench)
        self.distiller = DistillerStages(self.inputs, self.bench)
        self.evaluator = EvaluatorStages(self.inputs, self.bench)
