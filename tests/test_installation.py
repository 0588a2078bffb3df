"""A fresh installation, with the newest versions that pyproject.toml admits."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FEW = (
    *("experiment=demo", "wandb.mode=disabled"),
    *("data.max_questions=4", "distiller.steps=2", "evaluator.max_examples=2"),
)


@pytest.mark.slow
def test_the_newest_admitted_versions_run_the_demo_without_a_warning(tmp_path):
    """A deprecation shows here before its version is pinned for development."""

    def call(*words: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
        """Outside of the checkout, which Python would import instead."""
        kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        return subprocess.run(  # noqa: S603  our own
            words, cwd=tmp_path, env=kept | env, capture_output=True, text=True, check=False
        )

    assert call(sys.executable, "-m", "venv", "fresh").returncode == 0
    python = tmp_path / "fresh" / "bin" / "python"
    pip = (python, "-m", "pip", "--quiet")
    if call(*pip, "install", "hatchling").returncode:
        pytest.skip("needs a package index")
    (tmp_path / "torch.txt").write_text("torch==2.13.0\n")  # another pulls gigabytes of CUDA
    done = call(*pip, "install", ROOT, "--constraint", "torch.txt")
    assert done.returncode == 0, done.stderr
    done = call(python, "-m", "lr_exp", *FEW, PYTHONWARNINGS="error")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "WARNING" not in done.stderr
