"""Reads the folders of runs: summaries, graded answers, and what failed runs left."""
