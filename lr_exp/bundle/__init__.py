"""Replication bundles: finished runs without weights, in one file that can be verified.

`python -m lr_exp.bundle` writes one, and `python -m lr_exp.report` reads it beside other runs.
"""
