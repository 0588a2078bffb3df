"""Forms of prompts: the options in `conf/prompt/`, and users' own Jinja files."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import StrictUndefined, Template
from jinja2.sandbox import ImmutableSandboxedEnvironment

from lr_exp.config.options import load_option, option_files, option_folders, read_option
from lr_exp.config.settings import PromptSettings
from lr_exp.errors import UserError, did_you_mean, first_line

JINJA_ENDINGS = (".jinja", ".jinja2", ".j2")
_GROUP = "prompt"
# Questions and an example that every template must show unchanged: with braces, and with a
# character for private use, which marks control tokens (see `prompts`).
_PROBES = ("A {probe} \ue000 question", "Another {probe} question?", "A probe solution.")


@dataclass(frozen=True)
class Example:
    question: str
    solution: str


@cache
def builtin_form(name: str) -> PromptSettings:
    return load_form(name, option_folders())


@dataclass(frozen=True)
class Prompt:
    """How questions are asked: everything in their prompts but the questions."""

    system: str = ""  # empty if the form has none
    form: PromptSettings = field(default_factory=lambda: builtin_form("chat"))
    examples: tuple[Example, ...] = ()

    def __post_init__(self) -> None:
        if not self.form.system:
            object.__setattr__(self, "system", "")

    @property
    def identity(self) -> dict[str, Any]:
        """What determines the prompts, for addresses."""
        fallback = builtin_form("plain_system")  # instead of a chat form, without a chat template
        used = [(self.form.template, self.form.stop)]
        if self.form.chat:
            used.append((fallback.template, fallback.stop))
        return {
            "chat": self.form.chat,
            "forms": used,
            "system": self.system,
            "examples": [*map(asdict, self.examples)],
        }


def load_form(name: str, folders: Sequence[Path]) -> PromptSettings:
    """The form of this name in the options, or of a Jinja file, whose text is the whole prompt.

    Raises UserError: there is no such form or file, or its template fails, omits the question or
    the examples, or renders differently each time.
    """
    files = option_files(folders, _GROUP)
    path = Path(name).expanduser()
    if name.endswith(JINJA_ENDINGS):
        try:
            form = PromptSettings(chat=False, template=path.read_text("utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(
                f"prompt {name} cannot be read ({first_line(error)}): give the path of a text file."
            ) from error
    elif name in files:
        path = files[name]
        form = load_option(PromptSettings, path, _values(path, files, ()))
    else:
        raise UserError(
            f"unknown prompt {name!r}.{did_you_mean(name, files)} A file of your own must end in "
            ".jinja."
        )
    form = replace(form, name=path.stem)
    try:
        _check(form)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    return form


def _values(path: Path, files: Mapping[str, Path], extended: tuple[Path, ...]) -> dict[str, Any]:
    """The values in a form's file and, for other keys, those of the form that it extends."""
    values = read_option(path)
    base = values.pop("base", None)
    if base is None:
        return values
    if str(base) not in files or path in extended:
        reason = "extends itself" if path in extended else f"unknown form {base!r}"
        raise UserError(f"{path}: base: {reason}.{did_you_mean(str(base), files)}")
    return {**_values(files[base], files, (*extended, path)), **values}


def render_form(prompt: Prompt, question: str) -> str:
    """The text of a prompt; of a form with `chat`, the text of the user's turn.

    Raises UserError: the template fails for this question.
    """
    values = {"question": question, "system": prompt.system, "examples": prompt.examples}
    try:
        return _template(prompt.form.template).render(values)
    except Exception as error:  # filters and operators raise any
        asked = "a test question" if question in _PROBES else f"the question {question[:60]!r}"
        raise UserError(
            f"the template of prompt {prompt.form.name} fails for {asked} "
            f"({type(error).__name__}: {first_line(error)}): correct it."
        ) from error


@cache
def _template(text: str) -> Template:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
    )
    return environment.from_string(text)


def _check(form: PromptSettings) -> None:
    question, *example = _PROBES
    prompt = Prompt("Probe system.", form, (Example(*example),))
    text = render_form(prompt, question)
    if render_form(prompt, question) != text:
        raise UserError("the prompt differs each time: remove the random parts of the template.")
    needed: dict[str, list[str]] = {"{{ question }}": [question]}
    if form.num_fewshot:
        needed["the examples' questions and solutions"] = [*example]
    for what, values in needed.items():
        if not all(value in text for value in values):
            raise UserError(f"the template omits or changes the text of {what}: add it unchanged.")
