"""
What workers add to the journal's schema: deliveries enqueued once, and those that only a person can help.

The deliveries themselves are rows of procrastinate's own table, which is found by the connection's search path.
"""

from __future__ import annotations

from typing import Final

__all__ = ["DELIVERIES"]

DELIVERIES: Final = """
-- To find what has settled lately, and what is old enough to be pruned.
CREATE INDEX job_settled ON SCHEMA.job (settled_at) WHERE settled_at IS NOT NULL;

-- How often a delivery has ended without telling what became of its purchase, and why; after some rounds it is given
-- up, since a person has to look at it, and who waits for the key is told why.
CREATE TABLE SCHEMA.parked (
    digest uuid PRIMARY KEY,
    key text NOT NULL,
    reason text NOT NULL,
    rounds integer NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Count one more round of a key, or several at once; returns how many there were.
CREATE FUNCTION SCHEMA.counted_round(its_digest uuid, its_key text, why text, more integer) RETURNS integer
LANGUAGE sql AS $$
    SELECT pg_notify('SCHEMA', '0 0 ' || CASE WHEN octet_length(its_key) < 7000 THEN its_key ELSE '' END);
    INSERT INTO SCHEMA.parked (digest, key, reason, rounds) VALUES (its_digest, its_key, why, more)
        ON CONFLICT (digest) DO UPDATE SET rounds = parked.rounds + more, reason = why, at = clock_timestamp()
        RETURNING rounds
$$;

-- Return a key among the items that stands for another request already, or null.
CREATE FUNCTION SCHEMA.conflict(items jsonb) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    RETURN (SELECT args ->> 'key' FROM jsonb_to_recordset(items) AS it(digest uuid, lock text, args jsonb)
        WHERE EXISTS (SELECT FROM procrastinate_jobs AS delivery WHERE delivery.status = 'todo'
                AND delivery.queueing_lock = it.lock AND delivery.args ->> 'request' <> it.args ->> 'request')
            OR EXISTS (SELECT FROM SCHEMA.account, SCHEMA.job WHERE job.account = account.id
                AND job.digest = it.digest AND NOT job.failed AND job.request <> it.args ->> 'request')
        LIMIT 1);
END $$;

-- Enqueue the items that do not wait for delivery already; if a key conflicts, none.
CREATE FUNCTION SCHEMA.enqueued(queue text, task text, its_priority integer, items jsonb) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    added integer;
    conflicting text := SCHEMA.conflict(items);
BEGIN
    IF conflicting IS NOT NULL THEN
        RETURN jsonb_build_object('conflict', conflicting);
    END IF;
    -- Always in the same order, so that two transactions cannot deadlock.
    INSERT INTO procrastinate_jobs (queue_name, task_name, priority, queueing_lock, args)
        SELECT queue, task, its_priority, lock, args
        FROM jsonb_to_recordset(items) AS it(digest uuid, lock text, args jsonb) ORDER BY lock
        ON CONFLICT (queueing_lock) WHERE status = 'todo' DO NOTHING;
    GET DIAGNOSTICS added = ROW_COUNT;
    conflicting := SCHEMA.conflict(items);
    IF conflicting IS NOT NULL THEN  -- another transaction has just committed
        RAISE EXCEPTION '%', conflicting USING ERRCODE = 'VEO04';
    END IF;
    -- Whoever waits is to hear how the key ends now, not how it ended before.
    DELETE FROM SCHEMA.parked USING jsonb_to_recordset(items) AS it(digest uuid) WHERE parked.digest = it.digest;
    DELETE FROM SCHEMA.refusal USING SCHEMA.account, jsonb_to_recordset(items) AS it(digest uuid)
        WHERE refusal.account = account.id AND refusal.digest = it.digest;
    RETURN jsonb_build_object('added', added);
END $$;
"""
