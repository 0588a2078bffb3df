"""The texts of table cells."""

from collections.abc import Iterable, Sequence

from lr_exp.report.analyse.paired import Estimate, Interval
from lr_exp.report.names import ABSENT

_MIN_P = 1e-4  # smaller p-values are shown as less than this
_MAX_REMARK = 70  # characters of a remark in a table; the list of runs has all of it


def percent(estimate: Estimate | None) -> str:
    """A share and the distance to the farther end of its 95 % interval, `54.2 ± 0.9`."""
    return ABSENT if estimate is None else f"{100 * estimate.mean:.1f} ± {_distance(estimate)}"


def points(estimate: Estimate | None) -> str:
    """A difference of shares and the distance to the farther end of its interval, `+11.8 ± 0.9`."""
    return ABSENT if estimate is None else f"{signed(100 * estimate.mean)} ± {_distance(estimate)}"


def with_interval(estimate: Estimate | None) -> str:
    """A difference of shares and its 95 % interval, `+11.8 (+10.9 to +12.7)`."""
    if estimate is None:
        return ABSENT
    return f"{signed(100 * estimate.mean)} ({between(estimate.ci95)})"


def change(*shares: float) -> str:
    """`42.5 → 54.2`, in percent."""
    return " → ".join(f"{100 * share:.1f}" for share in shares)


def _distance(estimate: Estimate) -> str:
    """In points; `0.03` where one decimal would be 0.0."""
    distance = 100 * max(abs(end - estimate.mean) for end in estimate.ci95)
    return f"{distance:.1f}" if distance >= 0.05 else f"{distance:.1g}"


def signed(value: float, digits: int = 1) -> str:
    """`+11.8`; zero is +0.0, never -0.0."""
    return f"{round(value, digits) + 0.0:+.{digits}f}"


def between(interval: Interval | None) -> str:
    """An interval of shares in points, `+2.1 to +9.8`."""
    if interval is None:
        return ABSENT
    digits = 1 if 100 * (interval[1] - interval[0]) >= 0.1 else 4
    return " to ".join(signed(100 * end, digits) for end in interval)


def p_value(value: float) -> str:
    """`0.031`, or `< 0.0001`."""
    return f"< {_MIN_P}" if value < _MIN_P else f"{value:.2g}"


def number(value: float | None, form: str = ".1f") -> str:
    return ABSENT if value is None else format(value, form)


def part_of(part: int, whole: int) -> str:
    """`31 of 40 (78 %)`."""
    return f"{part:,} of {whole:,}" + (f" ({100 * part / whole:.0f} %)" if whole else "")


def scaled(value: float) -> float:
    """A share in percent for a CSV file, without digits from floating-point scaling."""
    return round(100 * value, 10)


def remark(remarks: Iterable[str]) -> str:
    """A row's remarks, each truncated to fit a table."""
    return "; ".join(
        text if len(text) <= _MAX_REMARK else f"{text[: _MAX_REMARK - 1]}…" for text in remarks
    )


def asterisked(cell: str, differences: Sequence[object]) -> str:
    """A published number, with an asterisk if our run has other settings."""
    return f"{cell}*" if differences and cell != ABSENT else cell
