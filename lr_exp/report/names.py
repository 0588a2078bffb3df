"""Labels and order of methods, experts, amateurs, decoders and benchmarks in tables."""

from dataclasses import dataclass
from pathlib import Path

import yaml

_LISTED = yaml.safe_load(Path(__file__).with_name("names.yaml").read_text(encoding="utf-8"))
METHODS: dict[str, str] = _LISTED["methods"]  # labels by name, in the order of tables
CONTROLS: dict[str, str] = _LISTED["controls"]
BENCHMARKS: dict[str, str] = _LISTED["benchmarks"]
EXPERTS, AMATEURS = tuple(_LISTED["experts"]), tuple(_LISTED["amateurs"])
HUB_IDS: dict[str, str] = _LISTED["hub_ids"]  # of the paper's models

BASELINE = "baseline"
# Settings whose values distinguish rows where they differ within a sweep.
SWEPT = {
    "data.noise": "noise",
    "data.noise_share": "noisy share",
    "data.max_questions": "questions",
    "sampler.max_new_tokens": "answer tokens",
    "distiller.stop": "stop",
}
DECODERS = ("greedy", "sampled", "contrastive")

AVERAGE = "AVG"
NO_SWEEP = "Results"  # title of runs that belong to no sweep
ABSENT = "–"  # noqa: RUF001  a cell without a number


@dataclass(frozen=True)
class Setup:
    """The choices that identify a row of a table. None is a choice that no stage read."""

    expert: str
    method: str | None  # `baseline` is the untuned expert; None is imported records
    amateur: str | None = None
    data: str | None = None
    alpha: float | None = None
    beta: float | None = None
    decoder: str = "greedy"
    prompt: str | None = None  # of the sampler
    learning_rate: float | None = None
    swept: tuple[tuple[str, float | str], ...] = ()  # keys of `SWEPT` with their values

    @property
    def label(self) -> str:
        """`LightReasoner`, `contrastive decoding`, ..."""
        if self.decoder == "contrastive" and self.method == BASELINE:
            return "contrastive decoding"
        label = method_label(self.method) if self.method else f"supervision from {self.data}"
        if self.decoder == "greedy":
            return label
        return f"{label} + {self.decoder} decoding"

    def listed(self, *names: str) -> list[str]:
        """`amateur micro`, `data gsm8k`, ...; choices that no stage read are left out."""
        signs = {"alpha": "α", "beta": "β", "learning_rate": "learning rate"}  # noqa: RUF001
        values = {name: getattr(self, name) for name in names}
        values |= {SWEPT[key]: value for key, value in values.pop("swept", ())}
        return [
            f"{signs.get(name, name)} {value if isinstance(value, str) else format(value, 'g')}"
            for name, value in values.items()
            if value is not None
        ]

    @property
    def order(self) -> tuple[object, ...]:
        """Sort key: the order of the paper's tables."""
        return (
            rank(self.expert, EXPERTS),
            rank(self.decoder, DECODERS),
            rank(self.method, (*METHODS, *CONTROLS)),
            rank(self.data, ()),
            rank(self.prompt, ()),
            rank(self.amateur, AMATEURS),
            self.alpha or 0.0,
            self.beta or 0.0,
            self.learning_rate or 0.0,
            [(isinstance(value, str), value) for _, value in self.swept],
        )


def rank(name: str | None, order: tuple[str, ...]) -> tuple[int, str]:
    """Sort key: listed names in their order, then other names alphabetically, None last."""
    if name is None:
        return len(order) + 1, ""
    return (order.index(name), "") if name in order else (len(order), name)


def method_label(method: str | None) -> str:
    """The label of a method; None is imported records."""
    return (METHODS | CONTROLS).get(method, method) if method else "imported records"


def benchmark_label(name: str) -> str:
    return BENCHMARKS.get(name, name)


def is_micro(*names: str | None) -> bool:
    """Whether any of the models or benchmarks belongs to the micro world."""
    return any(name is not None and name.startswith("micro") for name in names)
