"""Speed and memory benchmarks against the published loops: `python -m bench`."""
