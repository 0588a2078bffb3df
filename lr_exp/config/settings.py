"""Every setting with its type, default and range.

The YAML groups under `conf/` fill these dataclasses, and stages receive them as plain objects. Each
class validates its values on construction, so that an invalid one fails before any model is loaded.
"""

import re
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from datetime import date
from types import NoneType
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from lr_exp.errors import UserError, did_you_mean

STAGES = ("sample", "distill", "evaluate")
COMPILE_MODES = ("default", "reduce-overhead", "max-autotune")  # the second has CUDA graphs
ATTENTIONS = ("eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention")
ENGINES = ("transformers", "server", "vllm")
ANSWER_KINDS = ("number", "math", "choice")
LM_EVAL = "lm_eval:"  # before the names of tasks of lm-evaluation-harness in `benchmarks`
COUNT = "[1, 2**31)"  # libraries use 32-bit integers

_HTTP_URL = re.compile(r"https?://[^\s/?#@]+(/[^\s?#@]*)?")
_INTERVAL = re.compile(r"([\[(])(\S+), (\S+)([\])])")
_MAX_SHOWN = 80  # characters of a value in a message
PROMPT_DATE = "2025-01-01"
_MAX_TUNED_STEPS = 10**8  # kept steps in a training plan, about 100 bytes each
_TYPES: dict[Any, str] = {
    int: "an integer",
    float: "a number",
    bool: "true or false",
    str: "a text",
    list: "a list, as [a,b]",
    dict: "a mapping",
    NoneType: "null",
}

REQUIRED: Any = "???"  # in Hydra: the user or a preset must set it
_NEUTRAL = {"neutral": True}
_NOT_A_KEY = {**_NEUTRAL, "omegaconf_ignore": True}


def _neutral(default: Any) -> Any:
    """A setting that is not part of a run's identity.

    It does not affect results, such as `concurrency`, or something else covers it: fingerprints
    cover the content of paths and rendered prompts, and `Inputs.machine` covers device and dtype.
    """
    return field(default=default, metadata=_NEUTRAL)


def identity_settings(settings: Any) -> dict[str, Any]:
    """A settings object as a dictionary, without its neutral settings."""
    found = {}
    for one in fields(settings):
        value = getattr(settings, one.name)
        if "neutral" not in one.metadata:
            found[one.name] = identity_settings(value) if is_dataclass(value) else value
    return found


def check_value(key: str, value: Any, hint: Any) -> Any:
    """Checks the value of a key; returns it, as a float if the type is float.

    The hint is a type. `Annotated[float, "(0, 1]"]` limits a number to an interval, `Annotated[str,
    ("a", "b")]` a text to options.

    Raises UserError: the value has another type, or is not in the interval or among the options.
    """
    kind, allowed, optional = _parts(hint)
    origin = get_origin(kind) or kind
    if optional and value is None:
        return None
    if origin not in _TYPES:
        return value
    types = (int, float) if kind is float else origin
    is_bool = isinstance(value, bool)  # which is also an int
    shown = f"{key}={value!s:.{_MAX_SHOWN}}"
    if not isinstance(value, types) or is_bool != (kind is bool):
        given = _TYPES.get(type(value), f"a {type(value).__name__}")
        raise UserError(f"{shown} is {given}: expected {expected(hint)}.")
    if isinstance(allowed, str) and not lies_in(value, allowed):
        raise UserError(f"{shown} is out of range: expected {expected(hint)}.")
    if isinstance(allowed, tuple) and value not in allowed:
        nearest = did_you_mean(value, allowed)
        raise UserError(f"{key}={value!r:.{_MAX_SHOWN}} is not known.{nearest}")
    if origin is list:
        for item in value:
            check_value(key, item, get_args(kind)[0])
    if origin is dict:
        for name, item in value.items():
            check_value(f"{key}.{name}", item, get_args(kind)[1])
    return float(value) if kind is float else value


def expected(hint: Any) -> str:
    """The values that an annotation allows, in words: `an integer in [1, 100] or null`."""
    kind, allowed, optional = _parts(hint)
    interval = f" in {allowed}" if isinstance(allowed, str) else ""
    return f"{_TYPES[get_origin(kind) or kind]}{interval}{' or null' if optional else ''}"


def _parts(hint: Any) -> tuple[Any, str | tuple[str, ...] | None, bool]:
    """An annotation's type, its interval or options, and whether it allows None."""
    kind, allowed = get_args(hint) if get_origin(hint) is Annotated else (hint, None)
    optional = NoneType in get_args(kind)
    return (get_args(kind)[0] if optional else kind), allowed, optional


def lies_in(value: float, interval: str) -> bool:
    """Whether a number lies in an interval such as `(0, 1]` or `[1, 2**31)`; NaN lies in none."""
    found = _INTERVAL.fullmatch(interval)
    if found is None:
        raise ValueError(f"{interval!r} is not an interval such as '(0, 1]'")
    opening, *ends, closing = found.groups()
    numbers = (end.partition("**") for end in ends)
    low, high = (float(base) ** float(power or 1) for base, _, power in numbers)
    above = value >= low if opening == "[" else value > low
    return above and (value <= high if closing == "]" else value < high)


class _Checked:
    """Settings whose values are checked against the annotations on construction."""

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self), include_extras=True)
        section = type(self).__name__.removesuffix("Settings").lower()  # "" of `Settings`
        for one in fields(self):  # type: ignore[arg-type]
            key = f"{section}.{one.name}".removeprefix(".")
            check_value(key, getattr(self, one.name), hints[one.name])


@dataclass
class ModelSettings(_Checked):
    """Where a model is loaded from: `path` if set, else the package, else `fallback_path`."""

    name: str = REQUIRED
    path: str | None = _neutral(None)  # hub id, local folder or GGUF file
    revision: str | None = _neutral(None)  # hub branch, tag or commit
    package: str | None = _neutral(None)  # an installed Python package with the weights ...
    package_path: str | None = _neutral(None)  # ... at this path inside it
    fallback_path: str | None = _neutral(None)  # used as `path` if the package is not installed
    trust_remote_code: bool = False  # run code from the model repository
    # random: weights from a fixed seed, so that only config.json is needed; a control as amateur.
    init: Annotated[str, ("pretrained", "random")] = "pretrained"
    # Token ids that mean something else here than in the model's family. They are removed from both
    # distributions, and a trajectory is scored only up to the first of them.
    reused_ids: list[int] = field(default_factory=list)


@dataclass
class ExpertSettings(ModelSettings):
    """The stronger model, which is sampled from, tuned and evaluated."""

    # The folder of a LoRA adapter (PEFT), which is merged into the model before the run.
    adapter: str | None = _neutral(None)


@dataclass
class AmateurSettings(ModelSettings):
    """The weaker model, which scores the expert's prefixes and is never trained."""

    # Early exit: the expert without these layers, counted from 0.
    drop_layers: list[int] | None = None
    # own: it reads answers in its own tokens, and the divergence is a lower bound. The fingerprint
    # covers the setting.
    tokenizer: Annotated[str, ("shared", "own")] = _neutral("shared")


@dataclass
class SourceSettings(_Checked):
    """A set of questions: its repository or file, and the format of its rows."""

    name: str = REQUIRED
    format: str = REQUIRED  # a key of lr_exp.data.formats.FORMATS
    path: str | None = _neutral(None)  # hub id, folder in hub layout, JSON Lines or Parquet file
    configs: list[str] = field(default_factory=list)  # hub configurations, concatenated
    split: str | None = None
    revision: str | None = _neutral(None)
    answer: Annotated[str, ANSWER_KINDS] = "math"  # how references are compared
    # Only for `format: hub`: a column of any hub data set, or a text with columns in braces, such
    # as "{story} {ask}".
    question: str | None = _neutral(None)
    reference: str | None = _neutral(None)
    solution: str | None = _neutral(None)
    # Of generated questions (`format: micro`, `random_calculation`): how many, and the seed.
    count: Annotated[int | None, COUNT] = None
    seed: int = 0
    # Only for `format: random_calculation`: which of add, subtract and multiply, the smallest and
    # the largest operand, and the number of operations in a question.
    operations: list[str] = field(default_factory=list)
    operands: list[int] = field(default_factory=list)
    depth: Annotated[int, "[1, 100]"] = 1


@dataclass
class DataSettings(SourceSettings):
    """The questions to sample from; only some methods read their answers."""

    # The first N of a seeded shuffle; null: all, in order.
    max_questions: Annotated[int | None, COUNT] = None
    # Changes this share of the questions, but not their references; see lr_exp/data/noise.py.
    noise: Annotated[str | None, ("irrelevant", "typos", "numbers")] = None
    noise_share: Annotated[float, "[0, 1]"] = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.noise and self.format == "lr_samples":
            raise UserError(
                f"data.noise={self.noise} changes questions, but data=lr_samples has kept steps "
                "instead: remove data.noise."
            )


@dataclass
class BenchmarkSettings(SourceSettings):
    """Questions with reference answers."""

    version: int = 1  # increased when the prompt or the grading changes
    shots_split: str | None = None  # the split that few-shot examples are drawn from


@dataclass
class PromptSettings(_Checked):
    """The form of a prompt; see `conf/prompt/`. A file with `base: NAME` changes another form."""

    name: str = ""  # the file's, without its ending
    # true: the text is the user's turn in the model's chat template; false: it is the whole prompt.
    chat: bool = True
    system: bool = True  # false: without `sampler.system_prompt` and `evaluator.system_prompt`
    # Jinja, with the variables `question`, `system` (a text) and `examples`, each of which has a
    # `question` and a `solution`. With `chat`, the template puts the system prompt before the turn.
    template: str = REQUIRED
    num_fewshot: Annotated[int, "[0, 2**31)"] = 0  # worked examples before the question
    stop: list[str] = field(default_factory=list)  # texts that end an answer

    def __post_init__(self) -> None:
        super().__post_init__()
        if not all(self.stop):
            raise UserError("prompt.stop: an empty text would end every answer: remove it.")


@dataclass
class MethodSettings(_Checked):
    """Four registered choices, which `pipeline.method` checks, and their parameters."""

    name: str = REQUIRED  # also in tables and on pages
    trajectories: str = "expert_greedy"  # the answers to learn from
    select: str = "kl_above_beta"  # the token positions to keep: a step rule
    target: str = "contrast"  # what the student learns at a kept position
    loss: str = "kl"
    # Passes over all kept positions for which distiller.batch_size is raised, if it is too low.
    epochs: Annotated[float | None, "(0, inf)"] = None
    # A Python module (dotted name or .py file) that registers choices of your own.
    module: str | None = None
    # Every other key of the method's YAML, as `first: 8`: parameters of the choices.
    parameters: dict[str, Any] = field(default_factory=dict)


@dataclass
class ServerSettings(_Checked):
    """The server of the engine `server`; the variable LR_EXP_API_KEY holds its key."""

    url: str | None = _neutral(None)  # http://HOST:PORT/PATH, with or without /v1
    model: str | None = None  # the expert's name there; null: the only model that it lists
    concurrency: Annotated[int, "[1, 4096]"] = _neutral(32)  # requests at once
    timeout: Annotated[float, "(0, 86400]"] = _neutral(600.0)  # seconds without a response
    # Per request; the wait doubles after each, from 1 s to 60 s.
    attempts: Annotated[int, "[1, 100]"] = _neutral(6)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.url is not None and not _HTTP_URL.fullmatch(self.url):
            raise UserError(f"server.url={self.url!r} is not a URL: write http://HOST:PORT.")


@dataclass
class SamplerSettings(_Checked):
    """How trajectories are generated and scored."""

    # What generates the expert's answers; both models score them in this process in each case.
    engine: Annotated[str, ENGINES] = "transformers"

    system_prompt: str = "Please reason step by step."
    prompt: str = _neutral("chat")  # the form: a name in conf/prompt, or a Jinja file
    max_new_tokens: Annotated[int, COUNT] = 128
    # Questions per rollout batch; a crash loses at most one batch. null: 16 on a CPU, 256 on a GPU,
    # where models of 10 billion weights and more have 64.
    batch_size: Annotated[int | None, COUNT] = None
    # Tokens packed into one forward pass (memory). null: 1024 on a CPU, 4096 on a GPU.
    tokens_per_pass: Annotated[int | None, COUNT] = None
    # The step table keeps tokens with at least this share of the expert's top probability; any
    # alpha at or above it can be selected later without a model.
    support_floor: Annotated[float, "(0, 1]"] = 0.001
    export: str | None = _neutral(None)  # also write the kept steps in the published record form


@dataclass
class DistillerSettings(_Checked):
    """LoRA tuning of the expert; the defaults are those of the published code."""

    steps: Annotated[int, COUNT] = 1000  # optimizer steps
    batch_size: Annotated[int, COUNT] = 16  # kept steps per optimizer step
    # Equal work: an optimizer step takes all kept steps of this many answers instead. Which answers
    # does not depend on the steps that a method keeps.
    batch_answers: Annotated[int | None, COUNT] = None
    learning_rate: Annotated[float, "(0, inf)"] = 5e-5
    # Optimizer steps between adapter snapshots, each of which is evaluated.
    snapshot_every: Annotated[int | None, COUNT] = None
    # Stop early: score each snapshot, keep the best one, and end after `stop_patience` others that
    # are no better. validation: right answers to `stop_questions` questions of `data` that are
    # neither learned from nor shown as examples; entropy: the student's, at the tokens trained on,
    # which falls in a collapse.
    stop: Annotated[str | None, ("validation", "entropy")] = _neutral(None)  # see `pipeline`
    stop_questions: Annotated[int, COUNT] = _neutral(50)
    stop_patience: Annotated[int, COUNT] = _neutral(2)
    schedule: Annotated[str, ("linear", "cosine", "constant")] = "linear"
    warmup_steps: Annotated[int, "[0, 2**31)"] = 0
    weight_decay: Annotated[float, "[0, inf)"] = 0.0
    max_grad_norm: Annotated[float, "(0, inf]"] = 1.0
    lora_r: Annotated[int, "[1, 2**16]"] = 8  # no model has wider layers
    lora_alpha: Annotated[int, COUNT] = 16
    lora_dropout: Annotated[float, "[0, 1)"] = 0.05
    # Linear layers with LoRA weights, by the last part of their names. null: q_proj and v_proj, or
    # those that stand for them in this architecture (GPT-2: c_attn).
    target_modules: list[str] | None = None
    # steps: every kept step is drawn separately, as in the published code; trajectories: a batch
    # holds kept steps of the same trajectories, which share forward passes (up to 9 times faster).
    # null: steps; trajectories for methods with `epochs`, as in supervised fine-tuning, and with
    # batch_answers.
    order: Annotated[str | None, ("steps", "trajectories")] = None
    # Tokens packed into one forward pass (memory). Devices share an optimizer step's passes: if
    # it has fewer passes than there are devices, lower this or raise batch_size. null: 1024 on a
    # CPU, 4096 on a GPU.
    tokens_per_pass: Annotated[int | None, COUNT] = None
    # On several devices: ddp replicates the expert; fsdp shards its weights during tuning (slower;
    # sampling and evaluation still need one device that holds the whole model).
    parallel: Annotated[str, ("ddp", "fsdp")] = _neutral("ddp")
    log_every: Annotated[int, COUNT] = 10  # optimizer steps between logged metrics
    # Time between checkpoints, which are written when metrics are logged.
    checkpoint_seconds: Annotated[float, "[0, inf]"] = _neutral(30.0)
    merge: bool = _neutral(False)  # also save the expert with the adapter merged in

    def __post_init__(self) -> None:
        super().__post_init__()
        targets = self.target_modules
        if targets is not None and not (targets and all(name.strip() for name in targets)):
            raise UserError(
                f"distiller.target_modules={self.target_modules}: write at least one module name, "
                "and no empty one."
            )
        if self.batch_answers is not None and self.order == "steps":
            raise UserError(
                "distiller.batch_answers takes the kept steps of whole answers: remove it, or "
                "distiller.order=steps."
            )
        every = self.snapshot_every
        if self.stop and (every is None or every > self.steps or every % self.log_every):
            raise UserError(
                f"distiller.stop={self.stop} scores snapshots: set distiller.snapshot_every to a "
                f"multiple of distiller.log_every ({self.log_every}; it can be lowered), at most "
                f"distiller.steps ({self.steps})."
            )
        total = self.steps * self.batch_size
        if total > _MAX_TUNED_STEPS:
            raise UserError(
                f"distiller.steps={self.steps} with distiller.batch_size={self.batch_size} is "
                f"{total:,} kept steps; the maximum is {_MAX_TUNED_STEPS:,}: lower one of them."
            )


@dataclass
class EvaluatorSettings(_Checked):
    """Pass@1 evaluation with the prompt of the Qwen2.5-Math toolkit."""

    engine: Annotated[str, ENGINES] = "transformers"  # see `sampler.engine`

    system_prompt: str = "Please reason step by step, and put your final answer within \\boxed{}."
    # Names in conf/prompt, or Jinja files. Results are of each; the first is the headline.
    prompts: list[str] = field(default_factory=lambda: ["chat"], metadata=_NEUTRAL)
    # Of few-shot prompts, and of tasks of lm-evaluation-harness; null: their own number.
    num_fewshot: Annotated[int | None, COUNT] = None
    # Also force answers to the headline prompt: to one that was cut off or has no box, this text is
    # appended, and decoding goes on to the matching brace. It shows how much of a gain is format.
    force_answer: bool = False
    forced_text: str = "\nThe final answer is \\boxed{"
    max_examples: Annotated[int | None, COUNT] = None  # the first N of each benchmark; null: all
    max_new_tokens: Annotated[int, COUNT] = 2048
    # Questions answered at a time; the next ones replace those that are finished. A crash loses at
    # most four batches. null: 32 on a CPU; on a GPU as in sampling.
    batch_size: Annotated[int | None, COUNT] = None
    # contrastive: the plausible token (alpha) with the highest log-ratio to the amateur, untrained.
    decoder: Annotated[str, ("greedy", "contrastive")] = "greedy"
    # Also measure the expertise gap: expert and amateur on the first benchmark, with greedy or
    # sampled answers (one per question, at temperature 1).
    gap: Annotated[str | None, ("greedy", "sampled")] = None
    # Above 1: also sample this many answers to each question, for avg@k, pass@k and maj@k.
    samples: Annotated[int, COUNT] = 1
    temperature: Annotated[float, "[0, inf)"] = 0.0  # of these samples; pass@1 stays greedy
    # The k of pass@k, besides `samples` itself; empty: the powers of two below it.
    pass_at: list[Annotated[int, COUNT]] = field(default_factory=list)
    # Of tasks of lm-evaluation-harness: a folder with tasks of your own, and whether tasks may run
    # code that the model writes.
    lm_eval_tasks: str | None = _neutral(None)
    run_code: bool = _neutral(False)

    @property
    def pass_at_counts(self) -> list[int]:
        """The k of pass@k, in ascending order; the last one is `samples`."""
        powers = [2**n for n in range(self.samples.bit_length())]
        return sorted({*(self.pass_at or powers), self.samples})

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.forced_text.endswith("\\boxed{"):
            raise UserError(
                "evaluator.forced_text must end in \\boxed{, which the model closes, not in "
                f"{self.forced_text[-20:]!r}."
            )
        if self.engine != "transformers" and (self.decoder != "greedy" or self.gap is not None):
            key = "gap" if self.gap is not None else "decoder"
            raise UserError(
                f"evaluator.engine={self.engine} runs only the expert, and evaluator."
                f"{key}={getattr(self, key)} needs the amateur: set evaluator.engine=transformers."
            )
        samples, temperature = self.samples, self.temperature
        if (highest := self.pass_at_counts[-1]) > samples:
            raise UserError(
                f"evaluator.pass_at={self.pass_at} needs evaluator.samples of at least {highest}, "
                f"not {samples}: raise evaluator.samples, or remove {highest}."
            )
        if (samples > 1) != (temperature > 0):
            raise UserError(
                f"evaluator.samples={samples} with evaluator.temperature={temperature:g}: several "
                "samples need a temperature above 0, and pass@1 is greedy. Set both, as "
                "evaluator.samples=8 evaluator.temperature=0.7, or neither."
            )
        if samples > 1 and self.decoder != "greedy":
            raise UserError(
                f"evaluator.samples={samples} samples from one model, and evaluator.decoder="
                f"{self.decoder} reads two: set evaluator.decoder=greedy."
            )


@dataclass
class WandbSettings(_Checked):
    """Weights & Biases. `auto` is online if there is a login, else offline."""

    mode: Annotated[str, ("auto", "online", "offline", "disabled")] = "auto"
    project: str | None = None  # null: $WANDB_PROJECT, else lr_exp
    entity: str | None = None
    group: str | None = None  # null: $WANDB_RUN_GROUP, else the sweep's name or, with -m, folder
    name: str | None = None  # null: $WANDB_NAME, else made of the method, models and other choices
    tags: list[str] = field(default_factory=list)
    notes: str | None = None
    # Upload supervision, adapter and graded answers as artifacts, and a table of answers: texts of
    # questions and answers, and the adapter's weights.
    artifacts: bool = True


@dataclass
class ChooseSettings(_Checked):
    """The candidates of `python -m lr_exp.choose`; not part of a run's settings."""

    # Names in conf/amateur, hub ids or folders (with a slash); empty: the run's own.
    amateurs: list[str] = field(default_factory=list)
    early_exits: bool = True  # also the expert without each single layer
    samples: Annotated[int, "[2, 2**31)"] = 8  # answers drawn for each question, at temperature 1
    # Questions with references; null: nothing is trained, alpha and beta are the run's.
    questions: Annotated[int | None, "[4, 2**31)"] = None
    alphas: list[Annotated[float, "(0, 1]"]] = field(default_factory=lambda: [0.05, 0.2, 0.5])
    betas: list[Annotated[float, "[0, inf)"]] = field(default_factory=lambda: [0.1, 0.4, 0.8, 1.6])
    # Optimizer steps after each of which the better half is kept.
    rungs: list[Annotated[int, COUNT]] = field(default_factory=lambda: [15, 50, 100])

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.rungs or self.rungs != sorted({*self.rungs}):
            raise UserError(f"choose.rungs={self.rungs}: list optimizer steps in rising order.")


@dataclass
class Settings(_Checked):
    """All settings of a run, as written after `python -m lr_exp`."""

    expert: ExpertSettings = field(default_factory=ExpertSettings)
    amateur: AmateurSettings = field(default_factory=AmateurSettings)
    data: DataSettings = field(default_factory=DataSettings)
    method: MethodSettings = field(default_factory=MethodSettings)
    sampler: SamplerSettings = field(default_factory=SamplerSettings)
    distiller: DistillerSettings = field(default_factory=DistillerSettings)
    evaluator: EvaluatorSettings = field(default_factory=EvaluatorSettings)
    server: ServerSettings = field(default_factory=ServerSettings)
    wandb: WandbSettings = field(default_factory=WandbSettings, metadata=_NEUTRAL)
    benchmarks: list[str] = field(default_factory=list)
    stages: list[Annotated[str, STAGES]] = field(default_factory=lambda: list(STAGES))
    sweep: str | None = None  # the sweep that this run belongs to; set by `sweeps/*.yaml`
    alpha: Annotated[float, "(0, 1]"] = 0.2
    beta: Annotated[float, "[0, inf)"] = 0.4
    seed: Annotated[int, "[0, 2**32)"] = 0
    device: str = _neutral("auto")  # auto | cpu | cuda | cuda:N
    # auto: bfloat16 on a GPU that supports it, else float32.
    dtype: Annotated[str, ("auto", "float32", "bfloat16", "float16")] = _neutral("auto")
    # The implementation; null: transformers chooses.
    attention: Annotated[str | None, ATTENTIONS] = _neutral(None)
    # The mode of torch.compile for decoding steps and training passes; null: not compiled. Decoding
    # then waits for the longest answer of a batch. Never run on a GPU.
    compile: Annotated[str | None, COMPILE_MODES] = _neutral(None)
    # The date, YYYY-MM-DD, that chat templates print as today's.
    prompt_date: str = _neutral(PROMPT_DATE)
    # true: <|im_end|> in a question, solution or system prompt is a control token; false: text.
    control_tokens: bool = _neutral(False)
    hub_root: str | None = _neutral(None)  # a folder that mirrors hub data sets by their ids
    store: str = _neutral("runs/store")
    # Folders of the user's own options. Not a key: --config-dir and `compose(config_dir=)` set it.
    config_dirs: list[str] = field(default_factory=list, metadata=_NOT_A_KEY)
    # The overrides that the settings were composed from. Not a key either.
    overrides: list[str] = field(default_factory=list, metadata=_NOT_A_KEY)

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            date.fromisoformat(self.prompt_date)
        except ValueError as error:
            raise UserError(
                f"prompt_date={self.prompt_date} is not a date ({error}): write YYYY-MM-DD."
            ) from error
        if not self.stages:
            raise UserError(f"stages is empty: set one or more of {', '.join(STAGES)}.")
        prompts = self.evaluator.prompts
        if not prompts:
            raise UserError("evaluator.prompts is empty: set one or more, as [chat].")
        lists = {"stages": self.stages, "benchmarks": self.benchmarks, "evaluator.prompts": prompts}
        for key, names in lists.items():
            for name in names:
                if names.count(name) > 1:
                    raise UserError(f"{key} contains {name!r} twice: remove one of them.")
        for stage, engine in self.engines.items():
            if engine == "server" and self.server.url is None:
                raise UserError(
                    f"{stage}.engine=server needs a server: add server.url=http://HOST:PORT."
                )
        if self.compile and self.distiller.parallel == "fsdp":
            raise UserError(
                f"compile={self.compile} does not work with distiller.parallel=fsdp: remove one."
            )
        if self.imports_records and self.distiller.stop == "validation":
            raise UserError(
                f"distiller.stop=validation needs questions, but data={self.data.name} has steps "
                "to train on, no questions: set distiller.stop=entropy."
            )
        self._check_tasks()
        if not self.store.strip():
            raise UserError("store is empty: set it to the folder for finished stages.")
        if self.alpha < self.sampler.support_floor:
            raise UserError(
                f"alpha={self.alpha} is below sampler.support_floor={self.sampler.support_floor}: "
                "the step table would lack tokens of the mask. Lower sampler.support_floor."
            )

    def _check_tasks(self) -> None:
        """Raises UserError: lm-evaluation-harness, which decodes itself, lacks another setting."""
        tasks = [name for name in self.benchmarks if name.startswith(LM_EVAL)]
        usual = {"engine": "transformers", "decoder": "greedy", "samples": 1, "force_answer": False}
        if self.evaluator.gap == "sampled":
            usual["gap"] = "greedy"
        for key, value in usual.items() if tasks else ():
            if (given := getattr(self.evaluator, key)) != value:
                raise UserError(
                    f"evaluator.{key}={given} is not possible with benchmarks={tasks}, which "
                    f"lm-evaluation-harness runs: set evaluator.{key}={value}, or remove them."
                )

    @property
    def engines(self) -> dict[str, str]:
        """The engine of each part that generates the expert's answers."""
        return {"sampler": self.sampler.engine, "evaluator": self.evaluator.engine}

    @property
    def imports_records(self) -> bool:
        """Whether supervision is read from a file instead of sampled."""
        return self.data.format == "lr_samples"

    @property
    def learns_from_questions(self) -> bool:
        """Whether the run uses supervision that is sampled, by this run or an earlier one."""
        learns = "sample" in self.stages or "distill" in self.stages
        return learns and not self.imports_records

    @property
    def evaluates_amateur(self) -> bool:
        """Whether the evaluation reads the amateur."""
        compares = self.evaluator.decoder == "contrastive" or self.evaluator.gap is not None
        return "evaluate" in self.stages and compares

    def to_dict(self) -> dict[str, Any]:
        """The settings as they are written in YAML, the method's parameters beside its choices."""
        settings = asdict(self)
        method = settings["method"]
        method |= method.pop("parameters")
        return settings
