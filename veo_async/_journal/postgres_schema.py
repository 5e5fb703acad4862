"""
The journal's schema in PostgreSQL: its tables and functions.

Each function is one round trip and one transaction. `SCHEMA` stands for the schema's name.
"""

from __future__ import annotations

import re
from typing import Final

from ..errors import ConfigurationError
from .postgres_batches import BATCHES
from .postgres_budget import BUDGET
from .postgres_deliveries import DELIVERIES
from .postgres_limits import LIMITS
from .postgres_rules import RULES
from .postgres_uploads import UPLOADS

__all__ = ["INCOMPLETE", "MIGRATIONS", "OUT_OF_SESSION", "named"]

# The SQLSTATE of a call by a dead session; its process then begins another one.
OUT_OF_SESSION: Final = "VEO02"
# The SQLSTATE of a call after any session has found that facts are missing.
INCOMPLETE: Final = "VEO03"

_TABLES: Final = """
-- `system` is the server that the schema was made on; on any other it is a copy, which may lack facts.
-- `incomplete`: a session has found that confirmed facts are missing, so nobody may rely on the journal.
CREATE TABLE SCHEMA.meta (
    version integer NOT NULL,
    salt bytea NOT NULL,
    system text,
    incomplete boolean NOT NULL DEFAULT false
);

CREATE TABLE SCHEMA.account (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    digest bytea NOT NULL UNIQUE,  -- of the salted token
    submits_per_second double precision,
    burst integer,
    next_at timestamptz,
    max_in_flight integer
);

-- The id is the fencing token: it is never used twice. `dead` is final.
CREATE TABLE SCHEMA.session (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account integer NOT NULL,
    nonce uuid NOT NULL DEFAULT gen_random_uuid(),  -- a server that has lost rows may use their ids again
    name text NOT NULL,
    lease interval NOT NULL,
    begun_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at timestamptz NOT NULL,
    dead boolean NOT NULL DEFAULT false,
    written bigint NOT NULL DEFAULT 0  -- counts batches and renewals, to detect a fail-over that lost one
) WITH (fillfactor = 50);
CREATE INDEX session_alive ON SCHEMA.session (account) WHERE NOT dead;

-- One row per purchase; a key has at most one that has not failed. Indexes use digests, as texts may be long.
CREATE TABLE SCHEMA.job (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account integer NOT NULL,
    digest uuid NOT NULL,
    key text NOT NULL,
    session bigint,
    failed boolean NOT NULL DEFAULT false,
    earlier integer NOT NULL DEFAULT 0,
    intended_at double precision NOT NULL,
    accepted_at double precision,
    settled_at double precision,
    settled_by bigint,
    task_digest uuid,
    task_id text,
    trace_id text,
    attempts jsonb NOT NULL DEFAULT '[]',
    request text NOT NULL,
    outcome text
) WITH (fillfactor = 80);
CREATE UNIQUE INDEX job_open ON SCHEMA.job (account, digest) WHERE NOT failed;
CREATE INDEX job_failed ON SCHEMA.job (account, digest, id) WHERE failed;
CREATE UNIQUE INDEX job_claim ON SCHEMA.job (account, task_digest) WHERE task_digest IS NOT NULL;
-- Without the account: otherwise plans made while the table is empty would use this index to find a key.
CREATE INDEX job_unsettled ON SCHEMA.job (id) WHERE settled_at IS NULL;

-- Why a key was freed, until it is used again: another session may wait for it.
CREATE TABLE SCHEMA.refusal (
    account integer NOT NULL,
    digest uuid NOT NULL,
    key text NOT NULL,
    reason text,
    at double precision NOT NULL,
    PRIMARY KEY (account, digest)
);

-- Tasks that were paid for, but belong to no purchase.
CREATE TABLE SCHEMA.surplus (
    account integer NOT NULL,
    task_digest uuid NOT NULL,
    task_id text NOT NULL,
    trace_id text,
    key text NOT NULL,
    session bigint,
    at double precision NOT NULL,
    PRIMARY KEY (account, task_digest)
);

CREATE TABLE SCHEMA.download (
    job bigint NOT NULL,
    video_digest uuid NOT NULL,
    video_id text NOT NULL,
    path text NOT NULL,
    at double precision NOT NULL,
    PRIMARY KEY (job, video_digest)
);

-- What each session has learned; one row per session, so that none overwrites another's.
CREATE TABLE SCHEMA.learned (
    account integer NOT NULL,
    digest uuid NOT NULL,
    session bigint NOT NULL,
    kind text NOT NULL,
    data text NOT NULL,
    PRIMARY KEY (account, digest, session)
);

CREATE VIEW SCHEMA.entry AS SELECT job.*,
    (SELECT jsonb_object_agg(video_id, path) FROM SCHEMA.download WHERE download.job = job.id) AS downloads
    FROM SCHEMA.job;
"""

_FUNCTIONS: Final = """
-- See `meta.incomplete`.
CREATE FUNCTION SCHEMA.check_complete() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF (SELECT incomplete FROM SCHEMA.meta) THEN
        RAISE EXCEPTION 'facts are missing' USING ERRCODE = 'VEO03';
    END IF;
END $$;

-- A server may be configured to wait neither for its disk nor for its replica. Facts wait: money is spent after them.
CREATE FUNCTION SCHEMA.be_durable() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('synchronous_commit') = 'off' THEN
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;
END $$;

-- Tell whether a session may still hold keys. One whose lease is over is declared dead here, for good.
-- After a restart of the server, every session has one lease's time to come back.
CREATE FUNCTION SCHEMA.is_live(whom bigint) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE it SCHEMA.session;
BEGIN
    SELECT * INTO it FROM SCHEMA.session WHERE id = whom;
    IF it.id IS NULL OR it.dead THEN
        RETURN false;
    END IF;
    IF clock_timestamp() <= greatest(it.expires_at, pg_postmaster_start_time() + it.lease) THEN
        RETURN true;
    END IF;
    -- Waits for a concurrent renewal, and then checks again.
    UPDATE SCHEMA.session SET dead = true WHERE id = whom AND NOT dead AND expires_at < clock_timestamp();
    RETURN EXISTS (SELECT FROM SCHEMA.session WHERE id = whom AND NOT dead);
END $$;

-- Renew a session's lease; returns no row if the session is dead.
CREATE FUNCTION SCHEMA.renewed(me bigint) RETURNS SETOF bigint LANGUAGE sql AS $$
    UPDATE SCHEMA.session SET expires_at = clock_timestamp() + lease, written = written + 1
        WHERE id = me AND NOT dead RETURNING written
$$;

-- Count a batch of this session. To be called last, so that a transaction locks the session's row last.
CREATE FUNCTION SCHEMA.counted(me bigint) RETURNS bigint LANGUAGE sql AS $$
    UPDATE SCHEMA.session SET written = written + 1 WHERE id = me RETURNING written
$$;

CREATE FUNCTION SCHEMA.account_of(me bigint) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE it SCHEMA.session;
BEGIN
    SELECT * INTO it FROM SCHEMA.session WHERE id = me;
    IF it.id IS NULL THEN
        RAISE EXCEPTION 'session % is missing', me USING ERRCODE = 'VEO03';
    ELSIF it.dead THEN
        RAISE EXCEPTION 'session % is dead', me USING ERRCODE = 'VEO02';
    END IF;
    RETURN it.account;
END $$;

-- Notify the other sessions that a key has changed; without a key (or with a long one), that any key may have.
CREATE FUNCTION SCHEMA.tell(me bigint, its_account integer, key text) RETURNS void LANGUAGE sql AS $$
    SELECT pg_notify('SCHEMA', me || ' ' || its_account || ' '
        || CASE WHEN octet_length(key) < 7000 THEN key ELSE '' END)
$$;

-- Return the key's latest purchase: the one that has not failed, locked, or else the last failed one.
CREATE FUNCTION SCHEMA.latest(its_account integer, its_digest uuid) RETURNS SCHEMA.job LANGUAGE plpgsql AS $$
DECLARE it SCHEMA.job;
BEGIN
    SELECT * INTO it FROM SCHEMA.job
        WHERE account = its_account AND digest = its_digest AND NOT failed FOR UPDATE;
    IF it.id IS NULL THEN
        SELECT * INTO it FROM SCHEMA.job
            WHERE account = its_account AND digest = its_digest AND failed ORDER BY id DESC LIMIT 1;
    END IF;
    RETURN it;
END $$;

CREATE FUNCTION SCHEMA.last_attempt(it SCHEMA.job) RETURNS integer LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RETURN coalesce((it.attempts -> -1 ->> 'number')::integer, -1);
END $$;

CREATE FUNCTION SCHEMA.has_open_attempt(it SCHEMA.job) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RETURN it.attempts @? '$[*] ? (@.closed == null)';
END $$;

-- Take one key in, and return its standing.
CREATE FUNCTION SCHEMA.take_one(me bigint, its_account integer, item jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    it SCHEMA.job;
    top integer;
    base integer;
    is_new boolean;
BEGIN
    LOOP
        it := SCHEMA.latest(its_account, (item ->> 'digest')::uuid);
        EXIT WHEN it.id IS NOT NULL AND NOT (it.failed AND (item ->> 'retry')::boolean);
        base := greatest(it.earlier, SCHEMA.last_attempt(it), 0);
        INSERT INTO SCHEMA.job (account, digest, key, session, earlier, intended_at, request)
            VALUES (its_account, (item ->> 'digest')::uuid, item ->> 'key', me, base,
                (item ->> 'at')::double precision, item ->> 'request')
            ON CONFLICT (account, digest) WHERE NOT failed DO NOTHING RETURNING * INTO it;
        is_new := FOUND;
        EXIT WHEN is_new;  -- else another session was first
    END LOOP;
    IF it.failed OR it.settled_at IS NOT NULL THEN
        RETURN jsonb_build_object('standing', 'known', 'job', it.id);
    END IF;
    IF it.session IS DISTINCT FROM me THEN
        IF SCHEMA.is_live(it.session) THEN
            RETURN jsonb_build_object('standing', 'elsewhere', 'job', it.id);
        END IF;
        UPDATE SCHEMA.job SET session = me WHERE id = it.id;
    END IF;
    IF it.task_id IS NOT NULL OR SCHEMA.has_open_attempt(it) OR it.request <> item ->> 'request' THEN
        RETURN jsonb_build_object('standing', 'known', 'job', it.id);
    END IF;
    top := greatest(it.earlier, SCHEMA.last_attempt(it));
    IF (item ->> 'look')::boolean THEN
        -- If attempt 0, made by another process, was closed before, it is open again.
        UPDATE SCHEMA.job SET attempts = CASE top WHEN 0 THEN '[]' ELSE attempts END || SCHEMA.attempt(
                CASE top WHEN 0 THEN 0 ELSE top + 1 END, (item ->> 'at')::double precision,
                (item ->> 'mark') || CASE top WHEN 0 THEN '0' ELSE (top + 1)::text END)
            WHERE id = it.id;
    END IF;
    DELETE FROM SCHEMA.refusal WHERE account = its_account AND digest = it.digest;
    RETURN jsonb_build_object('standing', 'fresh', 'earlier', top, 'failed', it.earlier);
END $$;

-- Take keys in: all of them or, on an error, none.
CREATE FUNCTION SCHEMA.take_in(me bigint, items jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    its_account integer := SCHEMA.account_of(me);
    item jsonb;
    found jsonb;
    entry jsonb;
    standings jsonb[] := '{}';
BEGIN
    PERFORM SCHEMA.be_durable();
    PERFORM SCHEMA.check_complete();
    -- Always in the same order, so that two sessions cannot deadlock.
    FOR item IN SELECT value FROM jsonb_array_elements(items) ORDER BY value ->> 'digest' LOOP
        found := SCHEMA.take_one(me, its_account, item);
        SELECT to_jsonb(it) INTO entry FROM SCHEMA.entry AS it WHERE it.id = (found ->> 'job')::bigint;
        standings := standings || (found || jsonb_build_object('place', item -> 'place', 'entry', entry));
    END LOOP;
    RETURN jsonb_build_object('written', SCHEMA.counted(me), 'standings', to_jsonb(standings));
END $$;

-- Claim the unsettled purchases that no live session holds, and return all that this session now holds.
CREATE FUNCTION SCHEMA.claimed(me bigint) RETURNS SETOF jsonb LANGUAGE plpgsql AS $$
DECLARE its_account integer := SCHEMA.account_of(me);
BEGIN
    PERFORM SCHEMA.be_durable();
    PERFORM SCHEMA.check_complete();
    PERFORM SCHEMA.is_live(id) FROM SCHEMA.session
        WHERE account = its_account AND NOT dead AND expires_at < clock_timestamp() AND id <> me;
    PERFORM FROM SCHEMA.job WHERE account = its_account AND settled_at IS NULL
        AND NOT EXISTS (SELECT FROM SCHEMA.session WHERE session.id = job.session AND NOT dead)
        ORDER BY digest FOR UPDATE;
    UPDATE SCHEMA.job SET session = me WHERE account = its_account AND settled_at IS NULL
        AND NOT EXISTS (SELECT FROM SCHEMA.session WHERE session.id = job.session AND NOT dead);
    RETURN QUERY SELECT to_jsonb(it) FROM SCHEMA.entry AS it
        WHERE account = its_account AND settled_at IS NULL AND session = me ORDER BY id;
END $$;

-- Release all keys of a session by declaring it dead, and notify the sessions that wait.
CREATE FUNCTION SCHEMA.released(me bigint) RETURNS void LANGUAGE sql AS $$
    UPDATE SCHEMA.session SET dead = true WHERE id = me;
    SELECT SCHEMA.tell(me, account, '') FROM SCHEMA.session WHERE id = me;
$$;
"""

# Each brings the schema from the version before to its own; `meta.version` counts those that were applied.
MIGRATIONS: Final = [_TABLES + RULES + BATCHES + _FUNCTIONS, DELIVERIES, LIMITS, UPLOADS, BUDGET]


def named(sql: str, schema: str) -> str:
    """
    Put the schema's name into a statement.

    Raises:
        ConfigurationError: the name would need quotes.
    """
    if not re.fullmatch(r"[a-z_][a-z0-9_]{0,40}", schema):
        raise ConfigurationError(f"schema {schema!r} is not a name of small letters, digits and underscores")
    return sql.replace("SCHEMA", schema)
