"""Evaluation: prompts, greedy answers, and grading in three steps (extract, verify, aggregate)."""
