"""Methods with the built-in choices registered: import from here to build one."""

from lr_exp.config.method import build_method as build_method
from lr_exp.config.method import method_of as method_of
from lr_exp.distiller import losses
from lr_exp.pipeline import trajectories
from lr_exp.sampler import step_rules, targets

BUILT_IN = (trajectories, step_rules, targets, losses)  # importing them registers their functions
