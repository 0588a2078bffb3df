"""Names of the files in a run's folder."""

SUMMARY = "summary.json"  # all headline numbers; written last
FAILED = "failed.json"  # instead of the summary, after an error
METRICS = "metrics.jsonl"  # one logged record a line
TRAJECTORIES = "trajectories.json"  # a few sampled answers, token by token, for people to read
ANSWERS = "answers"  # folder of WHO/BENCHMARK.jsonl, all graded answers
PAGE = "report.html"
LOCK = ".lock"  # held by the process that writes to the folder
