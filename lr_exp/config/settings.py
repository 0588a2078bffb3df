"""Every setting with its type, default and range.

The YAML groups under `conf/` fill these dataclasses, and stages receive them as plain objects. Each
class validates its values on construction, so that an invalid one fails before any model is loaded.
"""

import re
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from typing import Any

from lr_exp.errors import UserError, did_you_mean

STAGES = ("sample", "distill", "evaluate")
DTYPES = ("auto", "float32", "bfloat16", "float16")
INITS = ("pretrained", "random")
ATTENTIONS = ("eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention")
DECODERS = ("greedy", "contrastive")
GAP_DECODERS = ("greedy", "sampled")
ENGINES = ("transformers", "server", "vllm")
ORDERS = ("trajectories", "steps")
PARALLELS = ("ddp", "fsdp")
SCHEDULES = ("linear", "cosine", "constant")
WANDB_MODES = ("auto", "online", "offline", "disabled")
ANSWER_KINDS = ("number", "math", "choice")

_HTTP_URL = re.compile(r"https?://[^\s/?#@]+(/[^\s?#@]*)?")
_INTERVAL = re.compile(r"([\[(])(\S+), (\S+)([\])])")
COUNT = "[1, 2**31)"  # libraries use 32-bit integers
OPTIONAL_COUNT = f"{COUNT} or null"
_MAX_TUNED_STEPS = 10**8  # kept steps in a training plan, about 100 bytes each

REQUIRED: Any = "???"  # in Hydra: the user or a preset must set it
_NEUTRAL = {"neutral": True}


def _neutral(default: Any) -> Any:
    """A setting that is not part of a run's identity.

    It does not affect results, such as `concurrency`, or something else covers it: fingerprints
    cover the content of paths, and `Inputs.machine` covers device and dtype.
    """
    return field(default=default, metadata=_NEUTRAL)


def determining(settings: Any) -> dict[str, Any]:
    """A settings object as a dictionary, without its neutral settings."""
    found = {}
    for one in fields(settings):
        value = getattr(settings, one.name)
        if "neutral" not in one.metadata:
            found[one.name] = determining(value) if is_dataclass(value) else value
    return found


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


def _check_number(key: str, value: float | None, expected: str) -> None:
    interval, _, null = expected.partition(" or ")
    if value is None and null:
        return
    if value is None or not lies_in(value, interval):
        raise UserError(f"{key}={value} is out of range: expected a number in {expected}.")


def _check_numbers(prefix: str, settings: object, **expected: str) -> None:
    """Checks the named fields; `prefix` comes before a field's name in its key."""
    for name, interval in expected.items():
        _check_number(prefix + name, getattr(settings, name), interval)


def _no_duplicate(key: str, values: list[str]) -> None:
    duplicates = sorted({value for value in values if values.count(value) > 1})
    if duplicates:
        raise UserError(f"{key} contains {duplicates[0]!r} twice: remove one of them.")


def _one_of(key: str, value: str, options: tuple[str, ...]) -> None:
    if value not in options:
        raise UserError(f"{key}={value!r} is not known.{did_you_mean(str(value), options)}")


@dataclass
class ModelSettings:
    """Where a model is loaded from: `path` if set, else the package, else `fallback_path`."""

    name: str = REQUIRED
    path: str | None = _neutral(None)  # hub id, local folder or GGUF file
    revision: str | None = _neutral(None)  # hub branch, tag or commit
    package: str | None = _neutral(None)  # an installed Python package with the weights ...
    package_path: str | None = _neutral(None)  # ... at this path inside it
    fallback_path: str | None = _neutral(None)  # used as `path` if the package is not installed
    trust_remote_code: bool = False  # run code from the model repository
    # random: weights from a fixed seed, so that only config.json is needed; to measure speed.
    init: str = "pretrained"
    # Token ids that mean something else here than in the model's family. They are removed from both
    # distributions, and a trajectory is scored only up to the first of them.
    reused_ids: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        _one_of(f"{self.name}: init", self.init, INITS)


@dataclass
class ExpertSettings(ModelSettings):
    """The stronger model, which is sampled from, tuned and evaluated."""


@dataclass
class AmateurSettings(ModelSettings):
    """The weaker model, which scores the expert's prefixes and is never trained."""

    drop_layers: list[int] | None = (
        None  # early exit: the expert without these layers, counted from 0
    )


@dataclass
class SourceSettings:
    """A set of questions: its repository or file, and the format of its rows."""

    name: str = REQUIRED
    format: str = REQUIRED  # a key of lr_exp.data.formats.FORMATS
    path: str | None = _neutral(None)  # hub id, folder in hub layout, JSON Lines or Parquet file
    configs: list[str] = field(default_factory=list)  # hub configurations, concatenated
    split: str | None = None
    revision: str | None = _neutral(None)
    answer: str = "math"  # how references are compared: number | math | choice
    # Only for generated questions (`format: micro`): how many, and the generator's seed.
    count: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        _one_of(f"{self.name}: answer", self.answer, ANSWER_KINDS)
        _check_numbers(f"{self.name}: ", self, count=OPTIONAL_COUNT)


@dataclass
class DataSettings(SourceSettings):
    """The questions to sample from; only some methods read their answers."""

    # The first N of a seeded shuffle; null: all, in order. A streamed source is not shuffled: its
    # first N rows are taken, whatever the seed.
    max_questions: int | None = None
    # Write the source to an Arrow file in the store, which is mapped into memory, for millions of
    # questions. The same questions give the same results either way.
    streaming: bool = _neutral(False)

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_numbers("data.", self, max_questions=OPTIONAL_COUNT)
        if self.streaming and self.format == "lr_samples":
            raise UserError(
                "data.streaming=true streams questions, but data=lr_samples holds kept steps: "
                "remove data.streaming."
            )


@dataclass
class BenchmarkSettings(SourceSettings):
    """Questions with reference answers."""

    version: int = 1  # increased when the prompt or the grading changes
    shots_split: str | None = None  # the split that few-shot examples are drawn from


@dataclass
class MethodSettings:
    """A method: four registered choices and their parameters; see `conf/method/`.

    The names of the choices and the parameters are checked by `method.build_method`, where the
    choices are registered.
    """

    name: str = REQUIRED  # also in tables and on pages
    trajectories: str = "expert_greedy"  # the answers to learn from
    select: str = "kl_above_beta"  # the token positions to keep: a step rule
    target: str = "contrast"  # what the student learns at a kept position
    loss: str = "kl"
    # Minimum number of passes over all kept positions: distiller.batch_size is raised until
    # distiller.steps optimizer steps cover them; null: batch_size is not changed.
    epochs: float | None = None
    # A Python module (dotted name or .py file) that registers choices of your own.
    module: str | None = None
    # Every other key of the method's YAML, as `first: 8`: parameters of the choices.
    parameters: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_numbers("method.", self, epochs="(0, inf) or null")


@dataclass
class ServerSettings:
    """The server that generates the expert's answers if an engine is `server`.

    Its API key is read from the environment variable LR_EXP_API_KEY.
    """

    url: str | None = _neutral(None)  # http://HOST:PORT, with or without /v1
    model: str | None = None  # the expert's name there; null: the only model that it lists
    concurrency: int = _neutral(32)  # requests at once
    timeout: float = _neutral(600.0)  # seconds without a response
    attempts: int = _neutral(6)  # per request; the wait doubles after each, from 1 s to 60 s

    def __post_init__(self) -> None:
        if self.url is not None and not _HTTP_URL.fullmatch(self.url):
            raise UserError(f"server.url={self.url!r} is not a URL: write http://HOST:PORT.")
        _check_numbers(
            "server.", self, concurrency="[1, 4096]", timeout="(0, 86400]", attempts="[1, 100]"
        )


@dataclass
class SamplerSettings:
    """How trajectories are generated and scored."""

    # What generates the expert's answers: transformers, a server (`server.url`), or vLLM in this
    # process. Both models score the token ids in this process in each case.
    engine: str = "transformers"

    system_prompt: str = "Please reason step by step."
    max_new_tokens: int = 128
    batch_size: int = 16  # questions per rollout batch; a crash loses at most one batch
    tokens_per_pass: int = 1024  # tokens packed into one forward pass (memory)
    # The step table keeps tokens with at least this share of the expert's top probability; any
    # alpha at or above it can be selected later without a model.
    support_floor: float = 0.001
    export: str | None = _neutral(None)  # also write the kept steps in the published record form

    def __post_init__(self) -> None:
        _one_of("sampler.engine", self.engine, ENGINES)
        _check_numbers(
            "sampler.",
            self,
            max_new_tokens=COUNT,
            batch_size=COUNT,
            tokens_per_pass=COUNT,
            support_floor="(0, 1]",
        )


@dataclass
class DistillerSettings:
    """LoRA tuning of the expert; the defaults are those of the published code."""

    steps: int = 1000  # optimizer steps
    batch_size: int = 16  # kept steps per optimizer step
    learning_rate: float = 5e-5
    # Optimizer steps between adapter snapshots, each of which is evaluated.
    snapshot_every: int | None = None
    schedule: str = "linear"
    warmup_steps: int = 0
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    lora_r: int = 8
    lora_alpha: int = 16
    lora_dropout: float = 0.05
    # Linear layers with LoRA weights, by the last part of their names. null: q_proj and v_proj, or
    # those that stand for them in this architecture (GPT-2: c_attn).
    target_modules: list[str] | None = None
    # trajectories: a batch holds kept steps of the same trajectories, which share forward passes;
    # steps: every kept step is drawn separately, as in the published code (slower).
    order: str = "trajectories"
    # Tokens packed into one forward pass (memory). Devices share an optimizer step's passes: if
    # it has fewer passes than there are devices, lower this or raise batch_size.
    tokens_per_pass: int = 1024
    # On several devices: ddp replicates the expert; fsdp shards its weights during tuning (slower;
    # sampling and evaluation still need one device that holds the whole model).
    parallel: str = _neutral("ddp")
    log_every: int = 10  # optimizer steps between logged metrics
    # Optimizer steps between checkpoints, rounded to a multiple of log_every.
    checkpoint_every: int = _neutral(10)
    merge: bool = _neutral(False)  # also save the expert with the adapter merged in

    def __post_init__(self) -> None:
        _check_numbers(
            "distiller.",
            self,
            steps=COUNT,
            batch_size=COUNT,
            learning_rate="(0, inf)",
            snapshot_every=OPTIONAL_COUNT,
            warmup_steps="[0, 2**31)",
            weight_decay="[0, inf)",
            max_grad_norm="(0, inf]",
            lora_r="[1, 2**16]",  # no model has wider layers
            lora_alpha=COUNT,
            lora_dropout="[0, 1)",
            tokens_per_pass=COUNT,
            log_every=COUNT,
            checkpoint_every=COUNT,
        )
        targets = self.target_modules
        if targets is not None and not (targets and all(name.strip() for name in targets)):
            raise UserError(
                f"distiller.target_modules={self.target_modules} is out of range: expected at "
                "least one module name."
            )
        total = self.steps * self.batch_size
        if total > _MAX_TUNED_STEPS:
            raise UserError(
                f"distiller.steps={self.steps} with distiller.batch_size={self.batch_size} is "
                f"{total:,} kept steps; the maximum is {_MAX_TUNED_STEPS:,}: lower one of them."
            )
        _one_of("distiller.order", self.order, ORDERS)
        _one_of("distiller.parallel", self.parallel, PARALLELS)
        _one_of("distiller.schedule", self.schedule, SCHEDULES)


@dataclass
class EvaluatorSettings:
    """Pass@1 evaluation with the prompt of the Qwen2.5-Math toolkit."""

    engine: str = "transformers"  # see `sampler.engine`

    system_prompt: str = "Please reason step by step, and put your final answer within \\boxed{}."
    max_examples: int | None = None  # the first N of each benchmark; null: all
    max_new_tokens: int = 2048
    batch_size: int = 32
    # greedy, or contrastive decoding: of the expert's plausible tokens (alpha), the one with the
    # highest log-ratio to the amateur (no training needed).
    decoder: str = "greedy"
    # Also measure the expertise gap: expert and amateur on the first benchmark, with greedy or
    # sampled answers (one per question, at temperature 1).
    gap: str | None = None
    # Number of few-shot examples by benchmark (5 for MMLU-STEM in the toolkit).
    shots: dict[str, int] = field(default_factory=lambda: {"mmlu_stem": 0})

    def __post_init__(self) -> None:
        _check_numbers(
            "evaluator.", self, max_examples=OPTIONAL_COUNT, max_new_tokens=COUNT, batch_size=COUNT
        )
        _one_of("evaluator.engine", self.engine, ENGINES)
        if self.engine != "transformers" and (self.decoder != "greedy" or self.gap is not None):
            key = "gap" if self.gap is not None else "decoder"
            raise UserError(
                f"evaluator.engine={self.engine} runs only the expert, and evaluator."
                f"{key}={getattr(self, key)} needs the amateur: set evaluator.engine=transformers."
            )
        _one_of("evaluator.decoder", self.decoder, DECODERS)
        if self.gap is not None:
            _one_of("evaluator.gap", self.gap, GAP_DECODERS)
        for name, count in self.shots.items():
            _check_number(f"evaluator.shots.{name}", count, "[0, 2**31)")


@dataclass
class WandbSettings:
    """Weights & Biases. `auto` is online if there is a login, else offline."""

    mode: str = "auto"
    project: str | None = None  # null: $WANDB_PROJECT, else lr_exp
    entity: str | None = None
    group: str | None = None
    name: str | None = None  # null: $WANDB_NAME, else made of the method, models and other choices
    tags: list[str] = field(default_factory=list)
    # Upload supervision, adapter and graded answers as artifacts: texts of questions and answers,
    # and the adapter's weights. Tables contain some texts in either case.
    artifacts: bool = True

    def __post_init__(self) -> None:
        _one_of("wandb.mode", self.mode, WANDB_MODES)


@dataclass
class Settings:
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
    stages: list[str] = field(default_factory=lambda: list(STAGES))
    sweep: str | None = None  # the sweep that this run belongs to; set by `sweeps/*.yaml`
    alpha: float = 0.2
    beta: float = 0.4
    seed: int = 0
    device: str = _neutral("auto")  # auto | cpu | cuda | cuda:N
    dtype: str = _neutral("auto")  # auto: bfloat16 on a GPU that supports it, else float32
    attention: str | None = _neutral(None)  # the implementation; null: transformers chooses
    hub_root: str | None = _neutral(None)  # a folder that mirrors hub data sets by their ids
    store: str = _neutral("runs/store")
    # Folders of the user's own options, benchmarks among them. Not a key: set by --config-dir or by
    # `compose(config_dir=...)`.
    config_dirs: list[str] = field(
        default_factory=list, metadata={**_NEUTRAL, "omegaconf_ignore": True}
    )

    def __post_init__(self) -> None:
        _check_numbers("", self, alpha="(0, 1]", beta="[0, inf)", seed="[0, 2**32)")
        _one_of("dtype", self.dtype, DTYPES)
        if self.attention is not None:
            _one_of("attention", self.attention, ATTENTIONS)
        if not self.stages:
            raise UserError(f"stages is empty: set one or more of {', '.join(STAGES)}.")
        for stage in self.stages:
            _one_of("stages", stage, STAGES)
        _no_duplicate("stages", self.stages)
        _no_duplicate("benchmarks", self.benchmarks)
        for stage, engine in self.engines.items():
            if engine == "server" and self.server.url is None:
                raise UserError(
                    f"{stage}.engine=server needs a server: add server.url=http://HOST:PORT."
                )
        if not self.store.strip():
            raise UserError("store is empty: set it to the folder for finished stages.")
        if self.alpha < self.sampler.support_floor:
            raise UserError(
                f"alpha={self.alpha} is below sampler.support_floor={self.sampler.support_floor}: "
                "the step table would lack tokens of the mask. Lower sampler.support_floor."
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
    def reads_stream(self) -> bool:
        """Whether the questions to sample from are read as a stream."""
        learns = "sample" in self.stages or "distill" in self.stages
        return learns and not self.imports_records and self.data.streaming

    def to_dict(self) -> dict[str, Any]:
        """The settings as they are written in YAML, the method's parameters beside its choices."""
        settings = asdict(self)
        method = settings["method"]
        method |= method.pop("parameters")
        return settings
