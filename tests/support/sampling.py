"""The micro pair and a small sampling run."""

from pathlib import Path

from lr_exp.config.settings import ModelSettings
from lr_exp.models import loading, locating
from lr_exp.sampler import rollout, score
from lr_exp.sampler.rollout import COLUMNS
from lr_exp.store.shards import write_shard
from tests.support.tiny import tiny_tokenizer

SYSTEM = "Please reason step by step."


NEW_TOKENS = 64  # enough to meet kept steps, short enough for the plain loop


def load_micro(name: str) -> loading.LanguageModel:
    path = f"micro/models/{name}"
    source = locating.locate(
        ModelSettings(name=name, package="lr_exp", package_path=path), role="expert"
    )
    return loading.load(source, device="cpu", dtype="float32")


def sample(folder, pair, shared, questions, *, batch_size=4, tokens_per_pass=256, floor=1e-3):
    expert, amateur = pair
    trajectories, steps = folder / "trajectories", folder / "steps"
    trajectories.mkdir(parents=True)
    steps.mkdir()
    rollout.roll_out(
        questions,
        expert,
        trajectories,
        system_prompt=SYSTEM,
        max_new_tokens=NEW_TOKENS,
        batch_size=batch_size,
    )
    score.score(
        trajectories,
        expert,
        amateur,
        shared,
        steps,
        system_prompt=SYSTEM,
        support_floor=floor,
        tokens_per_pass=tokens_per_pass,
    )
    return trajectories, steps


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
