"""Trains an amateur of the micro world whose tokens are single characters.

python -m bench.letters [--out runs/models/micro_letters] [--seed N]
"""

import argparse
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from lr_exp.micro.rebuild import write_model
from lr_exp.micro.tokenizer import END, PAD, UNKNOWN, build_tokenizer
from lr_exp.micro.training import Recipe, build_model, train
from lr_exp.micro.world import Behaviour

# As `micro`, with more optimizer steps: its sequences are longer and its context is smaller.
RECIPE = Recipe(Behaviour(0.05), steps=360)


def letters_tokenizer() -> PreTrainedTokenizerFast:
    """The micro world's tokenizer with its words split into characters."""
    words = build_tokenizer()
    special = words.all_special_tokens
    texts = [token for token in words.get_vocab() if token not in special]
    order = [*sorted(special, key=words.convert_tokens_to_ids), *sorted({*"".join(texts)})]
    tokenizer = Tokenizer(WordLevel({token: i for i, token in enumerate(order)}, UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    extra = [token for token in special if token not in (PAD, END, UNKNOWN)]
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        unk_token=UNKNOWN,
        extra_special_tokens=extra,
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )
    wrapped.chat_template = words.chat_template
    return wrapped


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.letters", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/models/micro_letters"))
    parser.add_argument("--seed", type=int, default=8)
    options = parser.parse_args()
    tokenizer = letters_tokenizer()
    model = build_model(RECIPE, tokenizer, options.seed)
    train(model, tokenizer, RECIPE, RECIPE.steps, options.seed, title="micro_letters")
    write_model(model, tokenizer, options.out)


if __name__ == "__main__":
    main()
