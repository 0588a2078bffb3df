"""Forms of prompts: the options in `conf/prompt/`, and users' own Jinja files."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
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
# Of a template: with braces, which a template must not interpret.
_PROBES = ("A {probe} question?", "Probe system.", "Another {probe} question?", "A probe solution.")


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

    system: str = ""
    form: PromptSettings = field(default_factory=lambda: builtin_form("chat"))
    examples: tuple[Example, ...] = ()

    @property
    def identity(self) -> dict[str, Any]:
        """What determines the prompts, for addresses."""
        form = {"chat": self.form.chat, "template": self.form.template, "stop": self.form.stop}
        return {**form, "system": self.system, "examples": [*map(asdict, self.examples)]}


def load_form(name: str, folders: Sequence[Path]) -> PromptSettings:
    """The form of this name, or of a Jinja file, whose text is the whole prompt.

    Args:
        folders: of the options; see `option_folders`.

    Raises UserError: there is no such form or file, or its template fails, omits the question or
    the examples, or renders differently each time.
    """
    files = option_files(folders, _GROUP)
    path = Path(name).expanduser()
    if name.endswith(JINJA_ENDINGS):
        try:
            form = PromptSettings(name=path.stem, chat=False, template=path.read_text("utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"prompt {name} cannot be read ({first_line(error)}).") from error
    elif name in files:
        path, values = files[name], {}
        for base in read_option(path).pop("defaults", []):
            if base not in files:
                raise UserError(f"{path}: unknown form {base!r}.{did_you_mean(base, files)}")
            values |= read_option(files[base])
        form = load_option(PromptSettings, path, values)
    else:
        raise UserError(
            f"unknown prompt {name!r}.{did_you_mean(name, files)} A file of your own must end in "
            ".jinja."
        )
    _check(form, path)
    return form


def render_form(prompt: Prompt, question: str) -> str:
    """The text of a prompt; of a form with `chat`, the text of the user's turn.

    Raises TemplateError: the template fails.
    """
    values = {"question": question, "system": prompt.system, "examples": prompt.examples}
    return _template(prompt.form.template).render(values)


@cache
def _template(text: str) -> Template:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
    )
    return environment.from_string(text)


def _check(form: PromptSettings, path: Path) -> None:
    question, system, *example = _PROBES
    prompt = Prompt(system, form, (Example(*example),))
    try:
        text, again = render_form(prompt, question), render_form(prompt, question)
    # Filters and operators of a template raise any exception.
    except Exception as error:
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise UserError(f"{path}: the template fails ({reason}). Correct it.") from error
    if text != again:
        raise UserError(f"{path} renders the same prompt differently each time: remove what does.")
    needed: dict[str, list[str]] = {"{{ question }}": [question]}
    if form.num_fewshot:
        needed["the examples' questions and solutions"] = [*example]
    for what, values in needed.items():
        if not all(value in text for value in values):
            raise UserError(f"{path} omits the text of {what}: add it to the template.")
