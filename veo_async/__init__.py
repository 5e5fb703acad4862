"""
Await videos from Google's Veo on Ace Data Cloud.

    async with VeoSession() as veo:
        result = await veo.submit(TextToVideo("a whale breaching at golden hour"))
        await veo.download(result.video, "whale.mp4")
"""

import importlib as _importlib
import typing as _typing

__version__ = "0.1.0"

if _typing.TYPE_CHECKING:
    from ._surface import *  # noqa: F403
    from ._surface import __all__ as __all__
else:

    def __getattr__(name: str) -> _typing.Any:
        # pytest imports this package at each start, for its plugin: whoever asks for no name waits for none.
        if name.startswith("__") and name != "__all__":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(_importlib.import_module("._surface", __name__), name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__getattr__("__all__")})
