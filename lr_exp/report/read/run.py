"""A run: its folder, its summary and its other files."""

from pathlib import Path
from typing import Any

from lr_exp.report.read.json_file import is_number, read_json_lines, reason_of
from lr_exp.report.read.summary import (
    DistillSummary,
    EvaluateSummary,
    Provenance,
    Results,
    SampleSummary,
    Summary,
)
from lr_exp.store.run_folder import METRICS, SUMMARY, answers_file

WHO = ("expert", "tuned")
_REWRITE = "Run the same command again to rewrite the answers"


class AnswersMissingError(Exception):
    """A run's graded answers cannot be used; the message says which and why."""


class Run:
    """A run and its `summary.json`, or as much of one as other files record.

    Args:
        folder: with the run's files.
        name: the folder, relative to the one that is reported.
        summary: its parts that are None are empty here.
    """

    outcome = "finished"

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
        """The graded answers of `expert` or `tuned` to a prompt, as they stand in the file.

        Raises:
            AnswersMissingError: the file does not exist or does not match the summary.
        """
        prompt = None if prompt in self.prompts[:1] else prompt
        place = answers_file(who, benchmark, prompt)
        for given in (benchmark, prompt):
            if given and (given != Path(given).name or given.startswith(".")):
                raise AnswersMissingError(f"{given!r} is not a valid benchmark or prompt")
        path, name = self.folder / place, f"{self.name}/{place}"
        if not path.exists():
            raise AnswersMissingError(
                f"{name} is missing or is a dangling link into a deleted store. {_REWRITE}"
            )
        try:
            records = [record | {"id": str(record["id"])} for record in read_json_lines(path)]
            correct = sum(bool(record["correct"]) for record in records)
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise AnswersMissingError(
                f"{name} cannot be read ({reason_of(error)}). {_REWRITE}"
            ) from error
        result = self.results(who, prompt)[benchmark]
        if (correct, len(records)) != (result.correct, result.total):
            raise AnswersMissingError(
                f"{name} has {correct} of {len(records)} correct answers, but {SUMMARY} has "
                f"{result.correct} of {result.total}. {_REWRITE}"
            )
        return records

    def answers(self, who: str, benchmark: str, prompt: str | None = None) -> dict[str, float]:
        """Correctness of each question, in [0, 1], by question id. Raises as `records`."""
        graded: dict[str, list[bool]] = {}
        for record in self.records(who, benchmark, prompt):
            graded.setdefault(record["id"], []).append(bool(record["correct"]))
        return {key: sum(values) / len(values) for key, values in graded.items()}

    def metrics(self) -> tuple[list[dict[str, Any]], str | None]:
        """The logged training metrics in order, and why the rest of the file cannot be read."""
        path = self.folder / METRICS
        entries: list[dict[str, Any]] = []
        if not path.is_file():
            return [], None
        try:
            entries += map(dict, read_json_lines(path))
            damage = None
        except (OSError, UnicodeDecodeError) as error:
            damage = f"{METRICS} cannot be read ({reason_of(error)})."
        except (ValueError, TypeError, RecursionError):
            place = f"line {len(entries) + 1}"
            damage = f"{METRICS} is damaged at {place}; only the lines before it are shown."
        return [entry for entry in entries if _is_training(entry)], damage


def _is_training(entry: dict[str, Any]) -> bool:
    """Whether a line of the metrics has training numbers that can be plotted."""
    step, entropy = entry.get("step"), entry.get("entropy")
    is_plottable = is_number(step) and (entropy is None or is_number(entropy))
    return is_plottable and entry.get("family") == "distill"
