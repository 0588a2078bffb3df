"""Prompts as token ids: chat templates, the plain default of base models, end-of-turn tokens.

Knows tokenizers; knows neither models nor benchmarks.
"""

from typing import Any

from lr_exp.errors import UserError

# What a model without a chat template reads: base models that were never given one. Documented in
# the README; `{system}` and its blank line are left out where there is no system prompt.
PLAIN_TEMPLATE = "{system}\n\nQuestion: {question}\nAnswer:"

_PROBE = "probe answer"


def has_chat_template(tokenizer: Any) -> bool:
    """Whether the tokenizer brings a chat template of its own."""
    return bool(getattr(tokenizer, "chat_template", None))


def render_prompt(tokenizer: Any, question: str, system: str = "") -> list[int]:
    """Token ids of a question as this model expects to be asked, ready to be continued.

    A model with a chat template is asked through it (system and user turn, then the opening of the
    assistant's turn); one without through `PLAIN_TEMPLATE`, with the tokenizer's special tokens.
    """
    if not has_chat_template(tokenizer):
        text = (
            PLAIN_TEMPLATE.format(system=system, question=question)
            if system
            else (PLAIN_TEMPLATE.partition("\n\n")[2].format(question=question))
        )
        return list(tokenizer(text, verbose=False)["input_ids"])
    messages = [{"role": "user", "content": question}]
    if system:
        messages.insert(0, {"role": "system", "content": system})
    try:
        encoded = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=True, return_dict=True
        )
    except Exception as error:  # Jinja raises its own family, templates raise at will
        raise UserError(
            f"the chat template of {tokenizer.name_or_path} refuses the prompt ({error}): "
            "if it takes no system turn, set sampler.system_prompt='' and "
            "evaluator.system_prompt=''."
        ) from error
    return list(encoded["input_ids"])


def answer_ids(tokenizer: Any, text: str) -> list[int]:
    """Token ids of a given answer, to stand after `render_prompt`, with the id that ends it.

    After `PLAIN_TEMPLATE`'s colon an answer begins with a blank. Where a template opens a thought
    (R1-Distill's `<think>`), the answer stands in it as it is.
    """
    plain = not has_chat_template(tokenizer)
    given = f" {text}" if plain and not text.startswith((" ", "\n")) else text
    ids = list(tokenizer(given, add_special_tokens=False, verbose=False)["input_ids"])
    ends = [] if plain else _end_of_turn(tokenizer)
    if not ends and tokenizer.eos_token_id is not None:
        ends = [tokenizer.eos_token_id]
    return ids + ends


def stop_token_ids(tokenizer: Any, model_eos: int | list[int] | None) -> tuple[int, ...]:
    """Ids that end an answer: the model's and the tokenizer's, and the template's end of turn.

    Base models are declared to end at their document token only, yet answer through a template
    whose turns end otherwise (Qwen2.5: `<|im_end|>`); without that id a rollout runs on into a
    conversation with itself.
    """
    ids: list[int] = []
    if model_eos is not None:
        ids += [model_eos] if isinstance(model_eos, int) else list(model_eos)
    if tokenizer.eos_token_id is not None:
        ids.append(tokenizer.eos_token_id)
    if has_chat_template(tokenizer):
        ids += _end_of_turn(tokenizer)
    return tuple(sorted(set(ids)))


def _end_of_turn(tokenizer: Any) -> list[int]:
    """The special token with which the chat template closes an assistant's turn, if it has one."""
    turns = [
        {"role": "user", "content": "probe question"},
        {"role": "assistant", "content": _PROBE},
    ]
    try:
        text = tokenizer.apply_chat_template(turns, tokenize=False)
    except Exception as error:  # Jinja raises its own family, templates raise at will
        raise UserError(
            f"the chat template of {tokenizer.name_or_path} cannot render a question and its "
            f"answer ({error}): mend the template in the model's folder."
        ) from error
    _, found, tail = text.rpartition(_PROBE)
    if not found:
        return []
    first = tokenizer(tail.lstrip(), add_special_tokens=False)["input_ids"][:1]
    return [
        i for i in first if i in tokenizer.all_special_ids or i in tokenizer.added_tokens_decoder
    ]
