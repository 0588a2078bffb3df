"""The benchmark: this project's paths against the published loops. Run as `python -m bench`."""
