"""Questions in: sources, formats and benchmarks."""
