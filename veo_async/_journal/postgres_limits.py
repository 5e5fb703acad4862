"""
The limits of an account in PostgreSQL, which hold for all of its sessions together.

An attempt that the rules allow must also be allowed by the limits when it is written down. Otherwise the verdict is
`held`, with the seconds until the rate allows it, or without them if too many tasks are in flight; nothing is written.
The server's clock decides, and a lock of the account's row makes one session wait for the other.
"""

from __future__ import annotations

from typing import Final

from .facts import HeldBack, Sending

__all__ = ["GET_LIMITS", "LIMITS", "SET_LIMITS", "held_back"]

GET_LIMITS: Final = """SELECT submits_per_second, coalesce(burst, 1), max_in_flight FROM SCHEMA.account
    WHERE id = %(account)s"""
# As if told by no session, so that all hear it, this one too.
SET_LIMITS: Final = """WITH it AS (UPDATE SCHEMA.account SET submits_per_second = %(submits_per_second)s,
    burst = %(burst)s, max_in_flight = %(max_in_flight)s WHERE id = %(account)s RETURNING id)
    SELECT SCHEMA.tell(0, id, '') FROM it"""

LIMITS: Final = """
-- When the last attempt was written, by the server's clock. A task found by `look_first` counts from when it was found.
ALTER TABLE SCHEMA.job ADD COLUMN sent_at timestamptz;
UPDATE SCHEMA.job SET sent_at = clock_timestamp() WHERE settled_at IS NULL AND attempts <> '[]';
-- No statement that looks for a key asks for a `sent_at`, so none is planned with this index.
CREATE INDEX job_sent ON SCHEMA.job (account, sent_at) WHERE settled_at IS NULL AND sent_at IS NOT NULL;

CREATE FUNCTION SCHEMA.stamp() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.sent_at := clock_timestamp();
    RETURN NEW;
END $$;

-- Attempt 0 only stands for what another process may have sent.
CREATE TRIGGER stamp BEFORE UPDATE OF attempts ON SCHEMA.job FOR EACH ROW WHEN (
    NEW.attempts -> -1 IS DISTINCT FROM OLD.attempts -> -1 AND (NEW.attempts -> -1 ->> 'number')::integer > 0
    AND NEW.attempts -> -1 ->> 'closed' IS NULL) EXECUTE FUNCTION SCHEMA.stamp();
CREATE TRIGGER stamp_found BEFORE UPDATE OF task_digest ON SCHEMA.job FOR EACH ROW WHEN (
    NEW.task_digest IS NOT NULL AND NEW.sent_at IS NULL) EXECUTE FUNCTION SCHEMA.stamp();

-- Return the account, locked, if it has limits.
CREATE FUNCTION SCHEMA.limited(its_account integer) RETURNS SETOF SCHEMA.account LANGUAGE sql AS $$
    SELECT * FROM SCHEMA.account
        WHERE id = its_account AND (submits_per_second IS NOT NULL OR max_in_flight IS NOT NULL) FOR UPDATE
$$;

-- Count the purchases that may have a task at work. After an hour one counts no more: its task may have vanished.
CREATE FUNCTION SCHEMA.in_flight(its_account integer) RETURNS bigint LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE an_hour_ago timestamptz := clock_timestamp() - interval '1 hour';
BEGIN
    RETURN (SELECT count(*) FROM SCHEMA.job
        WHERE account = its_account AND settled_at IS NULL AND sent_at > an_hour_ago
        AND (task_digest IS NOT NULL OR attempts @? '$[*] ? (@.closed == null)'));
END $$;

-- Take a turn for a submit that has just been written down; or return the verdict that it must not be.
CREATE FUNCTION SCHEMA.held(its_account integer) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    its SCHEMA.account;
    at timestamptz;
    slot double precision;
    ahead double precision;  -- seconds by which the turns that were taken are ahead of the clock
    wait double precision;
BEGIN
    SELECT * INTO its FROM SCHEMA.limited(its_account);
    at := clock_timestamp();
    IF its.max_in_flight IS NOT NULL AND its.max_in_flight < SCHEMA.in_flight(its_account) THEN
        RETURN 'held';
    ELSIF its.submits_per_second IS NULL THEN
        RETURN NULL;
    END IF;
    slot := 1 / its.submits_per_second;
    ahead := coalesce(greatest(extract(epoch FROM its.next_at - at), 0), 0);
    ahead := least(ahead, its.burst * slot);  -- it is more only if the clock was set back, or the rate raised
    wait := ahead - (its.burst - 1) * slot;
    IF wait > 0 THEN
        RETURN 'held ' || wait;
    END IF;
    UPDATE SCHEMA.account SET next_at = at + make_interval(secs => ahead + slot) WHERE id = its_account;
    RETURN NULL;
END $$;

-- A repetition changes nothing, and takes no turn. What is held is rolled back with the other facts of its writer.
ALTER FUNCTION SCHEMA.sending(SCHEMA.job, boolean, jsonb) RENAME TO sending_in_order;
CREATE FUNCTION SCHEMA.sending(it SCHEMA.job, is_mine boolean, fact jsonb) RETURNS text LANGUAGE plpgsql AS $$
DECLARE verdict text := SCHEMA.sending_in_order(it, is_mine, fact);
BEGIN
    IF verdict = 'ok' AND EXISTS (SELECT FROM SCHEMA.job WHERE id = it.id AND attempts <> it.attempts) THEN
        RETURN coalesce(SCHEMA.held(it.account), 'ok');
    END IF;
    RETURN verdict;
END $$;

-- The account is locked before any job, so that two sessions cannot deadlock. The rules then take fact by fact.
ALTER FUNCTION SCHEMA.takes_together(bigint, integer, jsonb) RENAME TO takes_unlimited_together;
CREATE FUNCTION SCHEMA.takes_together(me bigint, its_account integer, works jsonb) RETURNS boolean
LANGUAGE plpgsql AS $$
BEGIN
    IF works @? '$[*][*][0] ? (@ == "sending")' AND EXISTS (SELECT FROM SCHEMA.limited(its_account)) THEN
        RETURN false;
    END IF;
    RETURN SCHEMA.takes_unlimited_together(me, its_account, works);
END $$;
"""


def held_back(fact: Sending, verdict: str) -> HeldBack:
    """
    Make the error for an attempt that the limits do not allow.
    """
    seconds = verdict.removeprefix("held")
    return HeldBack(
        "the limits that all sessions of the account share allow no submit now",
        key=fact.key,
        seconds=float(seconds) if seconds else None,
    )
