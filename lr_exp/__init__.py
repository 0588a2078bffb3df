"""Experiments with LightReasoner (arXiv 2510.07962).

`__all__` lists the public names, for scripts and notebooks. Each is imported on first use.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
