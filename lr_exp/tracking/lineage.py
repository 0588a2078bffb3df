"""Finished stages as W&B artifacts: what a run made is its output, what it found its input.

Knows the store's manifests and W&B's artifacts; knows nothing of what the files mean.
"""

import json
from pathlib import Path
from typing import Any

from lr_exp.store import MANIFEST, Artifact

# Stage -> W&B's type. What is not listed is not recorded: rollouts and scores are large, and
# supervision is what is made of them.
TYPES = {
    "supervision": "dataset",
    "records": "dataset",
    "adapter": "model",
    "grades": "answers",
}
_NOT_SENT = ("snapshots",)  # folders of an artifact: the adapter many times over


def name_of(artifact: Artifact) -> str:
    """Its stage and content address: the same artifact has the same name in every project."""
    return f"{artifact.stage}-{artifact.address}"


def record(run: Any, artifact: Artifact, made_here: bool, metadata: dict[str, Any]) -> None:
    """Records an artifact with W&B's run.

    Files stay in the store: `immutable` has W&B refer to them there until they are sent, instead of
    keeping a copy of each.

    Args:
        run: W&B's.
        artifact: finished; of a stage in `TYPES`.
        made_here: the run made it, now or in an earlier try.
        metadata: shown with it, beside facts and recipe.
    """
    import wandb

    manifest = json.loads((artifact.folder / MANIFEST).read_text("utf-8"))
    told = {name: manifest[name] for name in ("version", "facts", "inputs", "settings", "seconds")}
    sent = wandb.Artifact(
        name_of(artifact),
        type=TYPES[artifact.stage],
        metadata={"stage": artifact.stage, "address": artifact.address, **told, **metadata},
    )
    for name in sorted(manifest["files"]):
        if Path(name).parts[0] not in _NOT_SENT:
            path = str(artifact.folder / name)
            sent.add_file(path, name=name, policy="immutable", skip_cache=True)
    if made_here:
        run.log_artifact(sent)
        return
    # `use_artifact` asks the service which versions there are, and refuses offline. This is what it
    # does with an artifact that is not logged yet: the service finds the version by its digest,
    # whoever logged it, and notes that this run used it; only a service that does not have it yet
    # takes the files.
    run._log_artifact(sent, is_user_created=True, use_after_commit=True)
