"""What kind of value stands where in a `summary.json`, as far as a report reads it.

Knows keys and kinds; knows neither files nor what the values mean. A file that was edited or cut
by hand is told by its key, before any table is made of it.
"""

from collections.abc import Callable, Iterator
from typing import Any, TypeGuard

_LARGEST = 1e30  # what is added up, squared and drawn stays finite
_MOST = 2**53  # of what is counted: beyond it not every integer is a float
_DEEPEST = 100  # objects in objects; a summary has 5


def is_number(value: Any) -> TypeGuard[float]:
    """Whether it is a finite number that can be calculated with."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and -_LARGEST < value < _LARGEST


def is_result(result: Any) -> bool:
    """Whether it has an accuracy and the whole counts that it is the share of."""
    if not _has_counts(result):
        return False
    accuracy = result.get("accuracy")
    return is_number(accuracy) and 0 <= accuracy <= 1


def is_too_deep(value: Any) -> bool:
    """Whether objects and lists lie in one another deeper than a summary's ever do."""
    level = [value]
    for _ in range(_DEEPEST):
        inside: list[Any] = []
        for one in level:
            inside += one.values() if isinstance(one, dict) else one if _is_list(one) else ()
        if not inside:
            return False
        level = inside
    return True


def first_wrong(summary: dict[str, Any]) -> str | None:
    """The first value that is not what a run writes there: `sample.seconds is no number`."""
    for path, (told, fits, required) in _KINDS.items():
        for key, value in _at(summary, path.split("/")):
            if value is None and not required:
                continue
            if not fits(value):
                return f"{key} is {told}"
    # Two runs with NaN in one place would differ there, and so would a run from itself.
    for key in ("settings", "provenance"):
        for leaf, value in _leaves(summary.get(key), key):
            if value != value:
                return f"{leaf} is no number"
    sample = summary.get("sample") or {}
    if sample.get("histogram") and not is_number(sample.get("steps")):
        return "sample.steps is no number"
    return None


def _at(value: Any, path: list[str], above: str = "") -> Iterator[tuple[str, Any]]:
    """The values at a path with their dotted keys; `*` is every key, `[]` every item."""
    if not path:
        yield above, value
        return
    first, rest = path[0], path[1:]
    found: list[tuple[str, Any]] = []
    if first == "[]" and isinstance(value, list):
        found = [(f"{above}[{index}]", item) for index, item in enumerate(value)]
    elif isinstance(value, dict):
        keys = list(value) if first == "*" else [first] if first in value else []
        found = [(f"{above}.{key}" if above else key, value[key]) for key in keys]
    for key, inside in found:
        yield from _at(inside, rest, key)


def _leaves(value: Any, above: str) -> Iterator[tuple[str, Any]]:
    """What is neither object nor list, with its dotted key."""
    if isinstance(value, dict):
        for key, inside in value.items():
            yield from _leaves(inside, f"{above}.{key}")
    elif isinstance(value, list):
        for index, inside in enumerate(value):
            yield from _leaves(inside, f"{above}[{index}]")
    else:
        yield above, value


def _is_divergence(value: Any) -> bool:
    return is_number(value) and value >= 0


def _is_whole(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and -_MOST < value < _MOST


def _has_counts(result: Any) -> bool:
    if not isinstance(result, dict):
        return False
    correct, total = result.get("correct"), result.get("total")
    return _is_whole(correct) and _is_whole(total) and 0 <= correct <= total != 0


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _is_list(value: Any) -> TypeGuard[list[Any]]:
    return isinstance(value, list)


def _is_point(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and _is_whole(value.get("step"))
        and isinstance(value.get("results"), dict)
    )


def _is_histogram(value: Any) -> bool:
    """An empty one is none."""
    if value == {}:
        return True
    if not isinstance(value, dict) or not isinstance(value.get("counts"), list):
        return False
    width = value.get("bin_nats")
    counts = value["counts"]
    return (
        is_number(width)
        and width > 0
        and bool(counts)
        and all(_is_whole(n) and n >= 0 for n in counts)
    )


def _is_by_position(value: Any) -> bool:
    """An empty one is none."""
    if value == {}:
        return True
    if not isinstance(value, dict) or not _is_whole(value.get("bin_tokens")):
        return False
    steps, kept = value.get("steps"), value.get("kept")
    if not (_is_list(steps) and _is_list(kept) and len(steps) == len(kept)):
        return False
    return value["bin_tokens"] > 0 and all(
        _is_whole(some) and _is_whole(of) and 0 <= some <= of
        for some, of in zip(kept, steps, strict=True)
    )


Kind = tuple[str, Callable[[Any], bool], bool]  # told of what does not fit, fits, must not be null

_TEXT: Kind = ("no text", _is_text, False)
_NUMBER: Kind = ("no number", is_number, False)
_OBJECT: Kind = ("no JSON object", _is_object, False)
_LIST: Kind = ("no list", _is_list, False)
_COUNTS: Kind = ("no result with its counts", _has_counts, True)


def _required(kind: Kind) -> Kind:
    """The same, where the key is there at all."""
    return kind[0], kind[1], True


# An outer value stands before what is in it.
_KINDS: dict[str, Kind] = {
    "settings": _required(_OBJECT),
    "provenance": _OBJECT,
    "versions": _OBJECT,
    "sample": _OBJECT,
    "distill": _OBJECT,
    "evaluate": _OBJECT,
    "seed": ("no whole number", _is_whole, True),
    "expert": _required(_TEXT),
    "method": _TEXT,
    "amateur": _TEXT,
    "data": _TEXT,
    "sweep": _TEXT,
    "stopped": _TEXT,
    "warnings": _LIST,
    "warnings/[]": _required(_TEXT),
    "alpha": _NUMBER,
    "beta": ("no number of nats, 0 or more", _is_divergence, False),
    "peak_memory_bytes": _NUMBER,
    "settings/benchmarks": _LIST,
    "settings/benchmarks/[]": _required(_TEXT),
    "settings/alpha": _NUMBER,
    **{
        f"settings/{group}": _required(_OBJECT)
        for group in ("expert", "amateur", "data", "method", "sampler", "distiller", "evaluator")
    },
    "settings/amateur/name": _TEXT,
    "settings/expert/path": _TEXT,
    "settings/amateur/path": _TEXT,
    "provenance/benchmarks": _OBJECT,
    "provenance/expert": _OBJECT,
    "provenance/amateur": _OBJECT,
    **{
        f"provenance/{role}/{key}": _TEXT
        for role in ("expert", "amateur")
        for key in ("path", "revision", "fingerprint")
    },
    "sample/seconds_by_stage": _OBJECT,
    "sample/seconds_by_stage/*": _NUMBER,
    "sample/verified": _OBJECT,
    "sample/verified/solved": _NUMBER,
    **{
        f"sample/{key}": _NUMBER
        for key in (
            "questions",
            "steps",
            "kept",
            "kept_share",
            "kl_mean",
            "kl_mean_same_top1",
            "kl_mean_other_top1",
            "kl_max",
            "share_same_top1",
            "share_below_0.1",
            "share_above_0.4",
            "expert_entropy_mean",
            "amateur_entropy_mean",
            "generated_tokens",
            "seconds",
            "peak_memory_bytes",
        )
    },
    "sample/histogram": ("no histogram with counts and bin_nats", _is_histogram, False),
    "sample/by_position": (
        "no counts with bin_tokens, steps and, of them, kept",
        _is_by_position,
        False,
    ),
    "distill/seconds": _NUMBER,
    "distill/tuned_tokens": _NUMBER,
    "distill/optimizer_steps": _NUMBER,
    "distill/peak_memory_bytes": _NUMBER,
    "evaluate/decoder": _TEXT,
    "evaluate/seconds": _NUMBER,
    "evaluate/expert": _OBJECT,
    "evaluate/tuned": _OBJECT,
    "evaluate/gap": _OBJECT,
    "evaluate/gap/decoder": _TEXT,
    "evaluate/gap/expert": _required(_OBJECT),
    "evaluate/gap/amateur": _required(_OBJECT),
    "evaluate/gap/expert/*": _COUNTS,
    "evaluate/gap/amateur/*": _COUNTS,
    "evaluate/curve": _LIST,
    "evaluate/curve/[]": ("no point with its step and results", _is_point, True),
    "evaluate/curve/[]/results/*": _COUNTS,
}
