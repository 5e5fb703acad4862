"""
The API's HTTP: a submit is sent once, a query is repeated after failures.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Mapping
from http import HTTPStatus
from itertools import islice
from random import Random
from typing import Any, Final

from attrs import Factory, define, field

from .._api.replies import read_answer, server_time
from .._observing.observers import Observers
from .._policies import RetryPolicy
from ..errors import RateLimited, ServerError, TransportError
from .clock import ServerClock
from .limiter import Limiter, report
from .outage import Outage
from .transport import Outgoing, Reply, Transport

__all__ = ["Http"]

TASKS_PATH: Final = "/veo/tasks"
READ_TRIES: Final = 6  # about half a minute with the default policy, enough for a gateway to restart


@define(eq=False)
class Http:
    """
    The API at one base URL.
    """

    transport: Transport
    base_url: str
    polls: Limiter
    retry: RetryPolicy
    clock: ServerClock = field(factory=ServerClock)
    observers: Observers = field(factory=Observers)
    outage: Outage = field(init=False, default=Factory(lambda self: Outage(self.observers), takes_self=True))
    requests: Counter[str] = field(init=False, factory=Counter)
    answered: int = field(init=False, default=0)  # queries
    admitted: bool = field(init=False, default=False)  # whether the token is good, as far as is known
    retries: int = field(init=False, default=0)
    random: Random = field(factory=Random, repr=False)

    async def post(self, path: str, outgoing: Outgoing, *, kind: str) -> Reply:
        """
        Send a POST once.

        Raises:
            TransportError: no answer came.
        """
        self.requests[kind] += 1
        now, url = asyncio.get_running_loop().time, self.base_url + path
        sent_at = now()
        try:
            reply = await self.transport.send("POST", url, outgoing)
        except TransportError as error:
            self.outage.failed(str(error), sent_at=sent_at, now=now())
            raise
        received_at = now()
        if reply.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            self.outage.failed(f"{url} answers {reply.status}", sent_at=sent_at, now=received_at)
        else:
            self.outage.answered(received_at)
        self.admitted |= HTTPStatus.OK <= reply.status < HTTPStatus.MULTIPLE_CHOICES
        date = server_time(reply.headers)
        if date is not None:
            self.clock.note(date, sent_at=sent_at, received_at=received_at)
        return reply

    async def ask(self, question: Mapping[str, Any]) -> Any:
        """
        Query `/veo/tasks` once, as soon as the poll lane's gate is open.

        Raises:
            ApiError: the server answered with an error.
            TransportError: no answer came, or it was not the API's.
        """
        return await self.exchange(question, entered_at=await self.polls.enter())

    async def exchange(
        self, question: Mapping[str, Any], *, entered_at: float, any_depth: bool = False
    ) -> Any:
        """
        Query `/veo/tasks` once, after the gate was entered, and report the outcome to the gate.

        Args:
            entered_at: when the gate was entered, on the event loop's clock.
            any_depth: skip the check of the nesting depth; the caller checks the parts that it keeps.

        Raises:
            ApiError: the server answered with an error.
            TransportError: no answer came, or it was not the API's.
        """
        outgoing = Outgoing(json.dumps(question).encode())
        error: BaseException | None = None
        try:
            reply = await self.post(TASKS_PATH, outgoing, kind=_kind_of(question))
            answer = read_answer(*reply, any_depth=any_depth)
            self.answered += 1
            return answer
        except BaseException as caught:
            error = caught
            raise
        finally:
            report(self.polls, error, left=outgoing.left, sent_at=entered_at)

    async def read(self, question: Mapping[str, Any]) -> Any:
        """
        Query `/veo/tasks`, up to `READ_TRIES` times if the network or the server fails.

        Raises:
            ApiError: the server answered with an error.
            TransportError: no answer came, or it was not the API's.
        """
        for delay in islice(self.retry.delays(self.random), READ_TRIES - 1):
            try:
                return await self.ask(question)
            except RateLimited:
                pass  # the gate makes the next attempt wait
            except (ServerError, TransportError):
                await asyncio.sleep(delay)
            self.retries += 1
        return await self.ask(question)


def _kind_of(question: Mapping[str, Any]) -> str:
    if question["action"] == "retrieve":
        return "retrieve"
    return "retrieve_batch" if "ids" in question else "list"
