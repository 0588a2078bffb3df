"""Checks that all ranks of a run have the same code, settings, inputs and store."""

from pathlib import Path

from lr_exp import distributed
from lr_exp.pipeline.inputs import Inputs
from lr_exp.store import digest, file_digest


def check_machines(inputs: Inputs, installed: dict[str, str]) -> None:
    """Raises UserError where a rank has other versions, another device or another store."""
    if not distributed.is_distributed():
        return
    store, package = Path(inputs.settings.store), Path(__file__).resolve().parents[1]
    code = {str(path.relative_to(package)): file_digest(path) for path in package.rglob("*.py")}
    distributed.check_same(
        {
            "device (a process without a GPU needs device=cpu)": inputs.device.partition(":")[0],
            "precision": inputs.dtype,
            "code of lr_exp": digest(code),  # two checkouts may have the same version
            "store (all hosts must share it)": store.stat().st_ino if store.exists() else None,
            **{f"version of {name}": value for name, value in installed.items()},
        }
    )


def check_files(inputs: Inputs) -> None:
    """Raises UserError where ranks see different models or questions, or one has no question."""
    if not distributed.is_distributed():
        return
    found = inputs.fingerprints()
    benchmarks = found.pop("benchmarks")
    named = {f"benchmark {name}": value for name, value in benchmarks.items()}
    distributed.check_same(found | named)
    settings, count = inputs.settings, distributed.world_size()
    if "sample" not in settings.stages or settings.imports_records:
        return
    questions = len(inputs.questions)
    if questions < count:
        raise distributed.SharedError(
            f"data={settings.data.name} has {questions} questions for {count} processes: start at "
            f"most {questions} (torchrun --nproc-per-node), or use more questions."
        )
