"""Runs, finished or not: their folder, their summary and their other files."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path, PurePath
from typing import Any

from lr_exp.errors import printable
from lr_exp.report.read.json_file import is_number, read_json, read_json_lines, reason_of
from lr_exp.report.read.summary import (
    DistillSummary,
    EvaluateSummary,
    Failure,
    Provenance,
    Results,
    SampleSummary,
    Summary,
    parse_summary,
)
from lr_exp.store.run_folder import (
    ANSWERS,
    FAILED,
    METRICS,
    SUMMARY,
    TRAJECTORIES,
    answers_file,
    forced_file,
)

WHO = ("expert", "tuned")
REWRITE = ". Run the same command again: it rewrites the file."
_REWRITE = "Run the same command again to rewrite the answers"
_OVERRIDES = ".hydra/overrides.yaml"
_MAX_YAML_BYTES = 2**20


Answers = dict[str, dict[str, Any]]  # graded answers by question id


class AnswersMissingError(Exception):
    """A run's graded answers cannot be used; the message says which and why."""


class Run:
    """A run and its `summary.json`, or as much of one as other files record.

    `name` is its folder, relative to the one that is reported. Parts of the summary that are None
    are empty here.
    """

    outcome = "finished"
    mark = ""  # in titles and labels of somebody else's results: `, bundle NAME`

    def __init__(self, folder: Path, name: str, summary: Summary) -> None:
        self.folder = folder
        self.name = name
        self.summary = summary
        self.method = summary.method
        self.expert = summary.expert
        self.amateur = summary.amateur
        self.data = summary.data
        self.prompt = summary.prompt
        self.alpha = summary.alpha
        self.beta = summary.beta
        self.seed = summary.seed
        self.sweep = summary.sweep
        self.settings = summary.settings
        # Of the training; None where none was requested.
        tuning = summary.distill or summary.stopped
        distiller = self.settings.get("distiller", {}) if tuning else {}
        rate = distiller.get("learning_rate")
        self.learning_rate = float(rate) if is_number(rate) else None
        self.provenance = summary.provenance or Provenance()
        self.sample = summary.sample or SampleSummary()
        self.distill = summary.distill or DistillSummary()
        self.evaluate = summary.evaluate or EvaluateSummary()
        self.decoder = self.evaluate.decoder or "greedy"
        self.warnings = summary.warnings or []  # about the pair of models
        # Why nothing was trained; None if something was.
        self.stopped = None if self.results("tuned") else summary.stopped
        # The model whose results are reported for the method.
        self.final_model = "expert" if self.stopped else "tuned"
        # Whether the supervision is imported records.
        self.is_imported = self.settings.get("data", {}).get("format") == "lr_samples"

    def results(self, who: str, prompt: str | None = None) -> Results:
        """Results of `expert` or `tuned` by benchmark, with a prompt (None: the headline)."""
        asked = self.evaluate if prompt is None else (self.evaluate.prompts or {})[prompt]
        return (asked.tuned if who == "tuned" else asked.expert) or {}

    def swept(self, key: str) -> float | str | None:
        """The value of a setting as `names.SWEPT` has it; None if it is unknown."""
        if key == "data.max_questions" and self.sample.questions:
            return self.sample.questions  # also where the setting is null
        group, _, name = key.partition(".")
        value = (self.settings.get(group) or {}).get(name)
        return value if isinstance(value, float | int | str) else None

    @property
    def prompts(self) -> list[str]:
        """The forms of the prompt in the evaluation, the headline first."""
        return [*(self.evaluate.prompts or {})]

    @property
    def benchmarks(self) -> list[str]:
        """The benchmarks in the order of the settings."""
        requested = self.settings.get("benchmarks") or []
        return list(dict.fromkeys([*requested, *self.results("expert"), *self.results("tuned")]))

    def records(self, who: str, benchmark: str, prompt: str | None = None) -> list[dict[str, Any]]:
        """The graded answers of `expert` or `tuned` to a prompt, in the order of the file.

        Raises AnswersMissingError if the file does not exist or does not match the summary.
        """
        prompt = None if prompt in self.prompts[:1] else prompt
        place = answers_file(who, benchmark, prompt)
        for what, given in (("benchmark", benchmark), ("prompt", prompt)):
            if given and (given != Path(given).name or given.startswith(".")):
                raise AnswersMissingError(f"{given!r} is not a valid {what} name")
        if not (self.folder / place).exists():
            raise AnswersMissingError(
                f"{self.name}/{place} is missing or is a dangling link into a deleted store. "
                f"{_REWRITE}"
            )
        records = self._records_in(place)
        correct = sum(one["correct"] for one in records)
        result = self.results(who, prompt)[benchmark]
        if (correct, len(records)) != (result.correct, result.total):
            raise AnswersMissingError(
                f"{self.name}/{place} has {correct} of {len(records)} correct answers, but "
                f"{SUMMARY} has {result.correct} of {result.total}. {_REWRITE}"
            )
        return records

    def forced_records(self, who: str, benchmark: str) -> list[dict[str, Any]] | None:
        """The graded forced answers; None if none were forced. Raises as `records`."""
        is_forced = self.settings.get("evaluator", {}).get("force_answer")
        return self._records_in(forced_file(who, benchmark)) if is_forced else None

    def _records_in(self, place: PurePath) -> list[dict[str, Any]]:
        """The records in a file of answers, each with `id` as a text and `correct` as a bool."""
        try:
            return [
                record | {"id": str(record["id"]), "correct": bool(record["correct"])}
                for record in read_json_lines(self.folder / place)
            ]
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise AnswersMissingError(
                f"{self.name}/{place} cannot be read ({reason_of(error)}). {_REWRITE}"
            ) from error

    def answers(self, who: str, benchmark: str, prompt: str | None = None) -> Answers:
        """The graded answers by question id. Raises as `records`."""
        return {record["id"]: record for record in self.records(who, benchmark, prompt)}

    def metrics(self) -> tuple[list[dict[str, Any]], str | None]:
        """The logged training metrics in order, and why the rest of the file cannot be read."""
        path = self.folder / METRICS
        entries: list[dict[str, Any]] = []
        if not path.is_file():
            return [], None
        try:
            entries += map(dict, read_json_lines(path))
            damage = None
        except (OSError, ValueError, TypeError, RecursionError) as error:
            place = f"{METRICS} cannot be read at line {len(entries) + 1} ({reason_of(error)})"
            damage = f"{place}; only the lines before it are shown."
        return [entry for entry in entries if _is_training(entry)], damage


def _is_training(entry: dict[str, Any]) -> bool:
    """Whether a line of the metrics has training numbers that can be plotted."""
    step, entropy = entry.get("step"), entry.get("entropy")
    is_plottable = is_number(step) and (entropy is None or is_number(entropy))
    return is_plottable and entry.get("family") == "distill"


class Incomplete(Run):
    """A run without a usable summary: `known` is what other files record of it.

    Its outcome is `failed`; `damaged` if its summary.json or failed.json cannot be read; or
    `unfinished` if it has neither, because it is still running or was killed.
    """

    def __init__(self, folder: Path, name: str, outcome: str, known: Failure) -> None:
        self.outcome = outcome
        self.error = " ".join(known.error.split())  # or why a file cannot be read
        self.overrides = known.overrides or _saved_overrides(folder)
        choices = known.model_dump(exclude={"error", "overrides", "decoder", "learning_rate"})
        parts = {"settings": {}, "evaluate": EvaluateSummary(decoder=known.decoder)}
        super().__init__(folder, name, Summary.model_construct(None, **choices, **parts))
        self.learning_rate = known.learning_rate

    def swept(self, key: str) -> float | str | None:
        parts = (word.partition("=") for word in self.overrides)
        given = {name: value for name, _, value in parts}.get(key)
        with suppress(ValueError):
            return float(given or "")
        return None if given == "null" else given

    @property
    def existing_files(self) -> tuple[str, ...]:
        """The files in the run's folder that a page can show."""
        shown = (METRICS, TRAJECTORIES, ANSWERS)
        return tuple(name for name in shown if (self.folder / name).exists())


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by their dotted keys."""
    items: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, dict):
            items |= flat(value, f"{prefix}{key}.")
        else:
            items[prefix + key] = value
    return items


def shared_questions(one: Answers, other: Answers) -> list[str]:
    """The ids of the questions in both, in the order of the first.

    The same id stands for another question if the question, its choices or its reference differ.
    """
    names = ("question", "choices", "reference")
    return [
        key
        for key, own in one.items()
        if key in other and all(own.get(name) == other[key].get(name) for name in names)
    ]


def read_run(folder: Path, name: str, files: Sequence[str]) -> Run | None:
    """The run in a folder with these files, finished or not; None if none started there."""
    # A run deletes the file of its earlier outcome. If both exist, the newer one counts.
    ends = [end for end in (SUMMARY, FAILED) if end in files]
    newest = max(ends, key=lambda end: (folder / end).lstat().st_mtime_ns, default=None)
    if newest is None:
        has_started = METRICS in files or TRAJECTORIES in files or (folder / _OVERRIDES).exists()
        return read_unfinished(folder, name) if has_started else None
    try:
        content = read_json(folder / newest)
        if newest == SUMMARY:
            return Run(folder, name, parse_summary(content))
        return Incomplete(folder, name, "failed", Failure.model_validate(content))
    except (OSError, ValueError) as error:
        reason = f"{newest} cannot be read ({reason_of(error)})"
        reason = f"{reason}{REWRITE}" if newest == SUMMARY else f"failed, and its {reason}"
        return Incomplete(folder, name, "damaged", Failure(error=reason))


def read_unfinished(folder: Path, name: str) -> Incomplete:
    """A run without an outcome; its trajectories have its choices."""
    known = Failure()
    with suppress(OSError, ValueError):
        known = Failure.model_validate(read_json(folder / TRAJECTORIES))
    return Incomplete(folder, name, "unfinished", known)


def _saved_overrides(folder: Path) -> list[str]:
    """The command line that Hydra saved before the run started."""
    import yaml

    path, words = folder / _OVERRIDES, []
    with suppress(OSError, ValueError, TypeError, RecursionError, yaml.YAMLError):
        if path.is_file() and path.stat().st_size <= _MAX_YAML_BYTES:
            words = yaml.safe_load(path.read_bytes())
    every = words if isinstance(words, list) else []
    return [printable(one) for one in every if isinstance(one, str)]
