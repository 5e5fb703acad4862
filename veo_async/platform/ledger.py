"""
Reads the account's ledger: what was deducted for each call of the API.
"""

from __future__ import annotations

from typing import Final

from .._api.requests import REQUEST_TYPES
from ..errors import PlatformError
from .answers import Charge, Ledger, charges_in, records_of
from .connection import Connection

__all__ = ["read_ledger"]

APIS: Final = "/api/v1/apis/"  # [C] the vendor's web app; the contract of one endpoint, and its price list
USAGE: Final = "/api/v1/usage/apis/"  # [C] the vendor's account server
ROWS: Final = 100  # [C] the most in one answer
PAGES: Final = 200  # of one endpoint: 20,000 rows


async def read_ledger(connection: Connection) -> Ledger:
    """
    Read the rows of Veo's endpoints.

    Raises:
        PlatformError: there is no answer, or it does not name the endpoints.
    """
    charges: list[Charge] = []
    complete = found = True
    for endpoint in dict.fromkeys(kind.endpoint for kind in REQUEST_TYPES.values()):
        api_id = await _id_of(connection, endpoint)
        found = found and (api_id is not None or endpoint != "/veo/videos")
        if api_id is not None:
            rows, whole = await _rows(connection, api_id)
            charges += rows
            complete = complete and whole
    if not found:
        raise PlatformError("the platform does not name the API, so its charges cannot be told from others")
    return Ledger(charges, complete)


async def _id_of(connection: Connection, endpoint: str) -> str | None:
    for record in records_of(await connection.get(APIS, {"path": endpoint})):
        if isinstance(record.get("id"), str):
            return str(record["id"])
    return None


async def _rows(connection: Connection, api_id: str) -> tuple[list[Charge], bool]:
    """
    Read page by page, until one is short or shows nothing new.
    """
    rows: dict[object, Charge] = {}
    for page in range(PAGES):
        query = {"api_id": api_id, "limit": str(ROWS), "offset": str(page * ROWS)}
        some = charges_in(await connection.get(USAGE, query, with_token=True))
        before = len(rows)
        rows |= {one.id or (one.task_id, one.trace_id, one.created_at): one for one in some}
        if len(some) < ROWS or len(rows) == before:
            return [*rows.values()], True
    return [*rows.values()], False
