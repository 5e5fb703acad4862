"""
Observers for logs and OpenTelemetry: `VeoSession(observers=[OpenTelemetryObserver()])`.

`LogObserver` is part of every session; name it only to log elsewhere.
`OpenTelemetryObserver` needs `pip install 'veo-async[telemetry]'`.
"""

import typing as _typing

from .._observing.log_observer import LogObserver

if _typing.TYPE_CHECKING:
    from .open_telemetry import OpenTelemetryObserver

__all__ = ["LogObserver", "OpenTelemetryObserver"]

if not _typing.TYPE_CHECKING:  # a type checker would believe that every name is there

    def __getattr__(name: str) -> _typing.Any:
        # Whoever only logs needs no OpenTelemetry.
        if name != "OpenTelemetryObserver":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from .open_telemetry import OpenTelemetryObserver  # noqa: PLC0415

        return OpenTelemetryObserver
