"""
The pytest plugin: a program that uses Veo is tested without paying, and in milliseconds.

    async def test_my_program(veo_simulator):
        veo_simulator.script(prompt="*storm*", fails="forbidden")
        await my_program()  # makes its own VeoSession()
        veo_simulator.assert_bought_once()

Enter at `plugin`, which has the fixtures. `simulated` is what a test holds, `purchases` what was bought, and `clock`
the time that jumps; `around` wraps a test, `in_memory` takes the network's place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .clock import VeoClock
    from .purchases import Purchase
    from .simulated import VeoSimulator

__all__ = ["Purchase", "VeoClock", "VeoSimulator"]

if not TYPE_CHECKING:  # pytest imports this package at its start, for tests which need none of it

    def __getattr__(name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from . import clock, purchases, simulated  # noqa: PLC0415

        return next(vars(room)[name] for room in (clock, purchases, simulated) if name in room.__all__)
