"""The method of a run, with the built-in choices registered."""

from lr_exp.config.method import Method
from lr_exp.config.method import build_method as build_method
from lr_exp.config.settings import Settings

# Importing these modules registers their functions.
from lr_exp.distiller import losses as losses
from lr_exp.pipeline import trajectories as trajectories
from lr_exp.sampler import step_rules as step_rules
from lr_exp.sampler import targets as targets


def method_of(settings: Settings) -> Method:
    """The method that these settings describe; see `build_method`."""
    alpha, beta, seed = settings.alpha, settings.beta, settings.seed
    return build_method(settings.method, alpha=alpha, beta=beta, seed=seed)
