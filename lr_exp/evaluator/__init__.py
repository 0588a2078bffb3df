"""Evaluation on benchmarks: `prompts`, then `answer`, then `grade`.

`grade` combines three functions, each in a file of its own: `extract` (output to final answer),
`verify` (final answer against the reference) and `aggregate` (grades to an accuracy). `verify`
compares with the help of `normalize`, `numbers` and `symbolic`.
"""
