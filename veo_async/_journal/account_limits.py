"""
The limits that all sessions of an account share.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from attrs import field, frozen

from ..errors import ConfigurationError

if TYPE_CHECKING:
    from attrs import Attribute

__all__ = ["AccountLimits"]

_MOST: Final = 1_000_000  # the database's numbers and intervals hold more, but nobody needs it


def _number(*, low: float, whole: bool = False, optional: bool = False) -> Any:
    def check(_: object, attribute: Attribute[Any], value: Any) -> None:
        is_kind = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
        if not (is_kind and low <= value <= _MOST) and not (optional and value is None):
            kind = "a whole number" if whole else "a number"
            words = f"{kind} from {low:g} to {_MOST:,}{' or None' if optional else ''}"
            raise ConfigurationError(f"{attribute.name} must be {words}, not {value!r}")

    return check


@frozen(kw_only=True)
class AccountLimits:
    """
    What all sessions of an account may do together; the journal in PostgreSQL keeps it.

        limits = AccountLimits(submits_per_second=0.5, max_in_flight=5)  # for PostgresJournal.set_limits

    Attributes:
        submits_per_second: the highest rate of submits, from 0.000001 to 1,000,000; None for no limit.
        burst: how many submits may go at once after a quiet time, before the rate spaces them.
        max_in_flight: how many tasks may be unsettled at once, unanswered submits included; None for no limit.
    """

    submits_per_second: float | None = field(default=None, validator=_number(low=1 / _MOST, optional=True))
    burst: int = field(default=1, validator=_number(low=1, whole=True))
    max_in_flight: int | None = field(default=None, validator=_number(low=1, whole=True, optional=True))
