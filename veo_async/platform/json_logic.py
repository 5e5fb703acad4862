"""
The few operators of JsonLogic that the platform's price list uses; any other one is unknown, and never guessed.

JsonLogic writes a rule as an object with one operator: `{"==": [{"var": "model"}, "veo31"]}`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

__all__ = ["UnknownRule", "evaluate", "is_true"]

DEEPEST: Final = 32  # levels of a rule
LONGEST_PLACE: Final = 10  # digits of a place in a list


class UnknownRule(Exception):
    """
    The rule uses an operator, or compares values, in a way that is not understood here.
    """


def evaluate(rule: object, data: object, *, depth: int = 0) -> Any:
    """
    Return the value of a rule for this data.

    Raises:
        UnknownRule: it is not understood.
    """
    if depth > DEEPEST:
        raise UnknownRule("the rule is nested too deep")
    if isinstance(rule, list):
        return [evaluate(one, data, depth=depth + 1) for one in rule]
    if not isinstance(rule, dict) or not rule:
        return rule
    if len(rule) != 1:
        raise UnknownRule(f"a rule has one operator, not {len(rule)}")
    [(name, values)] = rule.items()
    given = values if isinstance(values, list) else [values]
    if name in _LAZY:
        return _LAZY[name](given, lambda one: evaluate(one, data, depth=depth + 1))
    found = [evaluate(one, data, depth=depth + 1) for one in given]
    return _variable(data, *found) if name == "var" else _applied(name, found)


def is_true(value: object) -> bool:
    """
    Tell whether JsonLogic takes a value for true; an empty list is false there, and the text "0" is true.
    """
    return bool(value)


def _applied(name: str, values: Sequence[Any]) -> Any:
    operator, count = _OPERATORS.get(name), len(values)
    if operator is None:
        raise UnknownRule(f"the operator {name!r} is not known")
    try:
        return operator(*values)
    except TypeError as error:  # another number of values, or values of other types
        raise UnknownRule(f"the operator {name!r} with {count} values is not understood") from error


# --- operators -------------------------------------------------------------------------------------------


def _variable(data: object, path: object = "", default: object = None) -> object:
    if not isinstance(path, str | int) or isinstance(path, bool):
        raise UnknownRule(f"a variable's name is a text, not {path!r}")
    for name in str(path).split(".") if path != "" else ():
        if isinstance(data, Mapping):
            data = data.get(name)
        elif isinstance(data, list):
            place = int(name) if name.isdecimal() and len(name) < LONGEST_PLACE else len(data)
            data = data[place] if place < len(data) else None
        else:
            data = None
    return default if data is None else data


def _kind(value: object) -> type | None:
    if value is None:
        return None
    kinds = (bool, str, list, dict)  # a bool is an int in Python, and no number in JSON
    return next((kind for kind in kinds if isinstance(value, kind)), float)


def _equal(one: object, other: object) -> bool:
    """
    Compare loosely, as `==` in JavaScript, but only where that needs no conversion.
    """
    if _kind(one) is not _kind(other) and one is not None and other is not None:
        raise UnknownRule(f"{one!r} and {other!r} are of different types")
    return one == other


def _same(one: object, other: object) -> bool:
    return _kind(one) is _kind(other) and one == other


def _in(one: object, many: object) -> bool:
    if isinstance(many, str):
        return isinstance(one, str) and one in many
    if many is None:
        return False
    if not isinstance(many, list):
        raise UnknownRule(f"nothing can be in {many!r}")
    return any(_same(one, other) for other in many)


def _ordered(compare: Callable[[Any, Any], bool]) -> Callable[..., bool]:
    def check(*values: Any) -> bool:
        if not 2 <= len(values) <= 3 or any(_kind(value) is not float for value in values):
            raise UnknownRule("only numbers are compared by size")
        return all(compare(*pair) for pair in pairwise(values))

    return check


_OPERATORS: Final[Mapping[str, Callable[..., Any]]] = {
    "==": _equal,
    "!=": lambda one, other: not _equal(one, other),
    "===": _same,
    "!==": lambda one, other: not _same(one, other),
    "!": lambda one: not is_true(one),
    "!!": is_true,
    "in": _in,
    "<": _ordered(lambda one, other: one < other),
    "<=": _ordered(lambda one, other: one <= other),
    ">": _ordered(lambda one, other: one > other),
    ">=": _ordered(lambda one, other: one >= other),
}


# These evaluate no more than they need, so that an unknown rule matters only where it decides.


def _all_of(rules: Sequence[object], value_of: Callable[[object], Any]) -> Any:
    found: Any = None
    for rule in rules:
        found = value_of(rule)
        if not is_true(found):
            break
    return found


def _any_of(rules: Sequence[object], value_of: Callable[[object], Any]) -> Any:
    found: Any = None
    for rule in rules:
        found = value_of(rule)
        if is_true(found):
            break
    return found


def _choice(rules: Sequence[object], value_of: Callable[[object], Any]) -> Any:
    """
    Return the value after the first condition that holds, or the last one, which has none.
    """
    for place in range(0, len(rules) - 1, 2):
        if is_true(value_of(rules[place])):
            return value_of(rules[place + 1])
    return value_of(rules[-1]) if len(rules) % 2 else None


_LAZY: Final[Mapping[str, Callable[[Sequence[object], Callable[[object], Any]], Any]]] = {
    "and": _all_of,
    "or": _any_of,
    "if": _choice,
    "?:": _choice,
}
