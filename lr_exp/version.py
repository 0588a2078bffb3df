"""The package's version. Knows nothing else, so that all may ask."""

__version__ = "0.1.0"
