"""
Batches of facts in PostgreSQL: an ordinary batch takes one statement per kind of fact, and no call of a rule.

A statement changes a row only if its fact is new and in order, and this session may write it.
If a fact changes no row, all are rolled back, and `postgres_rules` checks each.
"""

from __future__ import annotations

from typing import Final

__all__ = ["BATCHES"]

BATCHES: Final = """
-- Take facts that are new and in order, each of another key, in one statement per kind: most batches are like that.
-- Plans are made while the tables are small, and kept: without these settings they would scan the whole table later.
CREATE FUNCTION SCHEMA.takes_together(me bigint, its_account integer, works jsonb) RETURNS boolean
LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    facts jsonb[];
    kinds text[];
    wanted bigint;
    distinct_keys bigint;
    found_rows bigint;
    found bigint := 0;
    its_key text;
BEGIN
    SELECT array_agg(each.value ORDER BY work.ordinality, each.ordinality), array_agg(DISTINCT each.value ->> 0),
            count(*), count(DISTINCT each.value ->> 1)
        INTO facts, kinds, wanted, distinct_keys
        FROM jsonb_array_elements(works) WITH ORDINALITY AS work,
            jsonb_array_elements(work.value) WITH ORDINALITY AS each;
    IF distinct_keys < wanted OR NOT kinds <@ ARRAY['intended', 'sending', 'accepted', 'settled'] THEN
        RETURN false;
    END IF;
    IF 'intended' = ANY (kinds) THEN
        INSERT INTO SCHEMA.job (account, digest, key, session, earlier, intended_at, request)
            SELECT its_account, (fact ->> 1)::uuid, fact ->> 2, me, coalesce((
                SELECT greatest(earlier, (attempts -> -1 ->> 'number')::integer, 0) FROM SCHEMA.job
                WHERE account = its_account AND digest = (fact ->> 1)::uuid AND failed ORDER BY id DESC LIMIT 1), 0),
                (fact ->> 5)::double precision, fact ->> 3
            FROM unnest(facts) AS fact WHERE fact ->> 0 = 'intended'
            ON CONFLICT (account, digest) WHERE NOT failed DO NOTHING;
        GET DIAGNOSTICS found = ROW_COUNT;
        DELETE FROM SCHEMA.refusal USING unnest(facts) AS fact
            WHERE account = its_account AND digest = (fact ->> 1)::uuid AND fact ->> 0 = 'intended';
    END IF;
    IF 'sending' = ANY (kinds) THEN
        UPDATE SCHEMA.job SET attempts = attempts || jsonb_build_object('number', (fact ->> 6)::integer,
                'at', (fact ->> 5)::double precision, 'mark', fact ->> 4, 'closed', NULL)
            FROM unnest(facts) AS fact
            WHERE account = its_account AND digest = (fact ->> 1)::uuid AND fact ->> 0 = 'sending'
            AND NOT failed AND session = me AND task_digest IS NULL
            AND coalesce((attempts -> -1 ->> 'number')::integer, -1) < (fact ->> 6)::integer;
        GET DIAGNOSTICS found_rows = ROW_COUNT;
        found := found + found_rows;
    END IF;
    IF 'accepted' = ANY (kinds) THEN
        UPDATE SCHEMA.job SET task_id = fact ->> 3, trace_id = fact ->> 4, task_digest = (fact ->> 7)::uuid,
                accepted_at = (fact ->> 5)::double precision
            FROM unnest(facts) AS fact
            WHERE account = its_account AND digest = (fact ->> 1)::uuid AND fact ->> 0 = 'accepted'
            AND NOT failed AND task_digest IS NULL;
        GET DIAGNOSTICS found_rows = ROW_COUNT;
        found := found + found_rows;
    END IF;
    IF 'settled' = ANY (kinds) THEN
        FOR its_key IN UPDATE SCHEMA.job SET failed = (fact ->> 6)::boolean, outcome = fact ->> 3,
                settled_at = (fact ->> 5)::double precision, settled_by = me
            FROM unnest(facts) AS fact
            WHERE account = its_account AND digest = (fact ->> 1)::uuid AND fact ->> 0 = 'settled'
            AND NOT failed AND accepted_at IS NOT NULL AND settled_at IS NULL RETURNING key
        LOOP
            PERFORM SCHEMA.tell(me, its_account, its_key);
            found := found + 1;
        END LOOP;
    END IF;
    IF found < wanted THEN
        RAISE EXCEPTION 'wrong' USING ERRCODE = 'VEO01';
    END IF;
    RETURN true;
EXCEPTION WHEN SQLSTATE 'VEO01' OR unique_violation THEN
    RETURN false;
END $$;
"""
