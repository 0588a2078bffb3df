"""Rubbish in: one table of inputs that cannot work, each refused in one line, with nothing left.

A case is a name, the words that a program is called with after what `prepare` puts into the test's
folder, and what the line must say: the culprit, and what to change. `{here}` is the test's folder.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hydra.errors import HydraException

from lr_exp.errors import UserError
from lr_exp.evaluator import grade
from lr_exp.report.__main__ import main as report_main
from lr_exp.store.__main__ import main as store_main
from tests.support.tiny import SPECIAL, TOKENS, tiny_model, tiny_tokenizer

MICRO = (
    "experiment=demo",
    "benchmarks=[micro_add]",
    "evaluator.max_examples=2",
    "data.max_questions=2",
    "sampler.max_new_tokens=4",
)
PROGRAMS = {"report": report_main, "grade": grade.main, "store": store_main}

Prepare = Callable[[Path], object]  # fills the folder


@dataclass(frozen=True)
class Case:
    """One input that cannot work."""

    name: str
    words: str  # for the program, `{here}` in them is the test's folder
    culprit: str
    remedy: str
    prepare: Prepare = lambda here: None
    program: str = "run"


def text(name: str, content: str) -> Prepare:
    """A file of the test's folder."""

    def write(here: Path) -> None:
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_text(content, "utf-8")

    return write


def raw(name: str, content: bytes) -> Prepare:
    return lambda here: (here / name).write_bytes(content)


def lines(name: str, *values: object) -> Prepare:
    """A JSON Lines file; a text is a line as it is."""
    written = [value if isinstance(value, str) else json.dumps(value) for value in values]
    return text(name, "".join(f"{line}\n" for line in written))


def both(*parts: Prepare) -> Prepare:
    def prepare(here: Path) -> None:
        for part in parts:
            part(here)

    return prepare


# Settings --------------------------------------------------------------------------------------


def setting(name: str, word: str, culprit: str, remedy: str) -> Case:
    return Case(f"settings: {name}", word, culprit, remedy)


_RANGE = "is out of range: expected"

SETTINGS = [
    setting("a word for a number", "alpha=much", "alpha=much", "could not be converted to Float"),
    setting("a list for a number", "beta=[1]", "beta=[1]", "convert"),
    setting("a mapping for a number", "seed={a:1}", "seed={a:1}", "convert"),
    setting("a fraction of a step", "distiller.steps=1.5", "distiller.steps=1.5", "to Integer"),
    setting("a number for a list", "stages=3", "stages=3", "not a ListConfig, list or tuple"),
    setting("a number for a group", "sampler=3", "sampler=3", "subclass of SamplerSettings"),
    setting("a word for a truth", "distiller.merge=perhaps", "merge=perhaps", "not a valid bool"),
    setting("null where a number must be", "alpha=null", "alpha=null", "not Optional"),
    setting("null for an expert", "expert=null", "expert=null: no such option", "Known: deepseek"),
    setting(
        "null for a path that is needed", "data=jsonl data.path=null", "data.path", "add data.path="
    ),
    setting("zero", "alpha=0", "alpha=0.0", f"{_RANGE} a number in (0, 1]"),
    setting("negative", "beta=-1", "beta=-1.0", f"{_RANGE} a number of nats, 0 or more"),
    setting("not a number", "beta=nan", "beta=nan", f"{_RANGE} a number of nats"),
    setting("infinite", "beta=inf", "beta=inf", f"{_RANGE} a number of nats"),
    setting(
        "an infinite decay", "distiller.weight_decay=inf", "weight_decay=inf", f"{_RANGE} 0 or more"
    ),
    setting(
        "beyond a float",
        "distiller.learning_rate=1e999",
        "learning_rate=inf",
        f"{_RANGE} a number above 0",
    ),
    setting("a seed beyond 32 bits", "seed=4294967296", "seed=4294967296", "[0, 2**32)"),
    setting(
        "more steps than an integer holds",
        f"distiller.steps={10**30}",
        f"distiller.steps={10**30}",
        "below 2**31",
    ),
    setting(
        "more kept steps than memory",
        "distiller.steps=2000000000",
        "distiller.steps=2000000000",
        "lower one of them",
    ),
    setting(
        "a rank above any layer",
        "distiller.lora_r=1000000",
        "distiller.lora_r=1000000",
        "1 to 65536",
    ),
    setting(
        "more questions than there can be",
        "data.count=2000000000",
        "data.count=2000000000",
        "the maximum is 100,000",
    ),
    setting("no question", "data.max_questions=0", "data.max_questions=0", "1 or more, or null"),
    setting("an unknown key", "betta=0.4", "'betta'", "Did you mean 'beta'?"),
    setting("an unknown key far from all", "xyzzy=1", "'xyzzy'", "--help"),
    setting("an unknown key in a value", "sampler={stepz:1}", "stepz", "not in 'SamplerSettings'"),
    setting(
        "an unknown key by +",
        "+distiller.stepz=1",
        "'distiller.stepz'",
        "Did you mean 'distiller.steps'?",
    ),
    setting("an unknown group", "model=micro", "'model'", "Did you mean"),
    setting("an unknown option", "expert=micr", "expert=micr", "Did you mean 'micro'?"),
    setting(
        "an unknown benchmark", "benchmarks=[micro_ad]", "'micro_ad'", "Did you mean 'micro_add'?"
    ),
    setting("an unknown stage", "stages=[sampel]", "'sampel'", "Did you mean 'sample'?"),
    setting(
        "no stage", "stages=[]", "stages is empty", "set one or more of sample, distill, evaluate"
    ),
    setting("a stage twice", "stages=[sample,sample]", "'sample' twice", "remove one"),
    setting(
        "a benchmark twice", "benchmarks=[micro_add,micro_add]", "'micro_add' twice", "remove one"
    ),
    setting(
        "a benchmark that is null",
        "benchmarks=[null]",
        "benchmarks=[null]",
        "not a subclass of str",
    ),
    setting(
        "no module",
        "distiller.target_modules=[]",
        "distiller.target_modules=[]",
        "at least one module name",
    ),
    setting(
        "a blank module",
        "distiller.target_modules=['']",
        "distiller.target_modules=['']",
        "at least one module name",
    ),
    setting("no override", "beta='0.4", "beta='0.4", "write key=value"),
    setting("brackets without end", f"beta={'[' * 3000}", "beta=[[[", "write key=value"),
    setting("a sweep without -m", "seed=1,2", "seed", "--multirun"),
    setting("an endless sweep", "seed=range(0,1000000000000)", "seed=range", "shorten the range"),
    setting(
        "an alpha below the floor", "alpha=0.0001", "alpha=0.0001", "Lower sampler.support_floor"
    ),
    setting("no device", "device=gpu", "device=gpu", "use auto, cpu, cuda or cuda:N"),
    setting("a device that computes nothing", "device=meta", "device=meta", "use auto, cpu, cuda"),
    setting("a store without a name", "store=", "store is empty", "set it to the folder"),
    setting(
        "examples that a benchmark lacks",
        "+evaluator.shots.micro_add=2",
        "evaluator.shots.micro_add=2",
        "Set it to 0",
    ),
]

# Models ----------------------------------------------------------------------------------------


@cache
def _model_files() -> dict[str, bytes]:
    with TemporaryDirectory() as folder:
        return {path.name: path.read_bytes() for path in tiny_model(Path(folder)).iterdir()}


def sound_model(here: Path, name: str = "model") -> Path:
    """A tiny model, made once: making it takes longer than refusing it."""
    (here / name).mkdir()
    for file, content in _model_files().items():
        (here / name / file).write_bytes(content)
    return here / name


def model(name: str, spoil: Prepare, culprit: str, remedy: str, *more: str) -> Case:
    """A tiny model, spoilt, as the expert; its own early exit is the amateur."""

    def prepare(here: Path) -> None:
        sound_model(here)
        spoil(here / "model")

    words = " ".join(("expert.path={here}/model amateur=early_exit amateur.drop_layers=[1]", *more))
    return Case(f"models: {name}", words, culprit, remedy, prepare)


def expert(name: str, path: str, culprit: str, remedy: str, prepare: Prepare | None = None) -> Case:
    words = f"expert.path={path} amateur=early_exit amateur.drop_layers=[1]"
    return Case(f"models: {name}", words, culprit, remedy, prepare or (lambda here: None))


def delete(*names: str) -> Prepare:
    return lambda folder: [(folder / name).unlink() for name in names]


def config(**changed: Any) -> Prepare:
    """A config.json with other values; None removes the key."""

    def change(folder: Path) -> None:
        path = folder / "config.json"
        merged = json.loads(path.read_text("utf-8")) | changed
        path.write_text(json.dumps({k: v for k, v in merged.items() if v is not None}), "utf-8")

    return change


def cut(name: str, by: int) -> Prepare:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-by])


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def too_many_tokens(folder: Path) -> None:
    tiny_tokenizer(special=(*SPECIAL, "<|more|>")).save_pretrained(folder)


def nothing_but_nan(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = folder / "model.safetensors"
    weights = {name: value * float("nan") for name, value in load_file(path).items()}
    save_file(weights, path, metadata={"format": "pt"})


def pair(name: str, prepare: Prepare, culprit: str, remedy: str) -> Case:
    words = "expert.path={here}/model amateur.path={here}/other"
    return Case(f"tokenizers: {name}", words, culprit, remedy, both(sound_model, prepare))


def renamed_token(here: Path) -> None:
    """The same ids for other tokens: two letters change places."""
    path = sound_model(here, "other") / "tokenizer.json"
    told = json.loads(path.read_text("utf-8"))
    vocabulary = told["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    path.write_text(json.dumps(told), "utf-8")


MODELS = [
    expert(
        "no such folder", "{here}/nowhere", "expert.path={here}/nowhere", "there is no such folder"
    ),
    expert("an empty path", "", "expert.path=", "no config.json"),
    expert("an endless path", "/" + "a" * 400, "expert.path=/aaa", "give a model's folder"),
    expert(
        "an empty folder",
        "{here}/empty",
        "expert.path={here}/empty",
        "no config.json",
        lambda here: (here / "empty").mkdir(),
    ),
    expert(
        "a file",
        "{here}/model.bin",
        "expert.path={here}/model.bin",
        "give a model's folder",
        raw("model.bin", b"weights"),
    ),
    expert(
        "a GGUF file that is none",
        "{here}/x.gguf",
        "expert: the tokenizer in {here}",
        "check expert.path",
        raw("x.gguf", b"GGUF?" * 100),
    ),
    expert(
        "an empty GGUF file",
        "{here}/x.gguf",
        "expert: the tokenizer in {here}",
        "check expert.path",
        raw("x.gguf", b""),
    ),
    model("no config", delete("config.json"), "expert.path={here}/model", "no config.json"),
    model("a config cut short", cut("config.json", 40), "its config.json", "Fetch the model again"),
    model(
        "a config that is a list",
        text("config.json", "[1]"),
        "its config.json",
        "Fetch the model again",
    ),
    model(
        "a config too deep",
        text("config.json", "[" * 100_000),
        "its config.json",
        "Fetch the model again",
    ),
    model(
        "no weights",
        delete("model.safetensors"),
        "expert.path={here}/model has no weights",
        "Fetch the model",
    ),
    model("weights as pickles", pickled, "expert.path={here}/model", "convert them to safetensors"),
    model(
        "weights cut short",
        cut("model.safetensors", 100),
        "weights in {here}/model",
        "check expert.path",
    ),
    model(
        "weights that are none",
        raw("model.safetensors", b"\x00" * 64),
        "weights in {here}/model",
        "check expert.path",
    ),
    model(
        "weights of another shape",
        config(hidden_size=64),
        "weights in {here}/model",
        "check expert.path",
    ),
    model(
        "weights of fewer layers",
        config(num_hidden_layers=3, layer_types=None),
        "lacks",
        "Fetch the model again",
    ),
    model("weights that are not numbers", nothing_but_nan, "not finite", "its weights are damaged"),
    model(
        "no tokenizer", delete("tokenizer.json"), "has no tokenizer", "Copy the tokenizer's files"
    ),
    model(
        "a tokenizer cut short",
        cut("tokenizer.json", 500),
        "tokenizer in {here}/model",
        "check expert.path",
    ),
    model(
        "a tokenizer with more ids than rows", too_many_tokens, f"id {TOKENS}", "check expert.path"
    ),
    model(
        "a type that no library knows",
        config(model_type="nobodys", architectures=None),
        "{here}/model",
        "check expert.path",
    ),
    model(
        "code of its own",
        config(
            model_type="nobodys",
            architectures=["Own"],
            auto_map={"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Own"},
        ),
        "{here}/model",
        "expert.trust_remote_code=true",
    ),
    model(
        "an encoder",
        config(model_type="distilbert", architectures=["DistilBertModel"]),
        "{here}/model",
        "check expert.path",
    ),
    model(
        "a layer too far",
        lambda folder: None,
        "amateur.drop_layers=[7]",
        "layers 0 to 1",
        "amateur.drop_layers=[7]",
    ),
    model(
        "a path and an early exit",
        lambda folder: None,
        "amateur.path={here}",
        "Leave one out",
        "amateur.path={here}",
    ),
    Case(
        "models: no package", "expert.path=null expert.package=", "expert=micro", "set expert.path"
    ),
    Case(
        "models: a package without a name", "expert.package=..x", "expert=micro", "set expert.path"
    ),
    pair(
        "another family",
        lambda here: tiny_model(
            here, "other", rows=TOKENS + 8, special=("<a>", "<b>", "<c>", "<d>")
        ),
        "do not share a vocabulary",
        "Choose two models of one family",
    ),
    pair("two ids in each other's place", renamed_token, "2 of", "Choose two models of one family"),
    pair(
        "nothing left to share",
        lambda here: sound_model(here, "other"),
        "all",
        "Shorten expert.reused_ids",
    ),
]
MODELS[-1] = Case(
    MODELS[-1].name,
    f"{MODELS[-1].words} expert.reused_ids={list(range(TOKENS))}".replace(", ", ","),
    MODELS[-1].culprit,
    MODELS[-1].remedy,
    MODELS[-1].prepare,
)

# Data ------------------------------------------------------------------------------------------

QUESTION = {"question": "Ana owns 9 coins. Ana finds 7 more. How many does Ana have?"}


def questions(name: str, prepare: Prepare, culprit: str, remedy: str) -> Case:
    words = "data=jsonl data.path={here}/q.jsonl stages=[sample]"
    return Case(f"data: {name}", words, culprit, remedy, prepare)


def second_line(name: str, line: object, culprit: str, remedy: str) -> Case:
    """A sound line, then one that is not."""
    culprit = f"{{here}}/q.jsonl, line 2: {culprit}"
    return questions(name, lines("q.jsonl", QUESTION, line), culprit, remedy)


def mirror(name: str, *rows: object) -> Prepare:
    return lines(f"hub/{name}/train.jsonl", *rows)


DATA = [
    questions("a missing file", lambda here: None, "{here}/q.jsonl: no such file", "Set data.path"),
    questions(
        "a folder",
        lambda here: (here / "q.jsonl").mkdir(),
        "{here}/q.jsonl",
        "Set data.path to a JSON Lines file",
    ),
    questions(
        "an empty file",
        text("q.jsonl", ""),
        "{here}/q.jsonl: no questions",
        "Write one JSON object",
    ),
    questions(
        "blank lines",
        text("q.jsonl", "\n  \n"),
        "{here}/q.jsonl: no questions",
        "Write one JSON object",
    ),
    questions(
        "no UTF-8",
        raw("q.jsonl", b'{"question": "\xff"}'),
        "{here}/q.jsonl, line 1",
        "Save the file as UTF-8",
    ),
    questions(
        "NUL bytes",
        raw("q.jsonl", b"\x00" * 100),
        "{here}/q.jsonl, line 1: not JSON",
        "Write one object a line",
    ),
    questions(
        "a whole array",
        text("q.jsonl", json.dumps([QUESTION])),
        "line 1: not an object",
        'Write {"question"',
    ),
    second_line("a line cut short", '{"question": "How', "not JSON", "Write one object a line"),
    second_line("a line too deep", "[" * 100_000, "not JSON", "Write one object a line"),
    second_line(
        "a number beyond all",
        '{"question": "Q", "answer": 1e99999999999999999999}',
        "not JSON",
        "Write one object a line",
    ),
    second_line(
        "a number without end",
        '{"question": "Q", "answer": ' + "1" * 5000 + "}",
        "not JSON",
        "Write one object a line",
    ),
    second_line(
        "no number", '{"question": "Q", "answer": NaN}', "not JSON", "Write one object a line"
    ),
    second_line("no question", {"query": "Q"}, "no `question`", "the keys are: query"),
    second_line("a question that is null", {"question": None}, "`question`", "non-empty string"),
    second_line("a question that is a number", {"question": 7}, "`question`", "non-empty string"),
    second_line("an empty question", {"question": " "}, "`question`", "non-empty string"),
    second_line(
        "an answer that is a list",
        {**QUESTION, "answer": [1]},
        "`answer`",
        "must be a string or a number",
    ),
    second_line(
        "a solution that is a number", {**QUESTION, "solution": 1}, "`solution`", "must be a string"
    ),
    second_line(
        "half a character", {"question": "\ud83d?"}, "`question`", "half of a surrogate pair"
    ),
    Case(
        "data: no answer to verify against",
        "data=jsonl data.path={here}/q.jsonl method=rejection_sft",
        "question jsonl/1 has no reference answer",
        "method=rejection_sft verifies answers",
        lines("q.jsonl", QUESTION),
    ),
    Case(
        "data: no solution to imitate",
        "data=jsonl data.path={here}/q.jsonl method=gt_sft",
        "question jsonl/1",
        "choose other data or another method",
        lines("q.jsonl", QUESTION),
    ),
    Case(
        "data: no mirror",
        "data=gsm8k hub_root={here}/nowhere",
        "hub_root={here}/nowhere",
        "leave hub_root unset",
    ),
    Case(
        "data: a mirror that is a file",
        "data=gsm8k hub_root={here}/x",
        "hub_root={here}/x",
        "leave hub_root unset",
        text("x", ""),
    ),
    Case(
        "data: a mirror without the set",
        "data=gsm8k hub_root={here}",
        "openai/gsm8k",
        "Copy it there",
    ),
    Case(
        "data: a mirror of another set",
        "data=svamp hub_root={here}/hub",
        "svamp/train/0: no column 'Body'",
        "Set `path` and `format`",
        mirror("ChilleD/SVAMP", QUESTION),
    ),
    Case(
        "data: an empty set",
        "data=svamp hub_root={here}/hub",
        "ChilleD/SVAMP",
        "Check data.path",
        lambda here: (here / "hub" / "ChilleD" / "SVAMP").mkdir(parents=True),
    ),
    Case(
        "data: a split that is not there",
        "data=svamp data.split=dev hub_root={here}/hub",
        "split dev",
        "Change data.split",
        mirror("ChilleD/SVAMP", QUESTION),
    ),
    Case(
        "data: a cell of another kind",
        "data=svamp data.format=olympiadbench hub_root={here}/hub",
        "svamp/train/0",
        "Set `path` and `format`",
        mirror("ChilleD/SVAMP", {"question": "Q", "final_answer": 5}),
    ),
    Case("data: an unknown format", "data.format=gsm8", "format 'gsm8'", "Did you mean 'gsm8k'?"),
    Case(
        "data: an unknown family",
        "data.configs=[micro_ad]",
        "'micro_ad'",
        "did you mean 'micro_add'",
    ),
    Case(
        "data: a set without a path",
        "data=svamp data.path=null",
        "`path` is missing",
        "Set data.path",
    ),
]

# Records of kept steps -------------------------------------------------------------------------

RECORD = {
    "prompt_id": "Ana owns 99 coins. Ana finds 72 more. How many coins does Ana have?",
    "step": 1,
    "prefix": "9",
    "tokens": ["9", " + "],
    "token_ids": [14, 15],
    "weights": [0.75, 0.25],
    "kl_divergence": 0.9,
}
WITH_IDS = {**RECORD, "prompt_token_ids": [2, 27, 1, 3], "prefix_token_ids": [14]}


def records(name: str, prepare: Prepare, culprit: str, remedy: str) -> Case:
    words = "data=lr_samples data.path={here}/r.jsonl stages=[sample,distill] distiller.steps=1"
    return Case(f"records: {name}", words, culprit, remedy, prepare)


def record(name: str, line: object, culprit: str, remedy: str) -> Case:
    """A sound record, then one that is not."""
    if isinstance(line, dict):
        line = {key: value for key, value in line.items() if value is not ...}
    return records(name, lines("r.jsonl", RECORD, line), "{here}/r.jsonl, line 2" + culprit, remedy)


RECORDS = [
    records(
        "a missing file",
        lambda here: None,
        "data.path={here}/r.jsonl cannot be read",
        "set data.path",
    ),
    records(
        "a folder",
        lambda here: (here / "r.jsonl").mkdir(),
        "data.path={here}/r.jsonl cannot be read",
        "set data.path",
    ),
    records(
        "an empty file",
        text("r.jsonl", "\n"),
        "data.path={here}/r.jsonl is empty",
        "one kept step per line",
    ),
    records(
        "no UTF-8",
        raw("r.jsonl", b"\x93NUMPY\xff"),
        "data.path={here}/r.jsonl",
        "save the file as UTF-8",
    ),
    record("a line cut short", '{"prompt_id": "', " is not JSON", "one object per line"),
    record("a line too deep", "[" * 100_000, " is not JSON", "one object per line"),
    record("a list", [RECORD], " is not a JSON object", "with prompt_id, step"),
    record("no weights", {**RECORD, "weights": ...}, " lacks 'weights'", "a record has prompt_id"),
    record(
        "a step that is a text",
        {**RECORD, "step": "1"},
        ": 'step' is str",
        "must be a whole number",
    ),
    record(
        "a step that is a truth",
        {**RECORD, "step": True},
        ": 'step' is bool",
        "must be a whole number",
    ),
    record("a step before the first", {**RECORD, "step": -1}, ": step", "must be 0 or more"),
    record(
        "an empty question",
        {**RECORD, "prompt_id": " "},
        ": prompt_id is empty",
        "must be the question's text",
    ),
    record(
        "a prefix that is null",
        {**RECORD, "prefix": None},
        ": 'prefix' is NoneType",
        "must be a text",
    ),
    record(
        "half a character",
        {**RECORD, "prefix": "\ud83d"},
        ": prefix has half",
        "write the whole character",
    ),
    record(
        "a divergence beyond all",
        {**RECORD, "kl_divergence": 10**400},
        ": step",
        "kl_divergence finite",
    ),
    record(
        "a divergence that is no number",
        {**RECORD, "kl_divergence": float("nan")},
        ": step",
        "kl_divergence finite",
    ),
    record(
        "a divergence below 0", {**RECORD, "kl_divergence": -1}, ": step", "finite and 0 or more"
    ),
    record(
        "no ids", {**RECORD, "token_ids": [], "weights": []}, " has 0 token_ids", "at least one id"
    ),
    record(
        "fewer ids than weights",
        {**RECORD, "token_ids": [14]},
        " has 1 token_ids and 2",
        "one weight per id",
    ),
    record(
        "an id of another tokenizer",
        {**RECORD, "token_ids": [14, 151643]},
        ": token_ids has 151643",
        "made with another tokenizer",
    ),
    record(
        "an id that is a text",
        {**RECORD, "token_ids": [14, "9" * 5000]},
        ": token_ids has '999",
        "made with another tokenizer",
    ),
    record(
        "an id twice",
        {**RECORD, "token_ids": [14, 14]},
        ": token_ids has the same token twice",
        "add up its weights",
    ),
    record(
        "weights that do not sum to 1",
        {**RECORD, "weights": [0.5, 0.25]},
        ": weights",
        "sum to 1, not 0.75",
    ),
    record(
        "a negative weight",
        {**RECORD, "weights": [1.5, -0.5]},
        ": weights",
        "0 or more and sum to 1, not -0.5",
    ),
    record(
        "a weight that is a truth",
        {**RECORD, "weights": [True, 0]},
        ": weights",
        "0 or more and sum to 1, not True",
    ),
    record(
        "a weight beyond all",
        {**RECORD, "weights": [10**400, 1]},
        ": weights",
        "0 or more and sum to 1",
    ),
    record(
        "a prompt without tokens",
        {**WITH_IDS, "prompt_token_ids": []},
        ": prompt_token_ids is empty",
        "at least one token",
    ),
    record(
        "a prefix of another length", {**WITH_IDS, "step": 2}, ": step is 2", "both must be equal"
    ),
    record(
        "an id of the question that is none",
        {**WITH_IDS, "question_id": 7},
        ": 'question_id' is int",
        "must be a text",
    ),
]

# Stores and places -----------------------------------------------------------------------------

STORES = [
    Case(
        "stores: a file",
        "store={here}/file",
        "the store {here}/file is not writable",
        "Set store= to a writable folder",
        text("file", ""),
    ),
    Case(
        "stores: inside a file",
        "store={here}/file/store",
        "the store {here}/file/store is not writable",
        "Set store= to a writable folder",
        text("file", ""),
    ),
    Case(
        "stores: an export that is a folder",
        "sampler.export={here}",
        "sampler.export={here} is a folder",
        "give a file name",
    ),
    Case(
        "stores: an export inside a file",
        "sampler.export={here}/file/x.jsonl",
        "{here}/file is a file",
        "choose another path",
        text("file", ""),
    ),
    Case(
        "stores: nothing to go on with",
        "stages=[distill]",
        "has no rollout",
        "Add sample to stages",
    ),
    Case(
        "stores: list a folder that is not there",
        "--store {here}/nowhere list",
        "{here}/nowhere",
        "Set --store to",
        program="store",
    ),
    Case(
        "stores: verify a file",
        "--store {here}/file verify",
        "{here}/file",
        "Set --store to",
        text("file", ""),
        "store",
    ),
    Case(
        "stores: prune by runs that are not there",
        "--store {here} prune {here}/nowhere --yes",
        "{here}/nowhere",
        "there is no run in or below this folder",
        program="store",
    ),
]

# Results of runs -------------------------------------------------------------------------------

RESULT = {"accuracy": 0.5, "correct": 1, "total": 2, "stderr": 0.35}
SUMMARY = {
    "method": "lightreasoner",
    "expert": "micro",
    "amateur": "micro",
    "alpha": 0.2,
    "beta": 0.4,
    "seed": 0,
    "settings": {"benchmarks": ["micro_add"]},
    "evaluate": {"expert": {"micro_add": RESULT}, "tuned": {"micro_add": RESULT}},
}
AGAIN = "Run the same command again"


def summary(name: str, prepare: Prepare, culprit: str, remedy: str = AGAIN) -> Case:
    return Case(f"summaries: {name}", "{here}/runs", culprit, remedy, prepare, "report")


def changed(name: str, culprit: str, **values: object) -> Case:
    """A sound summary but for some values."""
    merged = {key: value for key, value in (SUMMARY | values).items() if value is not ...}
    prepare = text("runs/0/summary.json", json.dumps(merged))
    return summary(name, prepare, f"{{here}}/runs/0/summary.json{culprit}")


def evaluated(**values: object) -> dict[str, object]:
    return {"expert": {"micro_add": RESULT | values}}


SUMMARIES = [
    summary(
        "no such folder",
        lambda here: None,
        "{here}/runs is not a folder",
        "give the folder of a run",
    ),
    summary(
        "no run",
        lambda here: (here / "runs").mkdir(),
        "{here}/runs contains no run",
        "no summary.json",
    ),
    summary(
        "cut short",
        text("runs/0/summary.json", json.dumps(SUMMARY)[:-9]),
        "{here}/runs/0/summary.json cannot be read",
    ),
    summary("empty", text("runs/0/summary.json", ""), "{here}/runs/0/summary.json cannot be read"),
    summary("a list", text("runs/0/summary.json", "[1]"), "it should be a JSON object, not [1]"),
    summary(
        "too deep",
        text("runs/0/summary.json", "[" * 100_000),
        "{here}/runs/0/summary.json cannot be read",
    ),
    summary(
        "deep",
        text("runs/0/summary.json", "[" * 500 + "]" * 500),
        "{here}/runs/0/summary.json cannot be read",
    ),
    summary(
        "a link to nothing",
        both(
            text("runs/0/x", ""),
            lambda here: (here / "runs" / "0" / "summary.json").symlink_to("gone"),
        ),
        "{here}/runs/0/summary.json cannot be read",
    ),
    summary(
        "no text",
        both(text("runs/0/x", ""), raw("runs/0/summary.json", b"\x80\x81")),
        "{here}/runs/0/summary.json cannot be read",
    ),
    changed("without a method", " cannot be read (method is missing", method=...),
    changed("half a character", " cannot be read", method="\ud83d"),
    changed(
        "an expert that is a list", " cannot be read (expert should be a string", expert=["micro"]
    ),
    changed("an alpha that is a text", " cannot be read (alpha should be a number", alpha="0.2"),
    changed(
        "a beta that is no number",
        " cannot be read (beta should be a finite number",
        beta=float("nan"),
    ),
    changed("a seed that is a truth", " cannot be read (seed should be an integer", seed=True),
    changed(
        "settings that are a text",
        " cannot be read (settings should be a JSON object",
        settings="all",
    ),
    changed(
        "benchmarks that are a number",
        " cannot be read (settings.benchmarks should be a list",
        settings={"benchmarks": 3},
    ),
    changed(
        "models that are a text",
        " cannot be read (provenance.expert should be a JSON object",
        provenance={"expert": "micro"},
    ),
    changed(
        "seconds that are a text",
        " cannot be read (sample.seconds should be a number",
        sample={"seconds": "9"},
    ),
    changed(
        "seconds beyond all",
        " cannot be read (distill.seconds should be a number",
        distill={"seconds": 10**400},
    ),
    changed(
        "bins that are a text",
        " cannot be read (sample.histogram.counts should be a list",
        sample={"steps": 3, "histogram": {"bin_nats": 0.1, "counts": "999"}},
    ),
    changed(
        "a histogram of unknown steps",
        " cannot be read (sample: steps should be a number",
        sample={"histogram": {"bin_nats": 0.1, "counts": [1]}},
    ),
    changed(
        "more right than asked",
        " cannot be read (evaluate.expert.micro_add: correct should be at most total",
        evaluate=evaluated(correct=3),
    ),
    changed(
        "a count beyond all",
        " cannot be read (evaluate.expert.micro_add.total should be less than",
        evaluate=evaluated(total=10**400),
    ),
    changed(
        "an accuracy that is a text",
        " cannot be read (evaluate.expert.micro_add.accuracy should be a number",
        evaluate=evaluated(accuracy="high"),
    ),
    changed(
        "a curve that is a number",
        " cannot be read (evaluate.curve should be a list",
        evaluate={**evaluated(), "curve": 5},
    ),
    changed(
        "a gap without counts",
        " cannot be read (evaluate.gap.expert.micro_add.accuracy is missing",
        evaluate={**evaluated(), "gap": {"expert": {"micro_add": {}}}},
    ),
    Case(
        "summaries: a report into a file",
        "{here}/runs --out {here}/file",
        "--out {here}/file",
        "cannot be written to",
        both(text("runs/0/summary.json", json.dumps(SUMMARY)), text("file", "")),
        "report",
    ),
]

# Recorded answers ------------------------------------------------------------------------------

ANSWER = {"id": "g/0", "reference": "18", "kind": "number", "output": "\\boxed{18}"}


def answers(name: str, prepare: Prepare, culprit: str, remedy: str) -> Case:
    return Case(
        f"answers: {name}",
        "{here}/a.jsonl --out {here}/summary.json",
        culprit,
        remedy,
        prepare,
        "grade",
    )


def answer(name: str, line: object, culprit: str, remedy: str) -> Case:
    culprit = f"{{here}}/a.jsonl, line 2: {culprit}"
    return answers(name, lines("a.jsonl", ANSWER, line), culprit, remedy)


ANSWERS = [
    answers(
        "a missing file",
        lambda here: None,
        "{here}/a.jsonl: cannot be read",
        "Pass a JSON Lines file",
    ),
    answers(
        "a folder",
        lambda here: (here / "a.jsonl").mkdir(),
        "{here}/a.jsonl: cannot be read",
        "Pass a JSON Lines file",
    ),
    answers(
        "an empty file", text("a.jsonl", ""), "{here}/a.jsonl: no answers", "Pass the answers.jsonl"
    ),
    answers(
        "no UTF-8",
        raw("a.jsonl", b"\xff\xfe"),
        "{here}/a.jsonl: not UTF-8",
        "Save the file as UTF-8",
    ),
    answer("a line cut short", '{"id": ', "not JSON", "Write one object per line"),
    answer("a line too deep", "[" * 100_000, "not JSON", "Write one object per line"),
    answer("a list", [ANSWER], "not an object", "with id, reference, kind, output"),
    answer(
        "an output that is null",
        {**ANSWER, "output": None},
        "'output' is missing or not a string",
        "required: id",
    ),
    answer(
        "an unknown kind",
        {**ANSWER, "kind": "essay"},
        "kind 'essay'",
        "none of number, math, choice",
    ),
    answer(
        "options that are numbers", {**ANSWER, "choices": [1]}, "'choices'", "write [] for none"
    ),
    answer(
        "a reference that is no number",
        {**ANSWER, "reference": "many"},
        "the reference 'many'",
        "answer: number",
    ),
    answer(
        "a reference of no option",
        {**ANSWER, "kind": "choice", "reference": "E", "choices": ["1", "2"]},
        "the reference 'E'",
        "none of the options AB",
    ),
    answer(
        "a reference cut short",
        {**ANSWER, "kind": "math", "reference": "\\frac{1"},
        "the reference",
        "braces that do not balance",
    ),
    Case(
        "answers: a place that is none",
        "{here}/a.jsonl --out {here}/nowhere/b.jsonl",
        "--out {here}/nowhere/b.jsonl",
        "Pass a file in an existing",
        lines("a.jsonl", ANSWER),
        "grade",
    ),
]

CASES = [*SETTINGS, *MODELS, *DATA, *RECORDS, *STORES, *SUMMARIES, *ANSWERS]


@dataclass(frozen=True)
class Refusal:
    """How a program ended."""

    status: int
    err: str


@pytest.fixture
def refused(program, capsys, monkeypatch, tmp_path) -> Callable[[Case], Refusal]:
    """Prepares a case and calls its program, with no data set converted outside the test."""
    from datasets import config as data_sets

    monkeypatch.setattr(data_sets, "HF_DATASETS_CACHE", tmp_path / "cache")

    def call(case: Case) -> Refusal:
        here = tmp_path / "here"
        here.mkdir()
        case.prepare(here)
        words = [word.replace("{here}", str(here)) for word in case.words.split()]
        if case.program == "run":
            outcome = program(*MICRO, *words)
            return Refusal(outcome.status, outcome.err)
        capsys.readouterr()
        status = PROGRAMS[case.program](words)
        return Refusal(status, capsys.readouterr().err)

    return call


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_what_cannot_work_is_one_line_and_leaves_nothing(case, refused, tmp_path):
    refusal = refused(case)
    assert refusal.status in (1, 2)
    assert refusal.err.count("\n") == 1, refusal.err
    assert refusal.err.startswith("error: ")
    here = str(tmp_path / "here")
    assert case.culprit.replace("{here}", here) in refusal.err
    assert case.remedy in refusal.err
    assert not (tmp_path / "run" / "summary.json").exists()
    assert list(tmp_path.rglob("manifest.json")) == []
    if case.program == "grade":
        assert not (tmp_path / "here" / "summary.json").exists()
    if case.program == "report":
        assert not (tmp_path / "here" / "runs" / "report").exists()


def test_no_two_cases_have_one_name():
    names = [case.name for case in CASES]
    assert sorted(set(names)) == sorted(names)


# What the cases are defects of -----------------------------------------------------------------


def test_a_sound_summary_is_reported(tmp_path, capsys):
    text("runs/0/summary.json", json.dumps(SUMMARY))(tmp_path)
    assert report_main([str(tmp_path / "runs")]) == 0, capsys.readouterr().err
    assert (tmp_path / "runs" / "report" / "report.md").exists()


def test_sound_answers_are_graded(tmp_path, capsys):
    lines("a.jsonl", ANSWER)(tmp_path)
    assert grade.main([str(tmp_path / "a.jsonl"), "--out", str(tmp_path / "b.jsonl")]) == 0
    (graded,) = (tmp_path / "b.jsonl").read_text("utf-8").splitlines()
    assert json.loads(graded)["correct"] is True
    assert "1 of 1 correct" in capsys.readouterr().out


def test_an_answer_with_half_a_character_is_graded(tmp_path):
    """Outputs are cut where the limit falls; the file could not be written for it."""
    lines("a.jsonl", {**ANSWER, "output": "\ud83d \\boxed{18}"})(tmp_path)
    assert grade.main([str(tmp_path / "a.jsonl"), "--out", str(tmp_path / "b.jsonl")]) == 0
    assert json.loads((tmp_path / "b.jsonl").read_text("utf-8"))["correct"] is True


def test_a_records_file_may_begin_with_a_byte_order_mark(program, tmp_path):
    (tmp_path / "r.jsonl").write_bytes(b"\xef\xbb\xbf" + json.dumps(RECORD).encode() + b"\n")
    words = ("data=lr_samples", f"data.path={tmp_path / 'r.jsonl'}", "stages=[sample]")
    outcome = program(*MICRO, *words)
    assert outcome.status == 0, outcome.err
    assert outcome.finished == ["records"]


def test_more_questions_than_there_are_takes_all(program, tmp_path):
    """`data.max_questions` is a limit: the summary tells how many there were."""
    lines("q.jsonl", QUESTION)(tmp_path)
    words = ("data=jsonl", f"data.path={tmp_path / 'q.jsonl'}", "stages=[sample]")
    outcome = program(*MICRO, *words, "data.max_questions=1000")
    assert outcome.status == 0, outcome.err
    told = json.loads((outcome.folder / "summary.json").read_text("utf-8"))
    assert told["sample"]["questions"] == 1


# What is damaged in a store is made again ------------------------------------------------------


@pytest.fixture
def distilled(program, tmp_path) -> Callable[[], Path]:
    """Distils the sound record; gives the store's only adapter artifact."""

    def run() -> Path:
        lines("r.jsonl", RECORD)(tmp_path)
        words = ("data=lr_samples", f"data.path={tmp_path / 'r.jsonl'}", "stages=[distill]")
        small = ("distiller.steps=1", "distiller.batch_size=1")
        outcome = program(*MICRO, *words, *small)
        assert outcome.status == 0, outcome.err
        return next(
            path.parent
            for path in (tmp_path / "store" / "adapter").glob("*/manifest.json")
            if "damaged" not in path.parent.name
        )

    return run


@pytest.mark.parametrize(
    ("broken", "content"), [("manifest.json", "{"), ("adapter/adapter_config.json", "[]")]
)
def test_a_broken_adapter_or_manifest_is_told_and_made_again(
    distilled, tmp_path, capsys, broken, content
):
    artifact = distilled()
    sound = json.loads((artifact / broken).read_text("utf-8"))
    (artifact / broken).write_text(content, "utf-8")
    assert store_main(["--store", str(tmp_path / "store"), "verify"]) == 1
    said = capsys.readouterr()
    assert artifact.name in said.out
    assert "1 damaged" in said.out
    assert "Traceback" not in said.err
    again = distilled()
    assert again == artifact
    assert json.loads((again / broken).read_text("utf-8")).keys() == sound.keys()
    assert len(list((tmp_path / "store" / "adapter").glob("*.damaged-*"))) == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only to root")
def test_a_store_that_cannot_be_written(program, tmp_path):
    (tmp_path / "store").mkdir(mode=0o500)
    outcome = program(*MICRO, "stages=[sample]")
    assert f"the store {tmp_path / 'store'} is not writable" in outcome.error
    assert not outcome.has_summary


# What a developer sees -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "case",
    [
        next(case for case in CASES if case.program == program)
        for program in ("run", "report", "grade", "store")
    ],
    ids=lambda case: case.program,
)
def test_debugging_raises_where_the_error_is(case, refused, monkeypatch):
    monkeypatch.setenv("LR_EXP_DEBUG", "1")
    with pytest.raises((UserError, HydraException)):
        refused(case)


def test_debugging_shows_the_traceback(tmp_path):
    words = [sys.executable, "-m", "lr_exp", "betta=0.4"]
    root = Path(__file__).parents[1]
    environment = {"PYTHONPATH": str(root), "PATH": "", "LR_EXP_DEBUG": "1"}
    done = subprocess.run(  # noqa: S603
        words,
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback")
    assert "'betta' is not a setting" in done.stderr.splitlines()[-1]
