"""Input that cannot work is refused in one line, and nothing that looks like a result is left.

Each table has an input and what its error says, `culprit | remedy`. `{here}` is the test's folder.
"""

import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pytest
from hydra.errors import HydraException

from lr_exp.errors import UserError
from lr_exp.evaluator import grade
from lr_exp.models.prompt_forms import Prompt
from lr_exp.report.__main__ import main as report_main
from lr_exp.sampler.records import import_records
from lr_exp.store.__main__ import main as store_main

from .support.files import run_python
from .support.tiny import TOKENS, tiny_model, tiny_tokenizer

MICRO = (
    "experiment=demo",
    "benchmarks=[micro_add]",
    "evaluator.max_examples=2",
    "data.max_questions=2",
    "sampler.max_new_tokens=4",
)

Prepare = Callable[[Path], object]  # fills the folder


def nothing(here: Path) -> None:
    pass


class Case(NamedTuple):
    """One input that cannot work."""

    words: str  # for the program
    says: str
    prepare: Prepare = nothing
    program: str = "run"


def text(name: str, content: str) -> Prepare:
    """A file in the test's folder."""

    def write(here: Path) -> None:
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_text(content, "utf-8")

    return write


def raw(name: str, content: bytes) -> Prepare:
    return lambda here: (here / name).write_bytes(content)


def folder(name: str) -> Prepare:
    return lambda here: (here / name).mkdir(parents=True)


def lines(name: str, *values: object) -> Prepare:
    """A JSON Lines file; a text is a line as it is."""
    written = [value if isinstance(value, str) else json.dumps(value) for value in values]
    return text(name, "".join(f"{line}\n" for line in written))


DEEP = "[" * 100_000  # exceeds the parser's recursion limit
HUGE = 10**400  # exceeds a float

# Settings ----------------------------------------------------------------------------------------

SETTINGS = {
    # The type
    "alpha=much": "alpha=much | could not be converted to Float | expected a number in (0, 1]",
    "beta=[1]": "beta=[1] | convert",
    "distiller.steps=1.5": "distiller.steps=1.5 | to Integer | expected an integer in [1, 2**31)",
    "evaluator.max_examples=all": "expected an integer in [1, 2**31) or null",
    "stages=sample": "error: stages=sample ( | expected a list, as [a,b]",
    "sampler=3": "error: sampler=3 ( | subclass of SamplerSettings",
    "distiller.merge=perhaps": "merge=perhaps | not a valid bool | expected true or false",
    "alpha=null": "alpha=null | not Optional",
    "benchmarks=[null]": "benchmarks=[null] | not a subclass of str",
    # The range
    f"distiller.steps={10**30}": f"distiller.steps={10**30} | in [1, 2**31)",
    "distiller.steps=2000000000": "distiller.steps=2000000000 | lower one of them",
    "data.count=2000000000": "data.count=2000000000 | the maximum is 100,000",
    "alpha=0.0001": "alpha=0.0001 | Lower sampler.support_floor",
    # Required values
    "expert=null": "expert=null: no such option | Known: deepseek",
    "data=jsonl": "data.path is required: add data.path=",
    "stages=[]": "stages is empty | set one or more of sample, distill, evaluate",
    "store=": "store is empty | set it to the folder",
    "distiller.target_modules=[]": "distiller.target_modules=[] | at least one module name",
    "distiller.target_modules=['']": "distiller.target_modules=[''] | at least one module name",
    # Misspelt names
    "xyzzy=1": "'xyzzy' is not a setting | --help",
    "sampler={stepz:1}": "stepz | not in 'SamplerSettings'",
    "expert={pth:x}": "Key 'pth' not in 'ExpertSettings'",
    "expert.pth=x": "Did you mean 'expert.path'?",
    "evaluator.prompts=[plian]": "unknown prompt 'plian' | Did you mean 'plain'?",
    "evaluator.prompts=[]": "evaluator.prompts is empty",
    "evaluator.prompts=[chat,chat]": "evaluator.prompts contains 'chat' twice",
    "sampler.prompt=none.jinja": "prompt none.jinja cannot be read",
    "benchmark=[gsm8k]": "Did you mean 'benchmarks'?",
    "expert=micr": "expert=micr: no such option | Did you mean 'micro'?",
    "method=lightreasoner,no_contrst": "Did you mean 'no_contrast'?",
    "benchmarks=[micro_ad]": "'micro_ad' | Did you mean 'micro_add'?",
    "stages=[sampel]": "'sampel' | Did you mean 'sample'?",
    "wandb.mode=ofline": "Did you mean 'offline'?",
    "dtype=bfloat": "Did you mean 'bfloat16'?",
    "distiller.schedule=linaer": "Did you mean 'linear'?",
    "device=gpu": "device=gpu | use auto, cpu, cuda or cuda:N",
    "device=meta": "device=meta | use auto, cpu, cuda",
    "hydra.rn.dir=x": "Key 'rn' not in 'HydraConf'",
    "hydra/launcher=jbolib": "jbolib",
    # Interpolations
    "beta=${nowhere}": "beta: Interpolation key 'nowhere' not found | by a value",
    "beta=${beta}": "beta: Recursive interpolation | by a value",
    "expert.path=${amateur.path} amateur.path=${expert.path}": "path: Recursive | by a value",
    "store=${oc.env:LR_EXP_NOT_SET}": "store: | by a value",
    # Samples
    "evaluator.samples=8": "evaluator.samples=8 with evaluator.temperature=0 | =0.7",
    "evaluator.temperature=1": "evaluator.samples=1 with evaluator.temperature=1 | or neither",
    "evaluator.samples=8 evaluator.temperature=-1": "temperature=-1.0 | in [0, inf)",
    "evaluator.pass_at=[8]": "pass_at=[8] needs evaluator.samples of at least 8, not 1 | raise",
    "evaluator.pass_at=[0]": "evaluator.pass_at=0 | in [1, 2**31)",
    "evaluator.samples=2 evaluator.temperature=1 evaluator.decoder=contrastive": "decoder=greedy",
    # Noise
    "data.noise=typo": "data.noise='typo' is not known | Did you mean 'typos'?",
    "data.noise=typos data.noise_share=1.5": "data.noise_share=1.5 is out of range | in [0, 1]",
    "data=lr_samples data.path=x data.noise=typos": "data.noise=typos | data=lr_samples | remove",
    "data=random_calculation data.noise=irrelevant": "no other question | data.noise=typos or",
    # Engines
    "sampler.engine=server": "sampler.engine=server needs | server.url",
    "evaluator.engine=server": "evaluator.engine=server needs | server.url",
    "sampler.engine=sglang": "sampler.engine='sglang' is not known",
    "evaluator.engine=vllm evaluator.gap=greedy": "evaluator.gap=greedy",
    "evaluator.engine=vllm evaluator.decoder=contrastive": "decoder=contrastive",
    # Overrides
    "stages=[sample,sample]": "'sample' twice | remove one",
    "benchmarks=[micro_add,micro_add]": "'micro_add' twice | remove one",
    "beta='0.4": "beta='0.4 | quote its value, as in",
    "beta": "'beta' | write key=value",
    "data.path=a=b.jsonl": """as in 'data.path="a=b.jsonl"'""",
    "data.path=fragen_für_ana.jsonl": """as in 'data.path="fragen_für_ana.jsonl"'""",
    "~beta": "~beta: a setting cannot be removed | Write beta=VALUE",
    "~evaluator": "~evaluator | Write evaluator.KEY=VALUE",
    "~method": "~method | Write method=VALUE",
    "+experiment=demo": "remove the `+`, as in experiment=demo",
    "--frobnicate": "unrecognized arguments: --frobnicate | --help",
    "--cfg=jb": "invalid choice: 'jb'",
    "seed=1,2": "seed | To sweep over it, add --multirun",
    "seed=range(0,1000000000000)": "seed=range | shorten the range",
    "evaluator.prompts=[few_shot_plain]": "4 few-shot examples of micro_add | no split",
    "+sweep=micro_ablation": "starts several runs | python -m lr_exp -m +sweep=micro_ablation",
    "expert.name='caf\udce9'": "is not UTF-8 text",
}

# Models ------------------------------------------------------------------------------------------

EARLY_EXIT = "amateur=early_exit amateur.drop_layers=[1]"


@cache
def _model_files() -> dict[str, bytes]:
    with TemporaryDirectory() as place:
        return {path.name: path.read_bytes() for path in tiny_model(Path(place)).iterdir()}


def sound_model(here: Path, name: str = "model") -> Path:
    """A tiny model, made once: making it takes longer than refusing it."""
    (here / name).mkdir()
    for file, content in _model_files().items():
        (here / name / file).write_bytes(content)
    return here / name


def delete(name: str) -> Prepare:
    return lambda model: (model / name).unlink()


def cut(name: str, by: int) -> Prepare:
    return lambda model: (model / name).write_bytes((model / name).read_bytes()[:-by])


def config(**changed: Any) -> Prepare:
    """A config.json with other values; None removes the key."""

    def change(model: Path) -> None:
        path = model / "config.json"
        merged = json.loads(path.read_text("utf-8")) | changed
        path.write_text(json.dumps({k: v for k, v in merged.items() if v is not None}), "utf-8")

    return change


def pickled(model: Path) -> None:
    (model / "model.safetensors").rename(model / "pytorch_model.bin")


def too_many_tokens(model: Path) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["<|more|>"])
    tokenizer.save_pretrained(model)


def not_finite(model: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = model / "model.safetensors"
    weights = {name: value * float("nan") for name, value in load_file(path).items()}
    save_file(weights, path, metadata={"format": "pt"})


def exchanged_ids(here: Path) -> None:
    """A second model whose tokenizer has the ids of two letters exchanged."""
    path = sound_model(here, "other") / "tokenizer.json"
    tokenizer = json.loads(path.read_text("utf-8"))
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    path.write_text(json.dumps(tokenizer), "utf-8")


def other_family(here: Path) -> None:
    special = ("<a>", "<b>", "<c>", "<d>")
    tiny_model(here, "other", rows=TOKENS + 8, special=special)


def same_family(here: Path) -> None:
    sound_model(here, "other")


OWN_CODE = {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Own"}
CHECK = " | check expert.path"
FETCH = "its config.json | Fetch the model again"

# Path of the expert, and what is there.
PATHS: list[tuple[str, Prepare, str]] = [
    ("{here}/nowhere", nothing, "expert.path={here}/nowhere | there is no such folder"),
    ("", nothing, "expert.path= | no config.json"),
    ("/" + "a" * 400, nothing, "expert.path=/aaa | give a model's folder"),
    ("{here}/empty", folder("empty"), "expert.path={here}/empty | no config.json"),
    ("{here}/x.bin", raw("x.bin", b"weights"), "expert.path={here}/x.bin | give a model's folder"),
    ("{here}/x.gguf", raw("x.gguf", b"GGUF?" * 100), "expert: the tokenizer in {here}" + CHECK),
]

# What is wrong with the expert's folder.
SPOILT: list[tuple[Prepare, str]] = [
    (delete("config.json"), "expert.path={here}/model | no config.json"),
    (cut("config.json", 40), FETCH),
    (text("config.json", "[1]"), FETCH),
    (text("config.json", DEEP), FETCH),
    (delete("model.safetensors"), "{here}/model has no weights | Fetch the model"),
    (pickled, "{here}/model | convert them to safetensors"),
    (cut("model.safetensors", 100), "weights in {here}/model" + CHECK),
    (raw("model.safetensors", b"\x00" * 64), "weights in {here}/model" + CHECK),
    (config(hidden_size=64), "weights in {here}/model" + CHECK),
    (config(num_hidden_layers=3, layer_types=None), "lacks | Fetch the model"),
    (not_finite, "not finite | its weights are damaged"),
    (delete("tokenizer.json"), "has no tokenizer | Copy the tokenizer's files"),
    (cut("tokenizer.json", 500), "tokenizer in {here}/model" + CHECK),
    (too_many_tokens, f"id {TOKENS}{CHECK}"),
    (config(model_type="nobodys", architectures=None), "{here}/model" + CHECK),
    (
        config(model_type="nobodys", architectures=["Own"], auto_map=OWN_CODE),
        "{here}/model | expert.trust_remote_code=true",
    ),
    (config(model_type="distilbert", architectures=["DistilBertModel"]), "{here}/model" + CHECK),
]

# Overrides beside those of a sound expert with its own early exit as the amateur.
MODEL_WORDS = {
    "amateur.drop_layers=[7]": "amateur.drop_layers=[7] | layers 0 to 1",
    "amateur.path={here}": "amateur.path={here} | Leave one out",
    "expert.path=null expert.package=": "expert=micro | set expert.path",
    "distiller.target_modules=[q_prj]": "Qwen2ForCausalLM has no module named q_prj; | q_proj",
}

ALL_IDS = f"expert.reused_ids={list(range(TOKENS))}".replace(", ", ",")
FAMILY = " | Choose two models of one family"
PAIRS: list[tuple[Prepare, str, str]] = [
    (other_family, "", "do not share a vocabulary" + FAMILY),
    (exchanged_ids, "", "2 of" + FAMILY),
    (same_family, ALL_IDS, "all | Shorten expert.reuse"),
]


def small_context(here: Path) -> None:
    """Positions beyond the context give plausible wrong numbers."""
    tiny_model(here, "model", max_position_embeddings=64)
    lines("q.jsonl", {"question": "How many? " * 20})(here)


def models() -> Iterator[Case]:
    for path, prepare, says in PATHS:
        yield Case(f"expert.path={path} {EARLY_EXIT}", says, prepare)
    own = f"expert.path={{here}}/model {EARLY_EXIT}"
    for spoil, says in SPOILT:
        yield Case(own, says, lambda here, spoil=spoil: spoil(sound_model(here)))
    for words, says in MODEL_WORDS.items():
        yield Case(f"{own} {words}", says, sound_model)
    both = "expert.path={here}/model amateur.path={here}/other"
    for other, words, says in PAIRS:
        yield Case(
            f"{both} {words}", says, lambda here, other=other: (sound_model(here), other(here))
        )
    words = f"{own} data=jsonl data.path={{here}}/q.jsonl stages=[sample]"
    yield Case(words, "question jsonl/1: its prompt has | has a context of 64", small_context)


# Data --------------------------------------------------------------------------------------------

QUESTION = {"question": "Ana owns 9 coins. Ana finds 7 more. How many does Ana have?"}

MINE = "data=jsonl data.path={here}/q.jsonl stages=[sample]"
UNSOLVED = lines("q.jsonl", QUESTION)
DATA = [
    Case(MINE, "{here}/q.jsonl: cannot be read (No such file"),
    Case(
        MINE,
        "{here}/q.jsonl: cannot be read (Is a directory) | Pass a readable JSON Lines file",
        folder("q.jsonl"),
    ),
    Case(MINE, "{here}/q.jsonl: no questions | Write one JSON object", text("q.jsonl", "")),
    Case(f"{MINE} method=rejection_sft", "question jsonl/1 has no | verifies answers", UNSOLVED),
    Case(f"{MINE} method=gt_sft", "jsonl/1 | choose other data or another method", UNSOLVED),
    Case("data=gsm8k hub_root={here}/no", "hub_root={here}/no | leave hub_root unset"),
    Case("data=gsm8k hub_root={here}/x", "hub_root={here}/x | leave hub_root un", text("x", "")),
    Case("data=svamp data.path=null", "`path` is missing | Set data.path"),
    Case("data=parquet data.path={here}/x", "x: cannot be read as Parquet | Set data.path"),
    Case("method=upft sampler.export={here}/out.jsonl", "measures no divergence"),
]


# Records of kept steps ---------------------------------------------------------------------------

RECORD = {
    "prompt_id": "Ana owns 99 coins. Ana finds 72 more. How many coins does Ana have?",
    "step": 1,
    "prefix": "9",
    "tokens": ["9", " + "],
    "token_ids": [14, 15],
    "weights": [0.75, 0.25],
    "kl_divergence": 0.9,
}
IDS = {"prompt_token_ids": [2, 27, 1, 3], "prefix_token_ids": [14]}

STEPS = "data=lr_samples data.path={here}/r.jsonl stages=[sample,distill] distiller.steps=1"
UNREADABLE = "{here}/r.jsonl: cannot be read | Pass a readable JSON Lines file"
RECORD_FILES = [
    Case(STEPS, UNREADABLE),
    Case(STEPS, UNREADABLE, folder("r.jsonl")),
    Case(STEPS, "data.path={here}/r.jsonl is empty | one kept step", text("r.jsonl", "\n")),
]

# The second line of a file of records, or what it changes in a sound record; `...` removes a key.
RECORD_LINES: list[tuple[object, str]] = [
    ('{"prompt_id": "', ": not JSON | Write one object a line"),
    ({"weights": ...}, ": weights: Field required"),
    ({"step": "1"}, ": step: | valid integer | here: '1'"),
    ({"step": True}, ": step: | valid integer"),
    ({"step": -1}, ": step: | greater than or equal to 0"),
    ({"prompt_id": " "}, ": prompt_id: String should match"),
    ({"prefix": None}, ": prefix: | valid string"),
    ({"prefix": "\ud83d"}, ": prefix: | as a unicode string"),
    ({"kl_divergence": HUGE}, ": kl_divergence: "),
    ({"kl_divergence": -1}, ": kl_divergence: | greater than or equal to -0.001"),
    ({"token_ids": 14}, ": token_ids: | valid list"),
    ({"token_ids": [], "weights": []}, ": token_ids: List should have at least 1 item"),
    ({"token_ids": [14]}, " has 1 token_ids and 2 | one weight per id"),
    ({"token_ids": [14, 151643]}, ": token_ids has 151643 | made with another tokenizer"),
    ({"token_ids": [-1, 14]}, ": token_ids has -1"),
    ({"token_ids": [14, "9" * 5000]}, ": token_ids.1: | valid integer"),
    ({"token_ids": [14, 14]}, ": token_ids has the same token twice | add up its weights"),
    ({"weights": [0.5, 0.25]}, ": weights | sum to 1, not 0.75"),
    ({"weights": [1.5, -0.5]}, ": weights.1: | greater than or equal to 0"),
    ({"weights": [True, 0]}, ": weights.0: | valid number"),
    ({"weights": ["0.5", 0.5]}, ": weights.0: | valid number"),
    ({"weights": [HUGE, 1]}, ": weights"),
    ({**IDS, "prompt_token_ids": []}, ": prompt_token_ids: List should have at least 1 item"),
    ({**IDS, "prompt_token_ids": None}, ": prompt_token_ids: | valid list"),
    ({**IDS, "prefix_token_ids": [14, 999]}, ": prefix_token_ids has 999"),
    ({**IDS, "prefix_token_ids": 14}, ": prefix_token_ids: | valid list"),
    ({**IDS, "step": 2}, ": step is 2 | both must be equal"),
    ({**IDS, "question_id": 7}, ": question_id: | valid string"),
]


@pytest.mark.parametrize(
    ("change", "says"), RECORD_LINES, ids=[f"{change!s:.40}" for change, _ in RECORD_LINES]
)
def test_a_line_that_is_no_record_is_named(tmp_path, change, says):
    line = change
    if isinstance(change, dict):
        line = {key: value for key, value in (RECORD | change).items() if value is not ...}
    lines("r.jsonl", RECORD, line)(tmp_path)
    path = tmp_path / "r.jsonl"
    with pytest.raises(UserError) as raised:
        import_records(path, tiny_tokenizer(), prompt=Prompt(), vocabulary_size=TOKENS)
    check_message(str(raised.value), f"{path}, line 2{says}", tmp_path)


# Stores and places -------------------------------------------------------------------------------

NOT_WRITABLE = " is not writable | Set store= to a writable folder"
FILE = text("file", "")

PRUNE = "--store {here}/s prune {here}/nowhere --yes"
PLACES = [
    Case("store={here}/file", f"the store {{here}}/file{NOT_WRITABLE}", FILE),
    Case("store={here}/file/store", f"the store {{here}}/file/store{NOT_WRITABLE}", FILE),
    Case("sampler.export={here}", "sampler.export={here} is a folder | give a file name"),
    Case("sampler.export={here}/file/x.jsonl", "{here}/file is a file | choose another path", FILE),
    Case("stages=[distill]", "has no rollout | Add sample to stages"),
    Case("--store {here}/nowhere list", "{here}/nowhere | Set --store to", program="store"),
    Case("--store {here}/file verify", "{here}/file | Set --store to", FILE, "store"),
    Case(PRUNE, "{here}/nowhere | there is no run in or", folder("s"), "store"),
    # Other summaries are in test_report_runs and test_report_program.
    Case(
        "{here}/runs",
        "{here}/runs/0/summary.json cannot be read (expert is missing | Run the same command",
        text("runs/0/summary.json", '{"method": "x"}'),
        "report",
    ),
]


# Recorded answers --------------------------------------------------------------------------------

ANSWER = {"id": "g/0", "reference": "18", "kind": "number", "output": "\\boxed{18}"}

# The second line of a file of answers, or what it changes in a sound answer.
ANSWER_LINES: list[tuple[object, str]] = [
    ('{"id": ', "not JSON | Write one object a line"),
    ({"output": None}, "output=None is null: expected a text"),
    ({"kind": "essay"}, "kind='essay' is not known. Known: choice, math, number"),
    ({"choices": [1]}, "choices=1 is an integer: expected a text"),
    ({"reference": "many"}, "the reference 'many' | not a number"),
    (
        {"kind": "choice", "reference": "E", "choices": ["1", "2"]},
        "the reference 'E' | write one of A, B",
    ),
    ({"kind": "math", "reference": "\\frac{1"}, "the reference | braces that do not balance"),
]


def answers() -> Iterator[Case]:
    words = "{here}/a.jsonl --out {here}/summary.json"
    yield Case(words, "a.jsonl: cannot be read | Pass a readable JSON Lines file", program="grade")
    yield Case(words, "no answers | Pass the answers.jsonl", text("a.jsonl", ""), "grade")
    for change, says in ANSWER_LINES:
        line = ANSWER | change if isinstance(change, dict) else change
        says = f"{{here}}/a.jsonl, line 2: {says}"
        yield Case(words, says, lines("a.jsonl", ANSWER, line), "grade")
    words = "{here}/a.jsonl --out {here}/no/b.jsonl"
    says = "--out {here}/no/b.jsonl | Pass a file in an existing"
    yield Case(words, says, lines("a.jsonl", ANSWER), "grade")


# The tests ---------------------------------------------------------------------------------------

PROGRAMS = {"report": report_main, "grade": grade.main, "store": store_main}
FILES = [*models(), *DATA, *RECORD_FILES, *PLACES, *answers()]
CASES = [
    *(Case(words, says) for words, says in SETTINGS.items()),
    *(one for one in FILES if one.program != "run"),
    *(pytest.param(one, marks=pytest.mark.integration) for one in FILES if one.program == "run"),
]


def check_message(message: str, says: str, here: Path) -> None:
    for part in says.replace("{here}", str(here)).split(" | "):
        assert part in message


@pytest.fixture
def refused(program, capsys, monkeypatch, tmp_path) -> Callable[[Case], tuple[int, str]]:
    """Prepares a case and calls its program; returns the exit status and the error output."""
    from datasets import config as data_sets

    monkeypatch.setattr(data_sets, "HF_DATASETS_CACHE", tmp_path / "cache")

    def call(case: Case) -> tuple[int, str]:
        here = tmp_path / "here"
        here.mkdir()
        case.prepare(here)
        words = [word.replace("{here}", str(here)) for word in case.words.split()]
        if case.program == "run":
            outcome = program(*MICRO, *words)
            return outcome.status, outcome.err
        capsys.readouterr()
        return PROGRAMS[case.program](words), capsys.readouterr().err

    return call


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.words:.40} {case.says:.60}")
def test_invalid_input_prints_one_error_line_and_writes_no_results(case, refused, tmp_path):
    status, err = refused(case)
    assert status in (1, 2)
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, err
    lines = [line for line in err.splitlines() if not line.startswith("loading the ")]
    assert lines == errors, err
    assert list(tmp_path.rglob("manifest.json")) == []
    check_message(errors[0], case.says, tmp_path / "here")
    assert list(tmp_path.rglob("adapter/manifest.json")) == []
    assert not (tmp_path / "run" / "summary.json").exists()
    assert case.program != "grade" or not (tmp_path / "here" / "summary.json").exists()
    assert not (tmp_path / "here" / "runs" / "report").exists()


@pytest.mark.parametrize("program_name", ["run", *PROGRAMS])
def test_debugging_raises_where_the_error_is(program_name, refused, monkeypatch):
    monkeypatch.setenv("LR_EXP_DEBUG", "1")
    with pytest.raises((UserError, HydraException)):
        refused(next(case for case in CASES if case.program == program_name))


@pytest.mark.integration
def test_exit_status_and_output_of_a_mistake(tmp_path):
    """As a shell sees them."""
    done = run_python("-m", "lr_exp", "betta=0.4", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: 'betta' is not a setting. Did you mean 'beta'?\n"


# What the cases are defects of -------------------------------------------------------------------


def test_half_a_character_in_an_answer_is_graded(tmp_path, capsys):
    """Outputs are cut where the limit falls."""
    lines("a.jsonl", {**ANSWER, "output": "\ud83d \\boxed{18}"})(tmp_path)
    assert grade.main([str(tmp_path / "a.jsonl"), "--out", str(tmp_path / "b.jsonl")]) == 0
    (graded,) = (tmp_path / "b.jsonl").read_text("utf-8").splitlines()
    assert json.loads(graded)["correct"] is True
    assert "1 of 1 correct" in capsys.readouterr().out
