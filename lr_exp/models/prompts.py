"""Renders prompts to token ids: chat templates, the plain template, end-of-turn tokens."""

from datetime import date
from typing import Any

from lr_exp.errors import UserError

# For models without a chat template (base models). Documented in docs/models.md; `{system}` and its
# blank line are omitted if there is no system prompt.
PLAIN_TEMPLATE = "{system}\n\nQuestion: {question}\nAnswer:"

_PROBE = "probe answer"

# Replaces the `strftime_now` that transformers gives to templates, which reads the clock. Values of
# another type than text and numbers, such as functions, cannot be passed to a template.
_STRFTIME_NOW = """\
{{%- macro strftime_now(format) -%}}
{{%- set text = namespace(value=format) -%}}
{{%- for code, value in {values}.items() -%}}
{{%- set text.value = text.value.replace(code, value) -%}}
{{%- endfor -%}}
{{{{- text.value -}}}}
{{%- endmacro %}}
"""
_STRFTIME_CODES = (*(f"%{letter}" for letter in "aAbBcdDeFHIjmMpSTuUVwWxXyY"), "%-d", "%-m")


def has_chat_template(tokenizer: Any) -> bool:
    """Whether the tokenizer has a chat template."""
    return bool(getattr(tokenizer, "chat_template", None))


def pin_date(tokenizer: Any, day: str) -> None:
    """Makes the chat template print a date, given as YYYY-MM-DD, where it would print today's."""
    if not has_chat_template(tokenizer):
        return
    template = tokenizer.get_chat_template()
    if "strftime_now" in template:
        values = {code: date.fromisoformat(day).strftime(code) for code in _STRFTIME_CODES}
        tokenizer.chat_template = _STRFTIME_NOW.format(values=values) + template


def rendered_probes(tokenizer: Any) -> list[list[int] | None]:
    """Token ids of prompts with and without a system turn and of an answer; None if rejected.

    They change with everything that changes all prompts: the template, its date, our rendering.

    Raises:
        UserError: the template renders the same prompt differently each time.
    """

    def render() -> list[list[int] | None]:
        found: list[list[int] | None] = []
        for system in ("", "probe system"):
            try:
                found.append(render_prompt(tokenizer, "probe question", system))
            except UserError:  # raised again for the prompts that the run needs
                found.append(None)
        return [*found, answer_ids(tokenizer, _PROBE)]

    first = render()
    if render() != first:
        raise UserError(
            f"the chat template of {tokenizer.name_or_path} renders the same prompt differently "
            "each time: remove its random parts from the template in the model's folder."
        )
    return first


def render_prompt(tokenizer: Any, question: str, system: str = "") -> list[int]:
    """Token ids of a question in the model's prompt format, ready for generation.

    Uses the chat template (system and user turn, then the start of the assistant's turn), or
    `PLAIN_TEMPLATE` with the tokenizer's special tokens if there is none.
    """
    if not has_chat_template(tokenizer):
        template = PLAIN_TEMPLATE if system else PLAIN_TEMPLATE.partition("\n\n")[2]
        text = template.format(system=system, question=question)
        return list(tokenizer(text, verbose=False)["input_ids"])
    messages = [{"role": "user", "content": question}]
    if system:
        messages.insert(0, {"role": "system", "content": system})
    try:
        encoded = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=True, return_dict=True
        )
    except Exception as error:  # Jinja has its own exceptions, and templates raise any
        raise UserError(
            f"the chat template of {tokenizer.name_or_path} rejects the prompt ({error}): "
            "if it does not support a system turn, set sampler.system_prompt='' and "
            "evaluator.system_prompt=''."
        ) from error
    return list(encoded["input_ids"])


def answer_ids(tokenizer: Any, text: str) -> list[int]:
    """Token ids of a given answer to append to `render_prompt`, including the end token.

    After the colon of `PLAIN_TEMPLATE` the answer starts with a space. If a chat template opens a
    thinking block (R1-Distill's `<think>`), the answer is placed inside it unchanged.
    """
    plain = not has_chat_template(tokenizer)
    if plain and not text.startswith((" ", "\n")):
        text = f" {text}"
    ids = list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
    ends = [] if plain else _end_of_turn(tokenizer)
    if not ends and tokenizer.eos_token_id is not None:
        ends = [tokenizer.eos_token_id]
    return ids + ends


def stop_token_ids(tokenizer: Any, model_eos: int | list[int] | None) -> tuple[int, ...]:
    """Ids that end an answer: the model's eos, the tokenizer's eos, the template's end of turn.

    Base models declare only their end-of-document token, although their chat template ends turns
    with another one (Qwen2.5: `<|im_end|>`). Without it a rollout continues with further turns.
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
    """The special token that ends the chat template's assistant turn; empty if there is none."""
    messages = [
        {"role": "user", "content": "probe question"},
        {"role": "assistant", "content": _PROBE},
    ]
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False)
    except Exception as error:  # Jinja has its own exceptions, and templates raise any
        raise UserError(
            f"the chat template of {tokenizer.name_or_path} cannot render a question and its "
            f"answer ({error}): fix the template in the model's folder."
        ) from error
    _, probe, tail = text.rpartition(_PROBE)
    if not probe:
        return []
    first = tokenizer(tail.lstrip(), add_special_tokens=False)["input_ids"][:1]
    return [
        i for i in first if i in tokenizer.all_special_ids or i in tokenizer.added_tokens_decoder
    ]
