"""LightReasoner experiments: a weaker amateur shows a stronger expert where to reinforce itself.

Importing the package imports nothing heavy; each room is imported by name
(`lr_exp.contrast` for the equations, `lr_exp.sampler`, `lr_exp.distiller`, `lr_exp.evaluator`).
"""

__version__ = "0.1.0"
