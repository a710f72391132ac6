"""Numbers as the tables show them."""

from __future__ import annotations

EN_DASH = "–"


def format_signed(value: float | None) -> str:
    """Returns a difference of two figures, or that there is none."""
    return EN_DASH if value is None else f"{value:+.2f}".replace("-", "−")


def count(number: int) -> str:
    """Returns a whole number, its thousands apart."""
    return f"{number:,}".replace(",", "\u00a0")


def format_three_digits(value: float) -> str:
    """Returns a figure to three digits, or to whole numbers where it has more before the point."""
    return count(round(value)) if value >= 999.5 else f"{value:.3g}"


def format_decibels(value: float | None) -> str:
    """Returns a PSNR, or that there is none."""
    return EN_DASH if value is None else f"{value:.2f}"


def format_precise_duration(seconds: float) -> str:
    """Returns a time as `format_duration` does, but in whole seconds below a minute and tenths of minutes
    below an hour: what is compared must be told apart."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else format_duration(seconds)


def format_duration(seconds: float) -> str:
    """Returns a time to read: `40 s`, `2 min`, `3 h 10 min`, `12 d`."""
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{seconds:.0f} s"
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{round(minutes / 60 / 24)} d"


def format_threads(hardware: str) -> str:
    """Returns hardware as it is read; result files of older runs say `1 format_threads`."""
    return hardware.replace(" 1 threads", " 1 thread")
