"""What a run leaves in its folder, by name. Knows names alone, and imports nothing."""

SUMMARY = "summary.json"  # all headline numbers; written last
FAILED = "failed.json"  # in its place where a run ended in an error
METRICS = "metrics.jsonl"  # what was logged, a line each
TRAJECTORIES = "trajectories.json"  # some sampled answers, token by token, for a person
ANSWERS = "answers"  # of answers/WHO/BENCHMARK.jsonl, every graded answer
PAGE = "report.html"
