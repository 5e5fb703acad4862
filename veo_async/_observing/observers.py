"""
Tells a session's observers of events, in order.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Concatenate, ParamSpec

from attrs import define, field

from ..errors import ConfigurationError
from ..events import Event, Observer
from .log_observer import LogObserver

__all__ = ["Observers", "checked"]

_P = ParamSpec("_P")

log = logging.getLogger("veo_async")


@define(eq=False)
class Observers:
    """
    A session's observers.

    Attributes:
        wall: reads the local clock, in Unix seconds.
    """

    _given: Sequence[Observer] = ()
    wall: Callable[[], float] = time.time
    _listening: list[Observer] = field(init=False)
    _log: LogObserver = field(init=False)
    _hears_all: bool = field(init=False)  # somebody listens for all events, and not just the log
    _untold: deque[Event] = field(init=False, factory=deque)
    _is_telling: bool = field(init=False, default=False)

    def __attrs_post_init__(self) -> None:
        logs = [one for one in self._given if isinstance(one, LogObserver)]
        self._log = logs[0] if logs else LogObserver()
        self._listen([*self._given] if logs else [self._log, *self._given])

    def _listen(self, observers: list[Observer]) -> None:
        self._listening = observers
        self._hears_all = any(one is not self._log for one in observers)

    def hears(self, kind: object) -> bool:
        """
        Tell whether anybody listens for events of this class.
        """
        return self._hears_all or self._log.hears(kind)

    def tell(
        self, kind: Callable[Concatenate[float, _P], Event], /, *args: _P.args, **fields: _P.kwargs
    ) -> None:
        """
        Tell all observers of an event, which is made only if anybody listens.
        """
        if self.hears(kind):
            self._untold.append(kind(self.wall(), *args, **fields))
            # While they are told of an event, an observer may cause another one: that comes after it for all.
            if not self._is_telling:
                self._tell_all()

    def _tell_all(self) -> None:
        self._is_telling = True
        try:
            while self._untold:
                event = self._untold.popleft()
                for observer in self._listening:
                    self._tell_one(observer, event)
        finally:
            self._is_telling = False

    def _tell_one(self, observer: Observer, event: Event) -> None:
        try:
            observer(event)
        except (Exception, asyncio.CancelledError) as error:
            self._listen([one for one in self._listening if one is not observer])
            name = getattr(observer, "__qualname__", type(observer).__qualname__)
            log.error("the observer %s raised, and is told nothing more", name, exc_info=error)


def checked(observers: Iterable[Observer]) -> tuple[Observer, ...]:
    """
    Check a caller's observers.

    Raises:
        ConfigurationError: they are not callables.
    """
    words = f"observers must be a list of callables, not {observers!r}"
    try:
        found = tuple(observers)
    except TypeError as error:  # it is one observer, for example
        raise ConfigurationError(words) from error
    if not all(map(callable, found)):
        raise ConfigurationError(words)
    return found
