"""Which ids two models are compared on, with tokenizers that are nothing but a table."""

import pytest
import torch
from tokenizers import AddedToken

from lr_exp.errors import UserError
from lr_exp.models.vocabulary import shared_vocabulary


class Table:
    pad_token_id = bos_token_id = eos_token_id = unk_token_id = None
    chat_template = "{{ message }}<turn>"

    def __init__(self, *tokens: str | None, special: str | None = None) -> None:
        self._tokens = tokens
        added = [AddedToken(token, special=token == special) for token in tokens[-1:] if token]
        self.added_tokens_decoder = {len(tokens) - 1: token for token in added}

    def get_vocab(self) -> dict[str, int]:
        return {token: index for index, token in enumerate(self._tokens) if token is not None}


def shared(expert: Table, amateur: Table, **changes):
    rows = {"expert_rows": 9, "amateur_rows": 9, **changes}
    return shared_vocabulary(expert, amateur, **rows)


def test_ids_without_a_token_leave_the_distribution():
    """Rows that no token was ever trained for hold anything; the published code keeps them."""
    vocabulary = shared(Table("a", None, "c", None, "e"), Table("a", None, "c", None, "e"))
    assert vocabulary.ids().tolist() == [0, 2, 4]
    assert vocabulary.restrict(torch.arange(9.0)).tolist() == [0, 2, 4]
    assert [index for index in range(9) if index in vocabulary] == [0, 2, 4]


def test_more_tokens_than_rows_and_a_token_that_one_of_them_lacks_are_rejected():
    with pytest.raises(UserError, match=r"the amateur's tokenizer has id 1 .* has 1 rows"):
        shared(Table("a", "b"), Table("a", "b"), amateur_rows=1)
    with pytest.raises(UserError, match=r"1 of 3 ids differ, first 1: 'b' against None"):
        shared(Table("a", "b", "c"), Table("a", None, "c"))
    # The shorter tokenizer ends the shared range.
    assert shared(Table("a", "b", "c"), Table("a", "b")).ids().tolist() == [0, 1]


def test_reused_ids_are_left_out_not_checked():
    pair = Table("a", "<end>", "c"), Table("a", "<think>", "c")
    with pytest.raises(UserError, match="'<end>' against '<think>'"):
        shared(*pair)
    assert shared(*pair, reused_ids=(1, 77)).ids().tolist() == [0, 2]


def test_a_special_token_without_a_row_is_left_out_unless_prompts_have_it():
    """Gemma 3's tokenizer has an id for images, also with the models that read text only."""
    image = Table("a", "b", "<image>", special="<image>")
    assert shared(image, image, expert_rows=2, amateur_rows=2).ids().tolist() == [0, 1]
    assert shared(image, image).ids().tolist() == [0, 1, 2]
    for missing in (
        Table("a", "b", "<image>"),  # an ordinary token
        Table("a", "b", "<turn>", special="<turn>"),  # in the chat template
    ):
        with pytest.raises(UserError, match=r"has id 2 .* but its model has 2 rows"):
            shared(missing, missing, expert_rows=2, amateur_rows=2)
