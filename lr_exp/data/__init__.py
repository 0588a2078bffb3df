"""Questions: sources, formats and benchmarks."""
