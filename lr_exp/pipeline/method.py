"""The method of a run, with the built-in choices registered."""

from lr_exp.config.method import Method
from lr_exp.config.method import build_method as build_method
from lr_exp.config.settings import Settings
from lr_exp.distiller import losses
from lr_exp.pipeline import trajectories
from lr_exp.sampler import step_rules, targets

BUILT_IN = (trajectories, step_rules, targets, losses)  # importing them registers their functions


def method_of(settings: Settings) -> Method:
    """The method that these settings describe; see `build_method`."""
    alpha, beta, seed = settings.alpha, settings.beta, settings.seed
    return build_method(settings.method, alpha=alpha, beta=beta, seed=seed)
