"""When the timer fires: a cron expression, or a systemd calendar expression, as systemd understands it.

Cron's five fields are those of crontab(5); what comes of them is written as systemd.time(7) has it, "Calendar Events".
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_NICKNAMES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat")

_CALENDAR = re.compile(r"[A-Za-z0-9*,./:~_+-]+( [A-Za-z0-9*,./:~_+-]+){0,3}")
"""What a calendar expression is made of: weekdays, date, time and time zone."""


@dataclass(frozen=True, slots=True)
class _Field:
    """A field of a cron expression; of days of the week, 7 is Sunday too."""

    what: str
    first: int
    last: int
    names: tuple[str, ...] = ()


_FIELDS = (
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of the month", 1, 31),
    _Field("month", 1, 12, _MONTHS),
    _Field("day of the week", 0, 7, tuple(day.lower() for day in _DAYS)),
)


def calendar(schedule: str) -> tuple[str, ...]:
    """Give the OnCalendar= expressions of a schedule; none of an empty one, which is off.

    Raises ValueError with a sentence that says what is wrong. Of a systemd expression only systemd itself knows
    whether it is one; what can't be any is told here.
    """
    text = schedule.strip()
    if not text:
        return ()
    if text.startswith("@"):
        if text not in _NICKNAMES:
            raise ValueError(f"{text} is no schedule; there are {', '.join(_NICKNAMES)}")
        text = _NICKNAMES[text]
    words = text.split()
    if len(words) == len(_FIELDS):
        return _from_cron(words)
    if not _CALENDAR.fullmatch(text) or text.isdigit():
        raise ValueError(
            f"{schedule!r} is no schedule: write a cron expression such as `0 3 * * *` (minute, hour, day, month,"
            " weekday) or a systemd calendar expression such as `daily`"
        )
    return (text,)


def _from_cron(words: list[str]) -> tuple[str, ...]:
    values = [_values(word, field) for word, field in zip(words, _FIELDS, strict=True)]
    minutes, hours, days, months = (
        _listed(found, field) for found, field in zip(values[:4], _FIELDS[:4], strict=True)
    )
    on = sorted({day % 7 for day in values[4]})
    weekdays = "" if len(on) == len(_DAYS) else f"{','.join(_DAYS[day] for day in on)} "
    time = f"{hours}:{minutes}:00"
    if weekdays and days != "*" and not words[2].startswith("*") and not words[4].startswith("*"):
        # crontab(5): where both days are given, either will do; systemd wants both, unless they are two expressions.
        return (f"*-{months}-{days} {time}", f"{weekdays}*-{months}-* {time}")
    return (f"{weekdays}*-{months}-{days} {time}",)


def _listed(values: list[int], field: _Field) -> str:
    if len(values) == field.last - field.first + 1:
        return "*"
    return ",".join(f"{value:02}" for value in values)


def _values(text: str, field: _Field) -> list[int]:
    """The values that a field stands for, sorted."""
    found: set[int] = set()
    for part in text.lower().split(","):
        span, slash, step = part.partition("/")
        if slash and not (step.isdecimal() and 0 < int(step) <= field.last):
            raise ValueError(f"{text!r} is no {field.what}: {step!r} is no step")
        if span == "*":
            low, high = field.first, field.last
        else:
            first, dash, last = span.partition("-")
            low = _value(first, text, field)
            high = _value(last, text, field) if dash else field.last if slash else low
        if low > high:
            raise ValueError(f"{text!r} is no {field.what}: {span} goes backwards")
        found.update(range(low, high + 1, int(step or 1)))
    return sorted(found)


def _value(word: str, text: str, field: _Field) -> int:
    if word in field.names:
        return field.first + field.names.index(word)
    if word.isdecimal() and field.first <= int(word) <= field.last:
        return int(word)
    names = f" or {field.names[0]} to {field.names[-1]}" if field.names else ""
    raise ValueError(f"{text!r} is no {field.what}: it goes from {field.first} to {field.last}{names}")
