"""Versions of the packages that results depend on."""

import platform
from importlib.metadata import version

from lr_exp import __version__

MODEL_PACKAGES = ("torch", "transformers", "tokenizers")
RENDERING_PACKAGES = ("transformers", "tokenizers")  # from a question to token ids
GRADING_PACKAGES = ("math-verify", "latex2sympy2_extended", "sympy")


def versions() -> dict[str, str]:
    """Versions that results depend on, this package's first."""
    packages = (*MODEL_PACKAGES, "peft", "accelerate", "datasets", *GRADING_PACKAGES)
    return {
        "lr_exp": __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
    }
