"""
`veo-async queue`, against a real PostgreSQL.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from uuid import uuid4

import pytest

from tests.postgres.server import Postgres, do
from veo_async import JournalError, PostgresJournal
from veo_async.cli import databases

from ..terminal import Finished, Process, invoke, served, wait_for

GIVEN_UP = "UPDATE procrastinate_jobs SET status = 'failed' WHERE args ->> 'key' = 'whale'"
PARKED = """
    SELECT veo.counted_round(substr(queueing_lock, 5)::uuid, 'whale',
        '{"kind": "SubmissionUnknown", "message": "it may be bought"}', 3)
    FROM procrastinate_jobs WHERE args ->> 'key' = 'whale'
"""
SURPLUS = "INSERT INTO veo.surplus VALUES (1, gen_random_uuid(), 'a-task', NULL, 'whale', NULL, 1e9)"
# Three keys were bought: two of them long ago, one of which is still to be delivered.
BOUGHT = (
    "INSERT INTO veo.account (digest) VALUES ('')",
    """INSERT INTO veo.job (account, digest, key, intended_at, settled_at, request, outcome)
        SELECT 1, substr(queueing_lock, 5)::uuid, args ->> 'key', 1e9,
            CASE args ->> 'key' WHEN 'new' THEN extract(epoch FROM now()) ELSE 1e9 END, args ->> 'request', '{}'
        FROM procrastinate_jobs WHERE args ->> 'key' IN ('old', 'new', 'open')""",
    "INSERT INTO veo.download SELECT id, gen_random_uuid(), 'a video', key || '.mp4', 1e9 FROM veo.job WHERE key <> 'open'",
    "UPDATE procrastinate_jobs SET status = 'succeeded' WHERE args ->> 'key' IN ('old', 'new')",
    """UPDATE procrastinate_events SET at = 'epoch' WHERE job_id IN (
        SELECT id FROM procrastinate_jobs WHERE args ->> 'key' IN ('old', 'whale'))""",
)


def test_a_journal_is_set_up_once_and_again(postgres: Postgres, token: str) -> None:
    """The error of a journal without tables names the command, which makes them, and does no harm later."""
    schema = f"veo_{uuid4().hex[:12]}"

    async def use() -> None:
        journal = PostgresJournal(postgres.dsn, schema=schema)
        await journal.open(token)
        await journal.close()

    with pytest.raises(JournalError, match="veo-async queue init"):
        asyncio.run(use())
    try:
        for _ in range(2):
            made = invoke(
                "queue", "init", "--schema", schema, environment={"VEO_ASYNC_DATABASE": postgres.dsn}
            )
            assert (0, f"the tables in the schema {schema} are ready\n") == (made.status, made.err)
            asyncio.run(use())
    finally:
        do(postgres.dsn, f"DROP SCHEMA IF EXISTS {schema} CASCADE")


def test_without_workers_the_journal_alone_is_set_up(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has another engine needs nothing of procrastinate's."""
    name = f"veo_{uuid4().hex[:12]}"
    do(postgres.dsn, f"CREATE DATABASE {name}")
    dsn = postgres.dsn.replace("/postgres?", f"/{name}?")
    try:
        monkeypatch.setattr(databases, "find_spec", lambda _: None)
        assert 0 == invoke("queue", "init", "--database", dsn).status
        monkeypatch.undo()
        tables = "SELECT to_regclass('veo.job') IS NOT NULL, to_regclass('procrastinate_jobs') IS NOT NULL"
        assert [(True, False)] == do(dsn, tables)
        refused = invoke("queue", "status", "--database", dsn)
        assert (1, True) == (refused.status, "veo-async queue init" in refused.err)
        assert 0 == invoke("queue", "init", "--database", dsn).status
        assert [(True, True)] == do(dsn, tables)
    finally:
        do(postgres.dsn, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.mark.parametrize("command", [("init",), ("status",), ("wait", "whale", "owl")])
def test_a_database_that_is_not_there(command: tuple[str, ...]) -> None:
    """It is said once, in a sentence, without the password, and with the status of what failed."""
    failed = invoke("queue", *command, "--database", "postgresql://me:hidden@127.0.0.1:1/none")
    assert (1, 1) == (failed.status, failed.err.count("veo-async: "))
    assert "127.0.0.1" in failed.err
    assert "hidden" not in failed.err


def test_an_address_with_a_driver() -> None:
    """What SQLAlchemy adds to an address is to be left out, and the password is not shown."""
    failed = invoke("queue", "status", "--database", "postgresql+asyncpg://me:hidden@127.0.0.1/none")
    words = "veo-async: the journal's address is not a PostgreSQL address: leave out +asyncpg\n"
    assert (2, words) == (failed.status, failed.err)


# --- what is in it ---------------------------------------------------------------------------------------


def add(*lines: dict[str, str]) -> Finished:
    return invoke("queue", "add", "-", given="".join(f"{json.dumps(line)}\n" for line in lines))


@pytest.mark.usefixtures("database")
def test_what_is_added_twice_waits_once() -> None:
    """The keys go to stdout, in the order of the lines; a key with another request adds nothing."""
    first = add({"key": "whale", "prompt": "a whale"})
    both = add({"key": "owl", "prompt": "an owl"}, {"key": "whale", "prompt": "a whale"})
    assert ("whale\n", "1 of 1 request enqueued.\n") == (first.out, first.err)
    assert ("owl\nwhale\n", "1 of 2 requests enqueued, 1 waited already.\n") == (both.out, both.err)
    conflict = add({"key": "crane", "prompt": "a crane"}, {"key": "whale", "prompt": "another"})
    assert (2, "", True) == (conflict.status, conflict.out, "'whale'" in conflict.err)
    faulty = add({"key": "heron"}, {"prompt": "a heron", "model": ""})
    assert (2, True, True) == (faulty.status, "line 1: prompt" in faulty.err, "line 2: model" in faulty.err)
    assert "deliveries  2 waiting" in invoke("queue", "status").out


def test_what_was_bought_before_costs_nothing(database: str) -> None:
    """It is enqueued, and counted among what is enqueued; one of several still waits."""
    lines = [{"key": key, "prompt": key} for key in ("old", "new", "open")]
    add(*lines)
    do(database, *BOUGHT)
    words = "1 of 1 request enqueued, of which 1 was bought before and costs nothing.\n"
    assert words == add(lines[0]).err
    do(database, "UPDATE procrastinate_jobs SET status = 'succeeded' WHERE args ->> 'key' = 'old'")
    words = "2 of 2 requests enqueued, of which 2 were bought before and cost nothing.\n"
    assert words == add(*lines[:2]).err
    words = "0 of 3 requests enqueued, 3 waited already; of all, 3 were bought before and cost nothing.\n"
    assert words == add(*lines).err


@pytest.mark.usefixtures("database")
def test_a_failed_task_is_bought_again_on_demand(tmp_path: Path) -> None:
    """Its key ends with status 1 for who waits; a retry buys once more, and the whole story can be read."""
    with (
        served(failure_share=1.0) as server,
        Process(("worker", "--out", tmp_path), tmp_path, server.environment),
    ):
        add({"key": "whale", "prompt": "a whale", "file": "whale.mp4"})
        waited = invoke("queue", "wait", "whale")
        assert (1, True) == (waited.status, "key whale: api_error: fetch failed" in waited.err)
        again = invoke("queue", "retry", "whale", "nobody")
        assert (1, "whale: enqueued again\nnobody: not known here\n") == (again.status, again.err)
        wait_for(lambda: server.core.accepted == 2)
        record = json.loads(invoke("queue", "wait", "whale", "--json").out)
        assert ("failed", "api_error") == (record["state"], record["error"]["code"])
        wait_for(lambda: "2 done" in invoke("queue", "status").out)
        assert "2 failed" in invoke("queue", "status").out
        assert "whale\n" == (failed := invoke("queue", "keys", "--state", "failed").out)
        assert "whale: enqueued again\n" == invoke("queue", "retry", "-", given=failed).err
        wait_for(lambda: "3 done" in invoke("queue", "status").out)
    events = [json.loads(line) for line in invoke("queue", "status", "whale", "--json").out.splitlines()]
    bought = [event["details"]["task_id"] for event in events if event["what"] == "accepted"]
    assert [*server.core.tasks] == bought
    enqueued = [event["details"] for event in events if event["what"] == "enqueued"]
    assert [("whale.mp4", earlier) for earlier in (None, *bought[:2])] == [
        (its["to"], its.get("retry_of")) for its in enqueued
    ]


def test_what_waits_for_a_person_is_shown_and_enqueued_anew(database: str) -> None:
    """A key that is parked, and a task that was paid for twice; a retry takes the key up again."""
    add({"key": "whale", "prompt": "a whale"})
    assert "whale: on its way already\n" == invoke("queue", "retry", "whale").err
    do(database, GIVEN_UP, PARKED, SURPLUS)
    told = invoke("queue", "status").out
    assert "parked      key whale, error SubmissionUnknown, message it may be bought\n" in told
    assert "paid twice  key whale, task_id a-task" in told
    waited = invoke("queue", "wait", "whale")
    assert (1, True) == (waited.status, "key whale: it may be bought" in waited.err)
    story = invoke("queue", "status", "whale").out
    assert [True, True, True] == [words in story for words in ("enqueued  ", "parked  ", "paid twice  ")]
    assert "whale: enqueued again\n" == invoke("queue", "retry", "-", given="whale\n").err
    told = invoke("queue", "status").out
    assert (True, False) == ("1 waiting" in told, "parked" in told)


@pytest.mark.usefixtures("database")
def test_a_key_that_is_no_line_is_not_listed_as_one() -> None:
    """A line of it may be another key, which somebody would then buy again; JSON has it."""
    add({"key": "whale\nowl", "prompt": "a whale"}, {"key": "crane", "prompt": "a crane"})
    listed = invoke("queue", "keys", "--state", "waiting")
    words = "veo-async: 1 key with control characters left out: --json writes all\n"
    assert (0, "crane\n", words) == (listed.status, listed.out, listed.err)
    listed = invoke("queue", "keys", "--state", "waiting", "--json")
    assert ('"crane"\n"whale\\nowl"\n', "") == (listed.out, listed.err)


@pytest.mark.usefixtures("database")
def test_who_waits_for_what_nobody_has_enqueued_is_told() -> None:
    """It may be enqueued later, but is more often a slip."""

    def told(*keys: str) -> str:
        return invoke("queue", "wait", *keys, "--timeout", "0.1").err.splitlines()[0]

    add({"key": "whale", "prompt": "a whale"})
    assert told("whale").startswith("veo-async: 1 key had not ended")
    words = "veo-async: nothing is known of the key 'nosuch' yet: waiting for somebody to enqueue it"
    assert words == told("whale", "nosuch")
    words = "veo-async: nothing is known of 2 keys yet: waiting for somebody to enqueue them"
    assert words == told("whale", "nosuch", "another")


def test_what_has_not_ended_in_time(database: str) -> None:
    """Waiting ends with status 1, and the video goes on; a key that nobody knows has no story."""
    add({"key": "whale", "prompt": "a whale"})
    waited = invoke("queue", "wait", "whale", "--timeout", "0.1")
    assert (1, True) == (waited.status, "1 key had not ended after 0.1 seconds" in waited.err)
    unknown = invoke("queue", "status", "owl")
    assert (1, "veo-async: nothing is known of the key 'owl'\n") == (unknown.status, unknown.err)


def test_what_ended_long_ago_is_deleted(database: str) -> None:
    """But not what may be delivered again, what waits for a person, and what ended lately."""
    add(*({"key": key, "prompt": key} for key in ("old", "new", "open", "whale")))
    do(database, GIVEN_UP, PARKED, *BOUGHT)
    pruned = invoke("queue", "prune", "--older", "30d")
    assert (0, "deleted: 1 purchase, 0 refusals, 1 ended delivery\n") == (pruned.status, pruned.err)
    assert [("new",), ("open",)] == do(database, "SELECT key FROM veo.job ORDER BY key")
    assert [("new.mp4",)] == do(database, "SELECT path FROM veo.download")
    left = "SELECT args ->> 'key' FROM procrastinate_jobs ORDER BY 1"
    assert [("new",), ("open",), ("whale",)] == do(database, left)


@pytest.mark.parametrize(
    ("older", "words"), [("1d", "2d at least"), ("soon", "not a number of days or weeks")]
)
def test_how_long_ago_must_be_said(older: str, words: str) -> None:
    """Tasks are looked for over a day, so what ended lately cannot be deleted."""
    refused = invoke("queue", "prune", "--older", older, "--database", "postgresql:///")
    assert (2, True) == (refused.status, words in refused.err)


@pytest.mark.usefixtures("database")
def test_the_limits_of_all_workers(token: str) -> None:
    """They are shown, and set one by one; what is not named stays. They are the account's, so it needs the token."""
    account = {"ACEDATACLOUD_API_TOKEN": token}

    def limits(*options: str) -> str:
        done = invoke("queue", "limits", *options, environment=account)
        assert 0 == done.status
        return done.out

    assert "submits     no limit\nin flight   no limit\n" == limits()
    limits("--submits-per-second", "2.5", "--burst", "5", "--max-in-flight", "50")
    given = {"submits_per_second": 2.5, "burst": 5, "max_in_flight": 50}
    assert given == json.loads(limits("--json"))
    told = "submits     2.5 a second, 5 at once after a quiet time\nin flight   no limit\n"
    assert told == limits("--max-in-flight", "none")
    assert (2, True) == ((refused := invoke("queue", "limits")).status, "no token" in refused.err)
