"""
A process that writes *sending*, tells whether it may send, and once more when it is told to go on.
"""

from typing import Final

FROZEN: Final = """
import asyncio, sys
from veo_async._journal.facts import Fenced, Sending, TakeIn
from veo_async._journal.postgres import PostgresJournal

async def main():
    journal = PostgresJournal(sys.argv[1], schema=sys.argv[2], lease=2.0)
    await journal.open(sys.argv[3])
    await journal.take_in([TakeIn(key="k", request='{"prompt": "a whale"}', at=1.0)])
    await journal.write(Sending(key="k", attempt=1, at=2.0))
    print(journal.may_send("k"), flush=True)
    sys.stdin.readline()  # where it is frozen: nothing of the loop has run since
    print(journal.may_send("k"))
    try:
        await journal.write(Sending(key="k", attempt=2, at=3.0))
    except Fenced as error:
        print(type(error).__name__)
    print(journal.may_send("k"), journal.failure)
    await journal.close()

asyncio.run(main())
"""
