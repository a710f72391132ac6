"""Numbers as the tables print them.

A missing figure is an en dash, a negative one has a minus sign instead of a hyphen, and a no-break
space separates the thousands.
"""

from __future__ import annotations

EN_DASH = "–"


def format_signed(value: float | None) -> str:
    """Return a difference with its sign and two decimals, or a dash if there is none."""
    return EN_DASH if value is None else f"{value:+.2f}".replace("-", "−")


def format_count(number: int) -> str:
    """Return a whole number with a no-break space between its thousands."""
    return f"{number:,}".replace(",", "\u00a0")


def format_three_digits(value: float) -> str:
    """Return a value to three significant digits, or as a whole number if it has more."""
    # From 999.5 on, `.3g` would round to four digits and write an exponent.
    return format_count(round(value)) if value >= 999.5 else f"{value:.3g}"


def format_decibels(value: float | None) -> str:
    """Return a PSNR with two decimals, or a dash if there is none."""
    return EN_DASH if value is None else f"{value:.2f}"


def format_precise_duration(seconds: float) -> str:
    """Return a duration for a comparison: `40 s`, `2.1 min`, `3 h 10 min`.

    Whole minutes, as `format_duration` writes them, would make short trainings look equal.
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else format_duration(seconds)


def format_duration(seconds: float) -> str:
    """Return a duration in its largest units: `40 s`, `2 min`, `3 h 10 min`, `12 d`."""
    # Round before choosing the unit, so that 3599 s are one hour and not 60 min.
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{seconds:.0f} s"
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{round(minutes / 60 / 24)} d"


def format_threads(hardware: str) -> str:
    """Return the name of the hardware with `1 thread` in the singular.

    Result files of older runs say `1 threads`.
    """
    return hardware.replace(" 1 threads", " 1 thread")
