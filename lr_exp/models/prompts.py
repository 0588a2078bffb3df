"""Renders prompts to token ids: chat templates, other forms, end-of-turn tokens.

Control tokens in questions, solutions, examples and system prompts are encoded as text: `_marked`
puts a mark into each, and `_encode` encodes the text before and after a mark separately.
"""

import logging
import re
from dataclasses import replace
from datetime import date
from functools import lru_cache
from typing import Any

from lr_exp.config.settings import PromptSettings
from lr_exp.errors import UserError, warn_once
from lr_exp.models.prompt_forms import Example, Prompt, builtin_form, render_form

log = logging.getLogger(__name__)

_PROBE_QUESTION, _PROBE = "probe question", "probe answer"

# Added tokens that are not special but control a model too: <think>, <tool_call>, [TOOL_CALLS].
# Runs of spaces and single words are ordinary text.
_TAG = re.compile(r"<\S+>|\[\S+\]")

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

    Raises UserError: the template renders the same prompt differently each time.
    """

    def render() -> list[list[int] | None]:
        found: list[list[int] | None] = []
        for system in ("", "probe system"):
            try:
                found.append(render_prompt(tokenizer, _PROBE_QUESTION, Prompt(system)))
            except UserError:  # raised again for the prompts that the run needs
                found.append(None)
        return [*found, render_solution(tokenizer, _PROBE_QUESTION, _PROBE)[1]]

    first = render()
    if render() != first:
        raise UserError(
            f"the chat template of {tokenizer.name_or_path} renders the same prompt differently "
            "each time: remove its random parts from the template in the model's folder."
        )
    return first


def allow_control_tokens(tokenizer: Any) -> None:
    """Makes control tokens in the texts of prompts act as such; by default they are text."""
    tokenizer.lr_exp_control_tokens = True


def form_for(tokenizer: Any, prompt: Prompt) -> PromptSettings:
    """The prompt's form; `plain_system` instead of one that needs a chat template, without one."""
    if prompt.form.chat and not has_chat_template(tokenizer):
        return builtin_form("plain_system")
    return prompt.form


def render_prompt(tokenizer: Any, question: str, prompt: Prompt | None = None) -> list[int]:
    """Token ids of a question in a form of prompts, ready for generation.

    A form with `chat` is the user's turn in the chat template, after the system turn and before the
    start of the assistant's turn. Another form is the whole text after the start token.

    Args:
        prompt: None is the chat template without a system turn.
    """
    mark, (question,), prompt = _marked(tokenizer, prompt, question)
    return _encode(tokenizer, _prompt_text(tokenizer, question, prompt), mark, prompt.form.chat)


def render_solution(
    tokenizer: Any, question: str, solution: str, prompt: Prompt | None = None
) -> tuple[list[int], list[int], bool]:
    """Token ids of a prompt and of a given answer to it, including the end token.

    Prompt and answer have the tokens of their text read as one. If a token of that text would cover
    the end of the prompt and the start of the answer, the answer is encoded separately.

    Without a chat template the answer starts with a space, as after `Answer:`, and in a chat
    template with the white space that the template puts there. If a chat template opens a thinking
    block (R1-Distill's `<think>`), the answer is placed inside it unchanged.

    Returns:
        The prompt's ids, the answer's ids, and whether the text was read as one.
    """
    mark, (question, solution), prompt = _marked(tokenizer, prompt, question, solution)
    chat = prompt.form.chat
    if chat and not (opening := _opening(tokenizer)).strip():
        solution = opening + solution
    elif not chat and not solution.startswith((" ", "\n")):
        solution = f" {solution}"
    text = _prompt_text(tokenizer, question, prompt)
    prompt_ids = _encode(tokenizer, text, mark, chat)
    whole = _encode(tokenizer, text + solution, mark, chat)
    as_one = whole[: len(prompt_ids)] == prompt_ids
    if as_one:
        ids = whole[len(prompt_ids) :]
    else:
        ids = [i for piece in solution.split(mark) for i in continuation_ids(tokenizer, piece)]
    ends = _end_of_turn(tokenizer) if chat else []
    if not ends and tokenizer.eos_token_id is not None:
        ends = [tokenizer.eos_token_id]
    return prompt_ids, ids + ends, as_one


def _prompt_text(tokenizer: Any, question: str, prompt: Prompt) -> str:
    text = render_form(prompt, question)
    if not prompt.form.chat:
        return text
    messages = [{"role": "user", "content": text}]
    if prompt.system:
        messages.insert(0, {"role": "system", "content": prompt.system})
    try:
        return tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    except Exception as error:  # Jinja has its own exceptions, and templates raise any
        raise UserError(
            f"the chat template of {tokenizer.name_or_path} rejects the prompt ({error}): "
            "if it does not support a system turn, set sampler.system_prompt='' and "
            "evaluator.system_prompt=''."
        ) from error


def _marked(tokenizer: Any, prompt: Prompt | None, *texts: str) -> tuple[str, list[str], Prompt]:
    """A mark, and the texts and the prompt with it after the first character of control tokens.

    The prompt has the form that the tokenizer can render.
    """
    prompt = prompt or Prompt()
    prompt = replace(prompt, form=form_for(tokenizer, prompt))
    examples = [text for one in prompt.examples for text in (one.question, one.solution)]
    given = [*texts, prompt.form.template, prompt.system, *examples]
    # A character for private use that is in no text.
    mark = next(c for c in map(chr, range(0xE000, 0xF900)) if not any(c in text for text in given))
    if getattr(tokenizer, "lr_exp_control_tokens", False):
        return mark, [*texts], prompt
    starts = _control_token_starts(tokenizer)

    def marked(text: str) -> str:
        return starts.sub(lambda found: found[0] + mark, text)

    shown = tuple(Example(marked(one.question), marked(one.solution)) for one in prompt.examples)
    prompt = replace(prompt, system=marked(prompt.system), examples=shown)
    return mark, [*map(marked, texts)], prompt


@lru_cache(maxsize=8)  # a run has few tokenizers
def _control_token_starts(tokenizer: Any) -> re.Pattern[str]:
    """Matches the first character of each control token in a text, also where they overlap."""
    added = tokenizer.added_tokens_decoder.values()
    names = [re.escape(one.content) for one in added if one.special or _TAG.fullmatch(one.content)]
    return re.compile(f"(?={'|'.join(names)})." if names else "(?!)", re.DOTALL)


def _encode(tokenizer: Any, text: str, mark: str, chat: bool) -> list[int]:
    """Token ids of a text without its marks, which no token reaches across."""
    first, *others = text.split(mark)
    ids = list(tokenizer(first, add_special_tokens=not chat, verbose=False)["input_ids"])
    if not chat:  # the text continues, so it has no end token
        ids = ids[: len(ids) - _appended_count(tokenizer)]
    return ids + [i for piece in others for i in continuation_ids(tokenizer, piece)]


@lru_cache(maxsize=8)
def _appended_count(tokenizer: Any) -> int:
    """How many special tokens the tokenizer puts after a text."""
    probe, bare = (
        list(tokenizer("a", add_special_tokens=added, verbose=False)["input_ids"])
        for added in (True, False)
    )
    starts = (n for n in range(len(probe)) if probe[n : n + len(bare)] == bare)
    return len(probe) - len(bare) - next(starts, len(probe) - len(bare))


def continuation_ids(tokenizer: Any, text: str) -> list[int]:
    """Token ids of a text that continues another one.

    SentencePiece tokenizers put a space before the start of a text, so it is encoded behind another
    character, whose ids are removed.
    """

    def encode(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    for before in ("\n", "a"):
        known, ids = encode(before), encode(before + text)
        if ids[: len(known)] == known and tokenizer.unk_token_id not in known:
            return ids[len(known) :]
    return encode(text)


def stop_token_ids(tokenizer: Any, model_eos: int | list[int] | None) -> tuple[int, ...]:
    """Ids that end an answer: the model's eos, the tokenizer's eos, the template's end of turn.

    Base models declare only their end-of-document token, although their chat template ends turns
    with another one (Qwen2.5: `<|im_end|>`). Without it a rollout continues with further turns.
    """
    ids = [*model_eos] if isinstance(model_eos, list) else [model_eos]
    ids.append(tokenizer.eos_token_id)
    if has_chat_template(tokenizer):
        ids += _end_of_turn(tokenizer)
    return tuple(sorted({i for i in ids if i is not None}))


def _end_of_turn(tokenizer: Any) -> list[int]:
    """The special token that ends the chat template's assistant turn; empty if there is none."""
    _, probe, tail = _conversation(tokenizer).rpartition(_PROBE)
    if not probe:
        return []
    first = tokenizer(tail.lstrip(), add_special_tokens=False)["input_ids"][:1]
    control = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    return [token_id for token_id in first if token_id in control]


def _opening(tokenizer: Any) -> str:
    """What the chat template puts between a prompt and its answer; empty if they do not join."""
    prompt = _prompt_text(tokenizer, _PROBE_QUESTION, Prompt())
    text, _, _ = _conversation(tokenizer).rpartition(_PROBE)
    return text.removeprefix(prompt) if text.startswith(prompt) else ""


def _conversation(tokenizer: Any, *, answered: bool = True) -> str:
    messages = [{"role": "user", "content": _PROBE_QUESTION}]
    if answered:
        messages.append({"role": "assistant", "content": _PROBE})
    try:
        return tokenizer.apply_chat_template(messages, tokenize=False)
    except Exception as error:  # Jinja has its own exceptions, and templates raise any
        raise UserError(
            f"the chat template of {tokenizer.name_or_path} cannot render a question and its "
            f"answer ({error}): fix the template in the model's folder."
        ) from error


def warn_without_generation_prompt(tokenizer: Any, name: str) -> None:
    """Warns, once a model, if prompts lack the text with which the template opens an answer."""
    if not has_chat_template(tokenizer) or not (opening := _opening(tokenizer).strip()):
        return
    if _prompt_text(tokenizer, _PROBE_QUESTION, Prompt()) == _conversation(
        tokenizer, answered=False
    ):
        warn_once(
            log,
            "%s: its chat template has no generation prompt, so prompts end without %r, which it "
            "puts before an answer. In the template in the model's folder, add this text at the "
            "end, if add_generation_prompt is set.",
            name,
            opening,
        )
