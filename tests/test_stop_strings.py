"""An answer ends before a stop string, whatever the tokens are."""

import pytest

from lr_exp.inference.decoding import Decoded, StopStrings
from lr_exp.inference.generation import single_decoding
from tests.support.tiny import load_folder, tiny_model, tiny_tokenizer


@pytest.mark.parametrize("before", ["4 apples.\n\n", "", "3 € and 猫 ", "Quest"])
def test_the_answer_ends_before_the_first_stop_string(before):
    """A base model continued with questions of its own, and the answer was read from those."""
    tokenizer = tiny_tokenizer()
    stops = StopStrings(tokenizer, ["Question:", "\nQ:"])
    ids = tokenizer(before + "Question: 5?\nQ: 6", add_special_tokens=False)["input_ids"]
    kept = len(before.encode())
    assert [stops.end(ids[:count]) for count in range(kept + 10)] == [False] * (kept + 9) + [True]
    assert stops.truncated(Decoded(ids, finished=False)) == Decoded(ids[:kept], finished=True)


@pytest.mark.parametrize("strings", [["Question:"], []])
def test_an_answer_without_a_stop_string_stays_as_it_is(strings):
    answer = Decoded(tiny_tokenizer()("Answer: Question 5")["input_ids"], finished=False)
    stops = StopStrings(tiny_tokenizer(), strings)
    assert stops.truncated(answer) == answer
    assert not stops.end(answer.token_ids)


def test_decoding_stops_there_alone_in_batches_and_with_an_engine(tmp_path):
    model = load_folder(tiny_model(tmp_path))
    prompts = [[5, 6, 7], [40], [9, 9]]
    free = single_decoding(model, prompts, max_new_tokens=24).decode(0, range(3), 0)
    text = model.tokenizer.decode(free[1].token_ids)
    stop = text[6:8]
    expected = [StopStrings(model.tokenizer, [stop]).truncated(one) for one in free]
    assert len(expected[1].token_ids) < 10
    assert expected[1].finished
    options = {"max_new_tokens": 24, "stop": [stop]}
    stopped = single_decoding(model, prompts, **options)
    assert stopped.decode(0, range(3), 0) == expected
    assert [stopped.decode(0, [i], 0)[0] for i in range(3)] == expected
    engine = single_decoding(model, prompts, **options, generate=lambda requests: free)
    assert engine.decode(0, range(3), 0) == expected
