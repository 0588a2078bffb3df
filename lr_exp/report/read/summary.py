"""The types behind `summary.json`: the pipeline fills them in, everything else reads them.

Reading validates types and ranges and ignores unknown keys, so that older versions read newer
files. Writing keeps exactly the keys that were set, null or not.
"""

import json
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator, with_config
from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from lr_exp.report.read.json_file import reason_of

# 2**53: every smaller integer is exact as a float. 1e30: its square, and sums of it, stay finite.
Count = Annotated[int, Field(strict=True, ge=0, lt=2**53)]
Seed = Annotated[int, Field(strict=True, gt=-(2**53), lt=2**53)]
Number = Annotated[float, Field(strict=True, gt=-1e30, lt=1e30, allow_inf_nan=False)]
Seconds = Annotated[float, Field(strict=True, ge=0, lt=1e30, allow_inf_nan=False)]
Share = Annotated[float, Field(strict=True, ge=0, le=1, allow_inf_nan=False)]
Bytes = Count
Flag = Annotated[bool, Field(strict=True)]
NumberKey = Annotated[str, Field(pattern="^[1-9][0-9]{0,9}$")]  # a count as a key of JSON


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    def to_dict(self) -> dict[str, Any]:
        """The keys that were set, as they stand in the JSON file."""
        return self.model_dump(by_alias=True, exclude_unset=True)


class Histogram(_Part):
    """Scored token positions by divergence or loss, in bins from 0; the last bin is open."""

    bin_nats: Annotated[Number, Field(gt=0)]
    counts: Annotated[list[Count], Field(min_length=1)]
    nats: list[Number] | None = None  # sums of the values in each bin


class PositionCounts(_Part):
    """Token positions by their distance from the start of the answer; the last bin may be open."""

    bin_tokens: Annotated[Count, Field(gt=0)]
    steps: list[Count]
    kept: list[Count]  # of `steps`

    @model_validator(mode="after")
    def _check_counts(self) -> Self:
        if len(self.kept) != len(self.steps):
            raise ValueError("kept and steps should have the same length")
        if any(kept > steps for kept, steps in zip(self.kept, self.steps, strict=True)):
            raise ValueError("kept should be at most steps")
        return self


class Verified(_Part):
    """Rejection sampling: how many of the drawn answers are correct."""

    answers: Count | None = None  # that were kept
    drawn: Count | None = None  # answers
    right: Count | None = None  # answers
    solved: Count | None = None  # questions with a correct answer
    peak_memory_bytes: Bytes | None = None


class SampleSummary(_Part):
    """The supervision, and the divergences that it was selected from.

    Means are over all scored token positions; they are None if no position was scored. Seconds and
    memory are those of the run that did the work.
    """

    questions: Count | None = None
    answers: Count | None = None
    steps: Count | None = None  # scored token positions; None for imported records
    kept: Count | None = None
    kept_share: Share | None = None
    conflicts: Count | None = None  # steps above beta that `kl_no_conflict` did not keep
    by_position: PositionCounts | None = None
    choice: Count | None = None  # kept steps with several tokens in the label
    choice_of_kept: Share | None = None
    choice_of_all: Share | None = None
    moving: Count | None = None  # kept steps whose label prefers another token than the expert
    moving_of_kept: Share | None = None
    moving_of_all: Share | None = None
    moving_loss_share: Share | None = None  # of the loss before training
    loss_histogram: Histogram | None = None  # KL(label ‖ expert) before training, 0 if not kept
    kl_mean: Number | None = None  # nats
    kl_max: Number | None = None  # nats
    kl_mean_same_top1: Number | None = None  # nats; where both models prefer the same token
    kl_mean_other_top1: Number | None = None  # nats
    share_same_top1: Share | None = None
    share_below_0_1: Share | None = Field(default=None, alias="share_below_0.1")  # nats
    share_above_0_4: Share | None = Field(default=None, alias="share_above_0.4")  # nats
    expert_entropy_mean: Number | None = None  # nats
    amateur_entropy_mean: Number | None = None  # nats
    histogram: Histogram | None = None
    generated_tokens: Count | None = None
    flops: Annotated[Number, Field(ge=0)] | None = None  # of generating and scoring
    seconds: Seconds | None = None
    seconds_by_stage: dict[str, Seconds] | None = None
    peak_memory_bytes: Bytes | None = None
    reused: Flag | None = None  # whether the artifacts were in the store already
    artifact: str | None = None  # folder of the supervision
    supervision: str | None = None  # digest of its content
    export: str | None = None  # file of records in the published format
    verified: Verified | None = None


class DistillSummary(_Part):
    """The tuned adapter. Seconds and memory are those of the run that trained it."""

    optimizer_steps: Count | None = None
    best_step: Count | None = None  # of the snapshot that `distiller.stop` kept
    batch_size: Count | None = None  # kept token positions per optimizer step
    tuned_tokens: Count | None = None
    kept_steps: Count | None = None  # distinct token positions in the supervision
    passes: Seconds | None = None  # over the kept steps: tuned_tokens / kept_steps
    tokens_read: Count | None = None  # by the passes through the model
    flops: Annotated[Number, Field(ge=0)] | None = None
    final_loss: Annotated[float, Field(strict=True)] | None = None  # nats; NaN if diverged
    peak_memory_bytes: Bytes | None = None
    seconds: Seconds | None = None
    reused: Flag | None = None
    artifact: str | None = None  # folder
    merged: str | None = None  # folder of the merged model

    @property
    def adapter_steps(self) -> int:
        """Optimizer steps of the kept adapter; 0 if nothing was trained."""
        return self.best_step or self.optimizer_steps or 0


class Result(_Part):
    """Pass@1 of one model on one benchmark."""

    accuracy: Share
    correct: Count
    total: Annotated[Count, Field(gt=0)]
    stderr: Annotated[Number, Field(ge=0)] | None = None  # of accuracy, binomial
    ci95: Annotated[list[Share], Field(min_length=2, max_length=2)] | None = None  # of accuracy
    truncated: Count = 0  # answers that reached the token limit
    boxed: Count | None = None  # answers that were read from a box
    no_answer: Count | None = None  # answers in which no rule found one
    strict_accuracy: Share | None = None  # an answer must also be boxed and finished
    accuracy_truncated: Share | None = None  # of truncated answers; None without one
    accuracy_finished: Share | None = None
    read_by: dict[str, Share] | None = None  # share of answers by extraction rule
    forced_accuracy: Share | None = None  # with answers that had no box or end forced
    metric: str | None = None  # of lm-evaluation-harness, which graded the answers
    mean_tokens: Seconds | None = None
    median_tokens: Seconds | None = None

    @model_validator(mode="after")
    def _check_counts(self) -> Self:
        if self.correct > self.total:
            raise ValueError(f"correct should be at most total, not {self.correct} of {self.total}")
        return self

    @property
    def numbers(self) -> dict[str, float]:
        """Every known number under a name of its own: `ci95_low`, `read_by_box`, ..."""
        values = self.model_dump(exclude_unset=True, exclude={"metric"})
        values |= zip(("ci95_low", "ci95_high"), values.pop("ci95", None) or (), strict=False)
        values |= {f"read_by_{k}": v for k, v in (values.pop("read_by", None) or {}).items()}
        return {key: value for key, value in values.items() if value is not None}


Results = dict[str, Result]  # by benchmark


class Nats(_Part):
    """Mean log-likelihood of reference solutions, in nats per token, averaged over questions."""

    solutions: Count
    expert: Number
    amateur: Number
    difference: Number  # expert minus amateur
    ci95: Annotated[list[Number], Field(min_length=2, max_length=2)]  # of it, over questions


class Gap(_Part):
    """Expert and amateur on the same benchmark, with the same decoder."""

    decoder: str | None = None
    expert: Results
    amateur: Results
    nats: Nats | None = None  # None if the benchmark has no solutions


class CurvePoint(_Part):
    """Accuracy of a snapshot of the adapter."""

    step: Count  # optimizer steps
    results: Results


class PromptResults(_Part):
    """Accuracy before and after tuning, where questions are asked in one form of the prompt."""

    expert: Results | None = None
    tuned: Results | None = None


class PairedGain(_Part):
    """A difference of accuracies on the same questions."""

    gain: Annotated[Number, Field(ge=-1, le=1)]
    ci95: list[Number]
    won: Count  # questions that only the tuned expert answered correctly
    lost: Count  # questions that only the untuned expert answered correctly
    # Of the best prompts: those that were chosen for a half of the questions on the other half, for
    # one of the ways to halve them; the most frequent first.
    expert_prompts: list[str] | None = None
    tuned_prompts: list[str] | None = None


class Shrinkage(_Part):
    """The gain at the same prompt minus the gain between the best prompts."""

    gain: Number
    ci95: list[Number]


class Decomposition(_Part):
    """A gain in strict accuracy, and its two parts."""

    strict: PairedGain  # of boxed, finished and correct answers: latent + format
    latent: PairedGain  # of forced answers: what the model can do whatever it writes at the end
    format: PairedGain  # the rest: ending answers and boxing them
    # What the answers before were, of the questions won and lost (strict): `cut off`, `unboxed`,
    # `other answer`; of those lost, what they are after.
    won_from: dict[str, Count]
    lost_to: dict[str, Count]


class Gains(_Part):
    """What tuning changed on a benchmark."""

    same_prompt: PairedGain  # both with the headline prompt
    best_prompt: PairedGain | None = None  # each model with its own best prompt
    shrinkage: Shrinkage | None = None
    decomposition: Decomposition | None = None  # with the headline prompt


class SampledShare(_Part):
    """A mean over a benchmark's questions of a share in [0, 1], from the samples of each."""

    share: Share
    stderr: Annotated[Number, Field(ge=0)]  # over questions
    ci95: Annotated[list[Share], Field(min_length=2, max_length=2)]
    total: Annotated[Count, Field(gt=0)]  # questions


class SampledResult(_Part):
    """One model's sampled answers to one benchmark; k is the number of samples of a question."""

    avg: SampledShare  # avg@k: of correct answers
    # pass@j by j, up to k.
    pass_at: Annotated[dict[NumberKey, SampledShare], Field(min_length=1)]
    maj: SampledShare  # maj@k: of questions whose most frequent answer is correct

    @property
    def by_name(self) -> dict[str, SampledShare]:
        """Every share under a name of its own: `avg_at_8`, `pass_at_4`, `maj_at_8`, ..."""
        k, passed = max(map(int, self.pass_at)), self.pass_at.items()
        return {
            f"avg_at_{k}": self.avg,
            **{f"pass_at_{j}": one for j, one in passed},
            f"maj_at_{k}": self.maj,
        }


class Coverage(_Part):
    """Questions to which the untuned expert has a correct answer among its samples."""

    won: Count  # questions that only the tuned expert answered correctly (greedy)
    had_right: Count  # of them, those with a correct sample of the untuned expert
    both_wrong: Count  # questions that neither answered correctly (greedy)
    both_wrong_had_right: Count


class Samples(_Part):
    """Several sampled answers to each question, with the headline prompt; by benchmark."""

    samples: Annotated[Count, Field(gt=0)]  # of each question
    temperature: Number
    expert: dict[str, SampledResult]
    tuned: dict[str, SampledResult] | None = None
    coverage: dict[str, Coverage] | None = None
    seconds: Seconds | None = None


class EvaluateSummary(_Part):
    """Accuracy before and after tuning. Seconds are those of the runs that did the work."""

    decoder: str | None = None
    expert: Results | None = None  # with the first prompt, the headline
    tuned: Results | None = None
    prompts: dict[str, PromptResults] | None = None  # by form, the headline first
    gains: dict[str, Gains] | None = None  # by benchmark
    seconds: Seconds | None = None  # of `expert` and `tuned`
    reused: Flag | None = None
    curve: list[CurvePoint] | None = None
    curve_seconds: Seconds | None = None
    gap: Gap | None = None
    gap_seconds: Seconds | None = None
    samples: Samples | None = None
    # Benchmarks with generated questions; short ones may still be in training data.
    generated: list[str] | None = None


class ModelProvenance(_Part):
    path: str | None = None
    revision: str | None = None
    fingerprint: str | None = None
    base: str | None = None  # with `expert.adapter`: the model that it was merged into
    adapter: str | None = None  # its digest


class Provenance(_Part):
    """The code, digests of the models and questions, and the machine."""

    commit: str | None = None  # of the code, if it is in a git repository
    modified: Flag | None = None  # whether files of the package differ from the commit
    started: str | None = None  # UTC, ISO 8601
    host: str | None = None  # operating system, architecture and number of cores

    expert: ModelProvenance | None = None
    amateur: ModelProvenance | None = None
    data: str | None = None  # digest of all questions of the data set
    questions: str | None = None  # digest of those that were sampled from
    benchmarks: dict[str, str] | None = None  # digests
    prompt: str | None = None  # digest of the sampler's prompts but for the questions
    # The same for the evaluation, by `FORM, BENCHMARK`; in older files by form.
    prompts: dict[str, str] | None = None
    device: str | None = None
    device_name: str | None = None
    dtype: str | None = None


@with_config(ConfigDict(extra="allow"))
class RecordedModel(TypedDict, total=False):
    name: str | None
    path: str | None


@with_config(ConfigDict(extra="allow"))
class RecordedSettings(TypedDict, total=False):
    """The settings of the run by group, with the types of those that are read back."""

    expert: RecordedModel
    amateur: RecordedModel
    data: dict[str, Any]
    method: dict[str, Any]
    sampler: dict[str, Any]
    distiller: dict[str, Any]
    evaluator: dict[str, Any]
    server: dict[str, Any]
    wandb: dict[str, Any]
    benchmarks: list[str] | None
    stages: list[str]
    sweep: str | None
    alpha: Number | None
    config_dirs: list[str]
    overrides: list[str]


class Summary(_Part):
    """All headline numbers of a run. A part is None if its stage did not run."""

    method: str | None  # this and the next ones are None if no stage read them
    expert: str
    amateur: str | None
    data: str | None = None
    prompt: str | None = None  # the form in which the sampler asks
    alpha: Number | None
    beta: Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)] | None  # nats
    seed: Seed
    sweep: str | None = None
    stages: list[str] | None = None
    seeds: dict[str, Seed] | None = None  # of each random number generator
    provenance: Provenance | None = None
    settings: RecordedSettings
    versions: dict[str, str] | None = None  # of packages
    sample: SampleSummary | None = None
    warnings: list[str] | None = None  # about the pair of models
    stopped: str | None = None  # why nothing was trained
    distill: DistillSummary | None = None
    evaluate: EvaluateSummary | None = None
    engines: dict[str, dict[str, Any]] | None = None  # inference engines by part of the settings
    peak_memory_bytes: Bytes | None = None  # of any stage
    ranks: Count | None = None  # processes, if there were several

    def to_json(self) -> str:
        """The content of `summary.json`."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n"


class Failure(_Part):
    """`failed.json`: the error, and the choices as in `Summary`, None where unknown."""

    error: str = ""
    overrides: list[str] = []
    method: str | None = None
    expert: str | None = None
    amateur: str | None = None
    data: str | None = None
    prompt: str | None = None
    alpha: Number | None = None
    beta: Number | None = None
    seed: Seed | None = None
    sweep: str | None = None
    decoder: str | None = None
    learning_rate: Number | None = None


def parse_summary(value: Any) -> Summary:
    """Validates the content of a `summary.json`.

    Raises ValueError if it is no summary; the message names the first invalid key, in one line.
    """
    try:
        return Summary.model_validate(value)
    except ValidationError as error:
        raise ValueError(reason_of(error)) from error
