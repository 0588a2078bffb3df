"""The stages of a run, built from its inputs and a store."""

from lr_exp.pipeline.context import ArtifactMaker, Log, RunContext, no_log
from lr_exp.pipeline.distilling import DistillerStages
from lr_exp.pipeline.evaluating import EvaluatorStages
from lr_exp.pipeline.inputs import Inputs
from lr_exp.pipeline.loaded_models import LoadedModels
from lr_exp.pipeline.method import BUILT_IN as BUILT_IN
from lr_exp.pipeline.sampling import SamplerStages
from lr_exp.store import Store


class Experiment:
    """Sampler, distiller and evaluator stages over one shared context."""

    def __init__(self, inputs: Inputs, store: Store, log: Log = no_log) -> None:
        self.inputs = inputs
        self.models = LoadedModels(inputs, store.root)
        self.artifacts = ArtifactMaker(inputs, store)
        context = RunContext(inputs, self.models, self.artifacts, log)
        self.sampler = SamplerStages(context)
        self.distiller = DistillerStages(context)
        self.evaluator = EvaluatorStages(context)
