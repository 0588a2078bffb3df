"""Amateurs of the micro world that read single characters: trains one, and measures the error.

python -m bench.letters train [--out FOLDER] [--seed N]   # the amateur `micro_letters`
python -m bench.letters compare [FOLDER ...]              # the table of docs/tokenizers.md

`compare` scores the same answers with the amateur `micro` (the reference), with `micro` read letter
by letter, and with the amateurs in these folders. With TRL installed, also with its ULD loss.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from itertools import accumulate
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Annotated, Any

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from lr_exp.config.settings import ModelSettings, check_value
from lr_exp.data.questions import Question
from lr_exp.errors import UserError, command, run_program
from lr_exp.micro import model_folder
from lr_exp.micro.rebuild import write_model
from lr_exp.micro.tokenizer import END, PAD, UNKNOWN, build_tokenizer
from lr_exp.micro.training import Recipe, build_model, train
from lr_exp.micro.world import Behaviour, generate_problems
from lr_exp.models.loading import LanguageModel, ModelPair, load
from lr_exp.models.locating import locate
from lr_exp.models.prompt_forms import Prompt
from lr_exp.models.prompts import render_prompt
from lr_exp.sampler import rollout, score
from lr_exp.sampler.cross_tokenizer import CrossTokenizer
from lr_exp.store.shards import read_by_index, read_shards

# As `micro`, with more optimizer steps: its sequences are longer.
RECIPE = Recipe(Behaviour(0.05), steps=360)
BETA = 0.4


def letters_tokenizer() -> PreTrainedTokenizerFast:
    """The micro world's tokenizer with its words split into characters."""
    words = build_tokenizer()
    special = sorted(words.all_special_tokens, key=words.convert_tokens_to_ids)
    texts = "".join(token for token in words.get_vocab() if token not in special)
    vocabulary = {token: i for i, token in enumerate([*special, *sorted({*texts})])}
    tokenizer = Tokenizer(WordLevel(vocabulary, UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        unk_token=UNKNOWN,
        extra_special_tokens=[one for one in special if one not in (PAD, END, UNKNOWN)],
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )
    wrapped.chat_template = words.chat_template
    return wrapped


class LetterByLetter(torch.nn.Module):
    """The distributions over characters that a model of words implies.

    No word of the micro world is the beginning of another, so characters have one split into words,
    and the probability of a character is that of the words that go on with it.
    """

    def __init__(self, words: LanguageModel, letters: PreTrainedTokenizerFast) -> None:
        super().__init__()
        self.model, self._known = words.model, {}
        self._words, self._letters = words.tokenizer.get_vocab(), letters.get_vocab()

    def forward(self, input_ids, position_ids, logits_to_keep, use_cache=False):
        names = {index: name for name, index in self._letters.items()}
        ids, places = input_ids[0].tolist(), position_ids[0].tolist()
        rows = [
            self._log_probs([names[i] for i in ids[at - places[at] : at + 1]])
            for at in logits_to_keep.tolist()
        ]
        return SimpleNamespace(logits=torch.stack(rows)[None])

    def _log_probs(self, letters: list[str]) -> torch.Tensor:
        words, begun = [], ""
        for letter in letters:
            begun += letter
            if begun in self._words:
                words.append(self._words[begun])
                begun = ""
        key = tuple(words)
        if key not in self._known:
            logits = self.model(input_ids=torch.tensor([key])).logits[0, -1]
            self._known[key] = logits.double().softmax(-1).tolist()
        shares = torch.zeros(len(self._letters), dtype=torch.float64)
        for word, index in self._words.items():
            if word.startswith(begun):
                letter = word if word in self._letters else word[len(begun)]
                shares[self._letters[letter]] += self._known[key][index]
        return shares.log().clamp_min(-700)


def letter_by_letter(words: LanguageModel) -> LanguageModel:
    letters = letters_tokenizer()
    model = LetterByLetter(words, letters)
    size = len(letters)
    return replace(words, model=model, tokenizer=letters, vocabulary_size=size, context=None)


@command
def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.letters", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    training = commands.add_parser("train", help="trains the amateur `micro_letters`")
    comparing = commands.add_parser("compare", help="prints the table of docs/tokenizers.md")
    training.add_argument("--out", type=Path, default=Path("runs/models/micro_letters"))
    training.add_argument("--seed", type=int, default=8)
    comparing.add_argument("folders", type=Path, nargs="*")
    comparing.add_argument("--questions", type=int, default=100)
    options = parser.parse_args(words)
    if options.command == "train":
        tokenizer = letters_tokenizer()
        model = build_model(RECIPE, tokenizer, options.seed)
        train(model, tokenizer, RECIPE, options.seed, title="micro_letters")
        write_model(model, tokenizer, options.out)
    else:
        check_value("--questions", options.questions, Annotated[int, "[1, 5000]"])
        for folder in options.folders:
            if not (folder / "config.json").is_file():
                raise UserError(f"{folder} is no model: run python -m bench.letters train.")
        compare(options.folders, options.questions)
    return 0


def compare(folders: Sequence[Path], count: int) -> None:
    """Prints, for each amateur, how its divergences agree with those of `micro`."""
    expert, micro = loaded(model_folder("expert")), loaded(model_folder("micro"))
    with TemporaryDirectory() as folder:
        trajectories = Path(folder)
        problems = generate_problems("micro_add", count, 0, "train")
        questions = [Question(str(i), one.question, one.answer) for i, one in enumerate(problems)]
        sizes = {"max_new_tokens": 128, "batch_size": 100}
        rollout.roll_out(questions, expert, trajectories, prompt=Prompt(), **sizes)
        reference = divergences(trajectories, expert, micro)
        letters = letter_by_letter(micro)
        found = {"micro, letter by letter": divergences(trajectories, expert, letters)}
        for path in folders:
            found[str(path)] = divergences(trajectories, expert, loaded(path))
        if find_spec("trl"):
            found |= uld_losses(trajectories, expert, letters)
    kept = reference > BETA
    print(f"{count} questions, {len(reference)} positions, {kept.sum()} kept by micro")
    print("| amateur | correlation of D_t | mean D_t | kept by both, of those by either |")
    for name, values in {"micro": reference, **found}.items():
        # A loss has no threshold of its own: as many positions are kept as by the reference.
        limit = np.sort(values)[-kept.sum() - 1] if name.startswith("TRL") else BETA
        mine = values > limit
        correlation = np.corrcoef(reference, values)[0, 1]
        agree = (kept & mine).sum() / (kept | mine).sum()
        print(f"| {name} | {correlation:.4f} | {values.mean():.4f} | {100 * agree:.1f} % |")


def loaded(folder: Path) -> LanguageModel:
    source = locate(ModelSettings(name=folder.name, path=str(folder)), "amateur")
    return load(source, device="cpu", dtype="float32")


def divergences(trajectories: Path, expert: LanguageModel, amateur: LanguageModel) -> np.ndarray:
    """D_t of every position, as a run with `amateur.tokenizer=own` records it."""
    cross = CrossTokenizer(expert, amateur)
    with TemporaryDirectory() as folder:
        pair, steps = ModelPair(expert, amateur, cross.shared), Path(folder)
        sizes = {"support_floor": 1e-3, "tokens_per_pass": 512}
        score.score(trajectories, pair, steps, prompt=Prompt(), cross=cross, **sizes)
        rows = sorted(read_shards(steps), key=lambda row: (row["index"], row["step"]))
    return np.array([row["kl"] for row in rows])


def uld_losses(
    trajectories: Path, expert: LanguageModel, amateur: LanguageModel
) -> dict[str, np.ndarray]:
    """TRL's ULD losses at every position: expert as teacher, amateur as student, of letters."""
    from trl.experimental.gold.gold_trainer import ULDLoss  # pyright: ignore

    found: dict[str, list[float]] = {}
    for strategy in ("observed", "bayesian"):
        for hybrid in (False, True):
            config: Any = SimpleNamespace(
                uld_crossentropy_weight=0,
                uld_distillation_weight=1,
                uld_student_temperature=1,
                uld_teacher_temperature=1,
                uld_skip_student_eos=False,
                uld_skip_teacher_eos=False,
                use_extended_uld=True,
                uld_token_merge_strategy=strategy,
                uld_use_hybrid_loss=hybrid,
                beta=0.0,  # KL(teacher ‖ student) on tokens of the same name
            )
            loss = ULDLoss(config, amateur.tokenizer, expert.tokenizer)
            values = found[f"TRL, {strategy}, {'hybrid' if hybrid else 'sorted'}"] = []
            for row in read_by_index(trajectories):
                values += _uld(loss, row, expert, amateur, shift=strategy == "bayesian")
    return {name: np.array(values) for name, values in found.items()}


@torch.no_grad()
def _uld(loss: Any, row: dict, expert: LanguageModel, amateur: LanguageModel, shift: bool) -> list:
    names = [expert.tokenizer.convert_ids_to_tokens(i) for i in row["token_ids"]]
    parts = [[name] if name == END else [*name] for name in names]
    ends = [*accumulate(map(len, parts))]
    ids = amateur.tokenizer.convert_tokens_to_ids([letter for part in parts for letter in part])
    prompts = render_prompt(amateur.tokenizer, row["question"], Prompt()), row["prompt_ids"]
    distributions = []
    for model, prompt, answer in zip(
        (amateur, expert), prompts, (ids, row["token_ids"]), strict=True
    ):
        sequence = torch.tensor([prompt + answer])
        # Without the shift, a position's distribution is that of the token after it, as in TRL.
        places = torch.arange(len(answer)) + len(prompt) - int(shift)
        logits = model.model(
            input_ids=sequence,
            position_ids=torch.arange(sequence.shape[1])[None],
            logits_to_keep=places,
            use_cache=False,
        ).logits[0]
        distributions.append(logits.float().softmax(-1))
    student, teacher = distributions
    groups = [[*range(end - len(part), end)] for end, part in zip(ends, parts, strict=True)]
    merged = loss._merge_probabilities_with_alignment_groups(student, groups, ids)
    values = []
    for mine, other in zip(merged, teacher, strict=True):
        if loss.use_hybrid_loss:
            value = loss._compute_hybrid_uld_loss(mine[None], other[None])
        else:
            size = max(len(mine), len(other))
            mine, other = (
                torch.nn.functional.pad(one.sort(descending=True).values, (0, size - len(one)))
                for one in (mine, other)
            )
            value = (mine - other).abs().sum()
        values.append(float(value))
    return values


if __name__ == "__main__":
    run_program(main)
