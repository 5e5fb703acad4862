"""
Notes whether the API takes a worker's token, as the ends of its deliveries show.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from attrs import define

from .. import ApiError, AuthenticationError, TrackingLost

__all__ = ["REFUSED", "TokenWatch"]

_LOG: Final = logging.getLogger("veo_async")
REFUSED: Final = (AuthenticationError, TrackingLost)


@define(eq=False)
class TokenWatch:
    """
    Whether the API refuses the token; said once, and not for each key.

    Attributes:
        is_refused: the last delivery that was answered ended with a refusal of the token.
    """

    is_refused: bool = False

    @contextmanager
    def watching(self) -> Iterator[None]:
        """
        Learn from the end of a delivery, which is made in the block.
        """
        try:
            yield
        except REFUSED as error:
            self._refuse(error)
            raise
        except ApiError:
            self.is_refused = False
            raise
        else:
            self.is_refused = False

    def _refuse(self, error: Exception) -> None:
        if not self.is_refused:
            _LOG.error(
                "the API refuses this worker's token, so what it takes is delivered again later,"
                " and other workers go on: %s",
                error,
            )
        self.is_refused = True
