"""Records finished stages as W&B artifacts: outputs if the run made them, otherwise inputs."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lr_exp.store import MANIFEST, Artifact

# Stage -> W&B artifact type. Rollouts and scores are large and are not recorded.
TYPES = {
    "supervision": "dataset",
    "records": "dataset",
    "adapter": "model",
    "grades": "answers",
}
_SKIPPED_FOLDERS = ("snapshots",)  # copies of the adapter during training


def artifact_name(artifact: Artifact) -> str:
    """Stage and content address, so that an artifact has the same name in every project."""
    return f"{artifact.stage}-{artifact.address}"


def record_artifact(
    run: Any, artifact: Artifact, made_here: bool, metadata: Mapping[str, Any]
) -> None:
    """Records an artifact in a W&B run.

    The policy `immutable` makes W&B reference the files in the store instead of copying them.

    Args:
        run: the `wandb.Run`.
        artifact: finished; its stage is in `TYPES`.
        made_here: whether this run made it, now or in an earlier attempt.
        metadata: added to the facts and the recipe.
    """
    import wandb

    manifest = json.loads((artifact.folder / MANIFEST).read_text("utf-8"))
    recipe = {
        name: manifest[name] for name in ("version", "facts", "inputs", "settings", "seconds")
    }
    recorded = wandb.Artifact(
        artifact_name(artifact),
        type=TYPES[artifact.stage],
        metadata={"stage": artifact.stage, "address": artifact.address, **recipe, **metadata},
    )
    for name in sorted(manifest["files"]):
        if Path(name).parts[0] not in _SKIPPED_FOLDERS:
            path = str(artifact.folder / name)
            recorded.add_file(path, name=name, policy="immutable", skip_cache=True)
    if made_here:
        run.log_artifact(recorded)
        return
    # `use_artifact` queries the service and fails offline. For an artifact that is not logged yet
    # it makes the call below: the service looks up the version by its digest, marks it as used by
    # this run, and requests the files only if it does not have them.
    run._log_artifact(recorded, is_user_created=True, use_after_commit=True)
