"""Every setting, typed, with its default and its range. Imports neither Hydra nor torch.

The YAML groups under `conf/` fill these dataclasses; stages receive them as plain objects. Each
class checks its own ranges when it is built, so a value that cannot work fails before any model
loads and the message names the key to change.
"""

import math
import re
from dataclasses import dataclass, field
from typing import Any

from lr_exp.errors import UserError, did_you_mean

STAGES = ("sample", "distill", "evaluate")
DTYPES = ("auto", "float32", "bfloat16", "float16")
INITS = ("pretrained", "random")
ATTENTIONS = ("eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention")
TRAJECTORIES = ("expert_greedy", "expert_verified", "human_solution")
STEPS = ("kl_above_beta", "all", "first", "kl_top", "random", "entropy_top")
TARGETS = ("contrast", "token")
LOSSES = ("kl",)
# Steps that are chosen by measures which take both models.
_SCORED_STEPS = ("kl_above_beta", "kl_top", "random", "entropy_top")
# Steps whose number is that of the steps above beta.
_BETA_STEPS = ("kl_above_beta", "random", "entropy_top")
DECODERS = ("greedy", "contrastive")
GAP_DECODERS = ("greedy", "sampled")
ENGINES = ("transformers", "server", "vllm")
ORDERS = ("trajectories", "steps")
PARALLELS = ("ddp", "fsdp")
SCHEDULES = ("linear", "cosine", "constant")
WANDB_MODES = ("auto", "online", "offline", "disabled")
ANSWER_KINDS = ("number", "math", "choice")

_HTTP_URL = re.compile(r"https?://[^\s/?#@]+(/[^\s?#@]*)?")
_MOST = 2**31  # of any count: libraries below take no larger integer
_MOST_KEPT_STEPS = 10**8  # planned before training, at some 100 bytes each
_MOST_RANKS = 2**16  # of an adapter; no model's layers are wider

REQUIRED: Any = "???"  # Hydra's mark of a value that the user or a preset must give


def _require(condition: bool, key: str, value: object, expected: str) -> None:
    if not condition:
        raise UserError(f"{key}={value} is out of range: expected {expected}.")


def _require_count(key: str, value: int | None, least: int = 1, *, optional: bool = False) -> None:
    if value is None and optional:
        return
    expected = f"{least} or more{', or null' if optional else ''}"
    if value is not None and value >= _MOST:
        expected = "a number below 2**31"
    _require(value is not None and least <= value < _MOST, key, value, expected)


def _no_duplicate(key: str, values: list[str]) -> None:
    twice = sorted({value for value in values if values.count(value) > 1})
    if twice:
        raise UserError(f"{key} names {twice[0]!r} twice: leave one of the two out.")


def _one_of(key: str, value: str, options: tuple[str, ...]) -> None:
    if value not in options:
        raise UserError(f"{key}={value!r} is not known.{did_you_mean(str(value), options)}")


@dataclass
class ModelSettings:
    """Where a model comes from: `path` if given, else the package, else `fallback_path`."""

    name: str = REQUIRED
    path: str | None = None  # hub id, local folder or GGUF file
    revision: str | None = None  # hub branch, tag or commit
    package: str | None = None  # an installed Python package that may carry the weights ...
    package_path: str | None = None  # ... at this path inside it
    fallback_path: str | None = None  # used as `path` where the package is not installed
    trust_remote_code: bool = False  # run code from the model repository
    # random: a config.json is enough; weights are drawn from a fixed seed. For measuring speed.
    init: str = "pretrained"
    # Ids that this model gives to other tokens than the family it shares a vocabulary with. They
    # leave both distributions, and a trajectory is scored only up to the first of them.
    reused_ids: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        _one_of(f"{self.name}: init", self.init, INITS)


@dataclass
class ExpertSettings(ModelSettings):
    """The model that answers, is tuned, and is evaluated."""


@dataclass
class AmateurSettings(ModelSettings):
    """The weaker model that scores the expert's prefixes and is never trained."""

    drop_layers: list[int] | None = None  # early exit: the expert without these layers (from 0)


@dataclass
class SourceSettings:
    """A set of questions: which repository or file, and how its rows are read (`format`)."""

    name: str = REQUIRED
    format: str = REQUIRED  # a reader in lr_exp.formats.FORMATS
    path: str | None = None  # hub id, folder in hub layout, or a JSON Lines or Parquet file
    configs: list[str] = field(default_factory=list)  # hub configurations, concatenated
    split: str | None = None
    revision: str | None = None
    answer: str = "math"  # how references are compared: number | math | choice
    # Only for questions that a generator makes (`format: micro`): how many, and from which seed.
    count: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        _one_of(f"{self.name}: answer", self.answer, ANSWER_KINDS)
        _require_count(f"{self.name}: count", self.count, optional=True)


@dataclass
class DataSettings(SourceSettings):
    """The questions to learn from; only methods that verify or imitate read their answers."""

    # The first N of a seeded shuffle; null takes all, in order. A streamed source is never there as
    # a whole to be shuffled: of it the first N are taken as they come, whatever the seed.
    max_questions: int | None = None
    # Read the source once, as a stream, into shards in the store, and the questions from there, a
    # shard at a time: for millions of them. The same questions make the same results either way.
    streaming: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_count("data.max_questions", self.max_questions, optional=True)
        if self.streaming and self.format == "lr_samples":
            raise UserError(
                "data.streaming=true reads questions, and data=lr_samples holds kept steps, which "
                "are read whole: leave data.streaming out."
            )


@dataclass
class BenchmarkSettings(SourceSettings):
    """Questions with reference answers. `version` grows when the prompt or the grading changes."""

    version: int = 1
    shots_split: str | None = None  # where worked examples are taken from, if any are asked for


@dataclass
class MethodSettings:
    """A method is four choices, and the numbers that some of them need; see `conf/method/`."""

    name: str = REQUIRED
    # expert_greedy: the expert's own answers, their first sampler.max_new_tokens tokens;
    # expert_verified: full sampled answers, of which those that equal the reference stay;
    # human_solution: the data set's worked solutions.
    trajectories: str = "expert_greedy"
    # kl_above_beta; all; first: the first tokens; kl_top: a share of all; and, as many as are above
    # beta, random or entropy_top (where the expert is least sure).
    steps: str = "kl_above_beta"
    target: str = "contrast"  # contrast: the soft label; token: the trajectory's own token
    loss: str = "kl"  # of a hard label it is the cross-entropy
    samples: int = 4  # expert_verified: answers drawn for each question
    temperature: float = 1.0  # expert_verified
    top_p: float = 1.0  # expert_verified
    max_new_tokens: int = 2048  # expert_verified: full answers, unlike sampler.max_new_tokens
    first: int = 8  # first: tokens of each answer
    share: float = 0.2  # kl_top: of all steps
    # At least so many passes over all kept steps: distiller.batch_size grows until distiller.steps
    # optimizer steps hold them; null leaves it as it is.
    epochs: float | None = None

    def __post_init__(self) -> None:
        _one_of("method.trajectories", self.trajectories, TRAJECTORIES)
        _one_of("method.steps", self.steps, STEPS)
        _one_of("method.target", self.target, TARGETS)
        _one_of("method.loss", self.loss, LOSSES)
        _require_count("method.samples", self.samples)
        _require(
            0 < self.temperature < math.inf,
            "method.temperature",
            self.temperature,
            "a number above 0",
        )
        _require(0 < self.top_p <= 1, "method.top_p", self.top_p, "a number in (0, 1]")
        _require_count("method.max_new_tokens", self.max_new_tokens)
        _require_count("method.first", self.first)
        _require(0 < self.share <= 1, "method.share", self.share, "a number in (0, 1]")
        if self.epochs is not None:
            _require(0 < self.epochs < math.inf, "method.epochs", self.epochs, "above 0, or null")

    @property
    def needs_amateur(self) -> bool:
        """Whether steps or labels come from comparing two models."""
        return self.steps in _SCORED_STEPS or self.target == "contrast"

    @property
    def reads_alpha(self) -> bool:
        """Whether labels depend on alpha."""
        return self.target == "contrast"

    @property
    def reads_beta(self) -> bool:
        """Whether the kept steps, or their number, depend on beta."""
        return self.steps in _BETA_STEPS


@dataclass
class ServerSettings:
    """The server that answers in the expert's place where an engine is `server`.

    A key that it wants is read from the environment (LR_EXP_API_KEY), never from here.
    """

    url: str | None = None  # http://HOST:PORT, with or without /v1
    model: str | None = None  # what it calls the expert; null: the only model that it lists
    concurrency: int = 32  # requests at once
    timeout: float = 600.0  # seconds that one request may be silent
    attempts: int = 6  # at one request; the waits between them double, from a second to a minute

    def __post_init__(self) -> None:
        if self.url is not None and not _HTTP_URL.fullmatch(self.url):
            raise UserError(f"server.url={self.url!r} is no address: write http://HOST:PORT.")
        _require(1 <= self.concurrency <= 4096, "server.concurrency", self.concurrency, "1 to 4096")
        _require(0 < self.timeout <= 86400, "server.timeout", self.timeout, "seconds in (0, 86400]")
        _require(1 <= self.attempts <= 100, "server.attempts", self.attempts, "1 to 100")


@dataclass
class SamplerSettings:
    """How trajectories are rolled out and scored."""

    # What the expert answers on: transformers, a server (`server.url`), or vLLM in this process.
    # Both models score its ids here, whatever it was.
    engine: str = "transformers"

    system_prompt: str = "Please reason step by step."
    max_new_tokens: int = 128
    batch_size: int = 16  # questions per rollout batch; a batch is what a crash can lose
    tokens_per_pass: int = 1024  # tokens packed into one teacher-forced pass (memory)
    # The step table keeps tokens down to this share of the expert's most probable one; any alpha
    # at or above it can be selected later without a model.
    support_floor: float = 0.001
    export: str | None = None  # also write the kept steps in the published record form

    def __post_init__(self) -> None:
        _one_of("sampler.engine", self.engine, ENGINES)
        _require_count("sampler.max_new_tokens", self.max_new_tokens)
        _require_count("sampler.batch_size", self.batch_size)
        _require_count("sampler.tokens_per_pass", self.tokens_per_pass)
        _require(
            0 < self.support_floor <= 1,
            "sampler.support_floor",
            self.support_floor,
            "a number in (0, 1]",
        )


@dataclass
class DistillerSettings:
    """LoRA tuning of the expert on the supervision (defaults: the published code's)."""

    steps: int = 1000  # optimizer steps
    batch_size: int = 16  # kept steps per optimizer step
    learning_rate: float = 5e-5
    # Also keep the adapter every so many optimizer steps, to evaluate each on the way.
    snapshot_every: int | None = None
    schedule: str = "linear"
    warmup_steps: int = 0
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    lora_r: int = 8
    lora_alpha: int = 16
    lora_dropout: float = 0.05
    target_modules: list[str] = field(default_factory=lambda: ["q_proj", "v_proj"])
    # trajectories: a batch takes kept steps that share prefixes (one pass serves many);
    # steps: every kept step is drawn on its own, as the published loop does (slower).
    order: str = "trajectories"
    # Tokens packed into one forward pass (memory). On several devices each takes some of a step's
    # passes: where a step has fewer passes than there are devices, lower it or raise batch_size.
    tokens_per_pass: int = 1024
    # On several devices: ddp, each has the whole expert; fsdp, they hold its weights together while
    # it is tuned (slower; sampling and evaluating still need one device that holds it).
    parallel: str = "ddp"
    log_every: int = 10  # optimizer steps between logged metrics
    # Optimizer steps between checkpoints, made a multiple of log_every so that no mean is lost.
    checkpoint_every: int = 10
    merge: bool = False  # also save the expert with the adapter merged in

    def __post_init__(self) -> None:
        _require_count("distiller.steps", self.steps)
        _require_count("distiller.batch_size", self.batch_size)
        _require(
            0 < self.learning_rate < math.inf,
            "distiller.learning_rate",
            self.learning_rate,
            "a number above 0",
        )
        _require_count("distiller.warmup_steps", self.warmup_steps, 0)
        _require(
            0 <= self.weight_decay < math.inf,
            "distiller.weight_decay",
            self.weight_decay,
            "0 or more",
        )
        _require(self.max_grad_norm > 0, "distiller.max_grad_norm", self.max_grad_norm, "above 0")
        _require(
            1 <= self.lora_r <= _MOST_RANKS,
            "distiller.lora_r",
            self.lora_r,
            f"1 to {_MOST_RANKS}",
        )
        _require_count("distiller.lora_alpha", self.lora_alpha)
        _require(
            0 <= self.lora_dropout < 1, "distiller.lora_dropout", self.lora_dropout, "in [0, 1)"
        )
        _require(
            bool(self.target_modules) and all(name.strip() for name in self.target_modules),
            "distiller.target_modules",
            self.target_modules,
            "one module name or more",
        )
        _require_count("distiller.tokens_per_pass", self.tokens_per_pass)
        _require_count("distiller.log_every", self.log_every)
        _require_count("distiller.checkpoint_every", self.checkpoint_every)
        _require_count("distiller.snapshot_every", self.snapshot_every, optional=True)
        tuned = self.steps * self.batch_size
        if tuned > _MOST_KEPT_STEPS:
            raise UserError(
                f"distiller.steps={self.steps} of distiller.batch_size={self.batch_size} are "
                f"{tuned:,} kept steps, and {_MOST_KEPT_STEPS:,} are the most: lower one of them."
            )
        _one_of("distiller.order", self.order, ORDERS)
        _one_of("distiller.parallel", self.parallel, PARALLELS)
        _one_of("distiller.schedule", self.schedule, SCHEDULES)


@dataclass
class EvaluatorSettings:
    """Pass@1 with the Qwen2.5-Math toolkit's prompt."""

    engine: str = "transformers"  # what answers, as `sampler.engine`

    system_prompt: str = "Please reason step by step, and put your final answer within \\boxed{}."
    max_examples: int | None = None  # the first N of each benchmark; null takes all
    max_new_tokens: int = 2048
    batch_size: int = 32
    # greedy; contrastive: at every token the amateur is asked too, and among the expert's plausible
    # tokens (alpha) the one with the greatest log-ratio is taken (no training needed).
    decoder: str = "greedy"
    # Also measure expert and amateur on the first benchmark, the paper's expertise gap: greedy, or
    # sampled (one answer a question at temperature 1: what a model can do, not what it prefers).
    gap: str | None = None
    # Worked examples put before each question, by benchmark (the toolkit's own MMLU-STEM: 5).
    shots: dict[str, int] = field(default_factory=lambda: {"mmlu_stem": 0})

    def __post_init__(self) -> None:
        _require_count("evaluator.max_examples", self.max_examples, optional=True)
        _one_of("evaluator.engine", self.engine, ENGINES)
        if self.engine != "transformers" and (self.decoder != "greedy" or self.gap is not None):
            asked = "gap" if self.gap is not None else "decoder"
            raise UserError(
                f"evaluator.engine={self.engine} answers for the expert alone, and evaluator."
                f"{asked}={getattr(self, asked)} asks the amateur, too: set "
                "evaluator.engine=transformers."
            )
        _require_count("evaluator.max_new_tokens", self.max_new_tokens)
        _require_count("evaluator.batch_size", self.batch_size)
        _one_of("evaluator.decoder", self.decoder, DECODERS)
        if self.gap is not None:
            _one_of("evaluator.gap", self.gap, GAP_DECODERS)
        for name, count in self.shots.items():
            _require_count(f"evaluator.shots.{name}", count, 0)


@dataclass
class WandbSettings:
    """Weights & Biases. `auto` is online where there is a login and offline elsewhere."""

    mode: str = "auto"
    project: str = "lr_exp"
    entity: str | None = None
    group: str | None = None
    name: str | None = None  # null: the method, the models and what else tells cells apart
    tags: list[str] = field(default_factory=list)
    # Record supervision, adapter and graded answers as artifacts. What is sent then holds the texts
    # of questions and answers, and the adapter's weights. Tables hold texts of some either way.
    artifacts: bool = True

    def __post_init__(self) -> None:
        _one_of("wandb.mode", self.mode, WANDB_MODES)


@dataclass
class Settings:
    """The whole run: what is written after `python -m lr_exp`."""

    expert: ExpertSettings = field(default_factory=ExpertSettings)
    amateur: AmateurSettings = field(default_factory=AmateurSettings)
    data: DataSettings = field(default_factory=DataSettings)
    method: MethodSettings = field(default_factory=MethodSettings)
    sampler: SamplerSettings = field(default_factory=SamplerSettings)
    distiller: DistillerSettings = field(default_factory=DistillerSettings)
    evaluator: EvaluatorSettings = field(default_factory=EvaluatorSettings)
    server: ServerSettings = field(default_factory=ServerSettings)
    wandb: WandbSettings = field(default_factory=WandbSettings)
    benchmarks: list[str] = field(default_factory=list)
    stages: list[str] = field(default_factory=lambda: list(STAGES))
    sweep: str | None = None  # the table that this run is a cell of; set by `sweeps/*.yaml`
    alpha: float = 0.2
    beta: float = 0.4
    seed: int = 0
    device: str = "auto"  # auto | cpu | cuda | cuda:N
    dtype: str = "auto"  # auto: bfloat16 on a GPU that has it, float32 elsewhere
    attention: str | None = None  # how attention is computed; null leaves it to transformers
    hub_root: str | None = None  # a folder that mirrors hub data sets by their ids
    store: str = "runs/store"
    # Folders of the user's own options, which benchmarks are looked up in too. Not a key: set by
    # --config-dir, or by `compose(config_dir=...)`.
    config_dirs: list[str] = field(default_factory=list, metadata={"omegaconf_ignore": True})

    def __post_init__(self) -> None:
        _require(0 < self.alpha <= 1, "alpha", self.alpha, "a number in (0, 1]")
        _require(0 <= self.beta < math.inf, "beta", self.beta, "a number of nats, 0 or more")
        _require(0 <= self.seed < 2**32, "seed", self.seed, "an integer in [0, 2**32)")
        _one_of("dtype", self.dtype, DTYPES)
        if self.attention is not None:
            _one_of("attention", self.attention, ATTENTIONS)
        if not self.stages:
            raise UserError(f"stages=[] asks for nothing: give one or more of {', '.join(STAGES)}.")
        for stage in self.stages:
            _one_of("stages", stage, STAGES)
        _no_duplicate("stages", self.stages)
        _no_duplicate("benchmarks", self.benchmarks)  # each would count its seconds twice
        for stage, engine in self.engines.items():
            if engine == "server" and self.server.url is None:
                raise UserError(
                    f"{stage}.engine=server needs to know where: add server.url=http://HOST:PORT."
                )
        if not self.store.strip():
            raise UserError("store is empty: give the folder where finished stages are kept.")
        if self.alpha < self.sampler.support_floor:
            raise UserError(
                f"alpha={self.alpha} is below sampler.support_floor={self.sampler.support_floor}: "
                "the step table would not hold the whole mask. Lower sampler.support_floor."
            )

    @property
    def engines(self) -> dict[str, str]:
        """What the expert answers on, by the part of the settings that says so."""
        return {"sampler": self.sampler.engine, "evaluator": self.evaluator.engine}

    @property
    def imports_records(self) -> bool:
        """Whether supervision is read from a file instead of sampled."""
        return self.data.format == "lr_samples"

    @property
    def reads_stream(self) -> bool:
        """Whether questions to learn from are read as a stream."""
        learns = "sample" in self.stages or "distill" in self.stages
        return learns and not self.imports_records and self.data.streaming

    @property
    def asks_amateur(self) -> bool:
        """Whether any stage of this run reads the amateur."""
        samples = "sample" in self.stages and not self.imports_records
        compares = self.evaluator.decoder == "contrastive" or self.evaluator.gap is not None
        return (samples and self.method.needs_amateur) or ("evaluate" in self.stages and compares)
