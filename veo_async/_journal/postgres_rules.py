"""
The rules in PostgreSQL of which fact may follow which: those of `sqlite_store`, and which session may write a fact.

Facts that precede spending (*intended*, *sending*, *withdrawn*) are fenced: only the key's holder may write them.
All others report money that is already spent, so any session may write them, however late.
"""

from __future__ import annotations

from typing import Final

__all__ = ["RULES"]

# A fact is an array: kind, digest, key, one, two, at, number, the digest of the task or the video.
# Each rule locks the key's row, so that one of two sessions waits for the other.
RULES: Final = """
CREATE FUNCTION SCHEMA.attempt(number integer, at double precision, mark text) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RETURN jsonb_build_object('number', number, 'at', at, 'mark', mark, 'closed', NULL);
END $$;

-- The verdicts: ok (also for a repetition), fenced, claimed, surplus, later (it has ended already), order.
CREATE FUNCTION SCHEMA.take_fact(me bigint, its_account integer, is_dead boolean, fact jsonb) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
    kind text := fact ->> 0;
    its_digest uuid := (fact ->> 1)::uuid;
    it SCHEMA.job;
    is_mine boolean;
BEGIN
    IF kind = 'learned' THEN
        INSERT INTO SCHEMA.learned (account, digest, session, kind, data)
            VALUES (its_account, its_digest, me, fact ->> 2, fact ->> 3)
            ON CONFLICT (account, digest, session) DO UPDATE SET data = excluded.data;
        RETURN 'ok';
    END IF;
    it := SCHEMA.latest(its_account, its_digest);
    is_mine := it.session = me AND NOT is_dead;
    CASE kind
        WHEN 'intended' THEN RETURN SCHEMA.intended(me, its_account, is_dead, it, fact);
        WHEN 'sending' THEN RETURN SCHEMA.sending(it, is_mine, fact);
        WHEN 'closed' THEN RETURN SCHEMA.closed(me, its_account, it, fact);
        WHEN 'accepted' THEN RETURN SCHEMA.accepted(its_account, it, fact);
        WHEN 'disowned' THEN RETURN SCHEMA.disowned(it, fact);
        WHEN 'settled' THEN RETURN SCHEMA.settled(me, its_account, it, fact);
        WHEN 'downloaded' THEN RETURN SCHEMA.downloaded(it, fact);
        WHEN 'withdrawn' THEN RETURN SCHEMA.withdrawn(me, its_account, it, is_mine);
    END CASE;
END $$;

CREATE FUNCTION SCHEMA.intended(me bigint, its_account integer, is_dead boolean, it SCHEMA.job, fact jsonb)
RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    IF it.id IS NOT NULL AND NOT it.failed THEN
        IF it.settled_at IS NULL AND (is_dead OR it.session IS DISTINCT FROM me) THEN
            RETURN 'fenced';
        END IF;
        RETURN CASE WHEN it.request = fact ->> 3 THEN 'ok' ELSE 'order' END;
    END IF;
    IF is_dead THEN
        RETURN 'fenced';
    END IF;
    INSERT INTO SCHEMA.job (account, digest, key, session, earlier, intended_at, request)
        VALUES (its_account, (fact ->> 1)::uuid, fact ->> 2, me,
            greatest(it.earlier, SCHEMA.last_attempt(it), 0), (fact ->> 5)::double precision, fact ->> 3)
        ON CONFLICT (account, digest) WHERE NOT failed DO NOTHING;
    IF NOT FOUND THEN
        RETURN 'fenced';  -- another session was first
    END IF;
    DELETE FROM SCHEMA.refusal WHERE account = its_account AND digest = (fact ->> 1)::uuid;
    RETURN 'ok';
END $$;

CREATE FUNCTION SCHEMA.sending(it SCHEMA.job, is_mine boolean, fact jsonb) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    is_known boolean := it.attempts @> jsonb_build_array(jsonb_build_object('number', (fact ->> 6)::integer,
        'at', (fact ->> 5)::double precision, 'mark', fact ->> 4));
BEGIN
    IF it.id IS NULL OR it.failed THEN
        RETURN CASE WHEN is_known THEN 'ok' ELSE 'order' END;
    ELSIF NOT is_mine THEN
        RETURN 'fenced';
    ELSIF is_known THEN
        RETURN 'ok';
    ELSIF it.task_id IS NOT NULL OR (fact ->> 6)::integer <= SCHEMA.last_attempt(it) THEN
        RETURN 'order';
    END IF;
    UPDATE SCHEMA.job SET attempts = attempts
        || SCHEMA.attempt((fact ->> 6)::integer, (fact ->> 5)::double precision, fact ->> 4) WHERE id = it.id;
    RETURN 'ok';
END $$;

-- A refusal frees the key, unless another session holds it, or another attempt was accepted.
CREATE FUNCTION SCHEMA.closed(me bigint, its_account integer, it SCHEMA.job, fact jsonb) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
    place integer;
    was text;
BEGIN
    IF it.id IS NULL THEN
        RETURN CASE WHEN fact ->> 3 = 'refused' THEN 'ok' ELSE 'order' END;
    ELSIF it.failed THEN
        RETURN 'ok';
    END IF;
    SELECT ordinality - 1, value ->> 'closed' INTO place, was
        FROM jsonb_array_elements(it.attempts) WITH ORDINALITY WHERE (value ->> 'number') = (fact ->> 6);
    IF place IS NULL THEN
        RETURN 'order';
    ELSIF was <> fact ->> 3 THEN
        RETURN CASE WHEN it.session = me THEN 'order' ELSE 'later' END;
    END IF;
    UPDATE SCHEMA.job SET attempts = jsonb_set(attempts, ARRAY[place::text, 'closed'], fact -> 3)
        WHERE id = it.id;
    IF fact ->> 3 = 'refused' AND it.task_id IS NULL AND SCHEMA.may_free(me, it, fact) THEN
        PERFORM SCHEMA.freed(me, its_account, it.id);
        INSERT INTO SCHEMA.refusal (account, digest, key, reason, at)
            VALUES (its_account, it.digest, it.key, fact ->> 4, (fact ->> 5)::double precision)
            ON CONFLICT (account, digest) DO UPDATE SET reason = excluded.reason, at = excluded.at;
    END IF;
    RETURN 'ok';
END $$;

CREATE FUNCTION SCHEMA.may_free(me bigint, it SCHEMA.job, fact jsonb) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    RETURN it.session = me OR (NOT SCHEMA.is_live(it.session) AND NOT EXISTS (
        SELECT FROM jsonb_array_elements(it.attempts)
        WHERE value ->> 'closed' IS NULL AND (value ->> 'number') <> (fact ->> 6)));
END $$;

CREATE FUNCTION SCHEMA.freed(me bigint, its_account integer, its_id bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE its_key text;
BEGIN
    DELETE FROM SCHEMA.job WHERE id = its_id RETURNING key INTO its_key;
    PERFORM SCHEMA.tell(me, its_account, its_key);
END $$;

CREATE FUNCTION SCHEMA.accepted(its_account integer, it SCHEMA.job, fact jsonb) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    IF it.task_digest = (fact ->> 7)::uuid THEN
        RETURN 'ok';
    ELSIF EXISTS (SELECT FROM SCHEMA.job WHERE account = its_account AND task_digest = (fact ->> 7)::uuid) THEN
        RETURN 'claimed';
    ELSIF it.id IS NULL OR it.failed OR it.task_id IS NOT NULL THEN
        RETURN 'surplus';
    END IF;
    UPDATE SCHEMA.job SET task_id = fact ->> 3, trace_id = fact ->> 4, task_digest = (fact ->> 7)::uuid,
        accepted_at = (fact ->> 5)::double precision WHERE id = it.id;
    RETURN 'ok';
END $$;

CREATE FUNCTION SCHEMA.disowned(it SCHEMA.job, fact jsonb) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    IF it.task_digest IS DISTINCT FROM (fact ->> 7)::uuid THEN
        RETURN 'ok';
    ELSIF it.settled_at IS NOT NULL THEN
        RETURN 'order';
    END IF;
    UPDATE SCHEMA.job SET task_id = NULL, trace_id = NULL, task_digest = NULL, accepted_at = NULL
        WHERE id = it.id;
    RETURN 'ok';
END $$;

CREATE FUNCTION SCHEMA.settled(me bigint, its_account integer, it SCHEMA.job, fact jsonb) RETURNS text
LANGUAGE plpgsql AS $$
BEGIN
    IF it.settled_at IS NOT NULL THEN
        IF it.outcome = fact ->> 3 AND it.failed = (fact ->> 6)::boolean THEN
            RETURN 'ok';
        END IF;
        RETURN CASE WHEN it.settled_by = me THEN 'order' ELSE 'later' END;
    ELSIF it.id IS NULL OR it.task_id IS NULL THEN
        RETURN 'order';
    END IF;
    UPDATE SCHEMA.job SET failed = (fact ->> 6)::boolean, outcome = fact ->> 3, settled_by = me,
        settled_at = (fact ->> 5)::double precision WHERE id = it.id;
    PERFORM SCHEMA.tell(me, its_account, it.key);
    RETURN 'ok';
END $$;

CREATE FUNCTION SCHEMA.downloaded(it SCHEMA.job, fact jsonb) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    IF it.settled_at IS NULL OR it.failed THEN
        RETURN 'order';
    END IF;
    INSERT INTO SCHEMA.download (job, video_digest, video_id, path, at)
        VALUES (it.id, (fact ->> 7)::uuid, fact ->> 3, fact ->> 4, (fact ->> 5)::double precision)
        ON CONFLICT (job, video_digest) DO UPDATE SET path = excluded.path, at = excluded.at;
    RETURN 'ok';
END $$;

CREATE FUNCTION SCHEMA.withdrawn(me bigint, its_account integer, it SCHEMA.job, is_mine boolean) RETURNS text
LANGUAGE plpgsql AS $$
BEGIN
    IF it.id IS NULL OR it.failed THEN
        RETURN 'ok';
    ELSIF NOT is_mine THEN
        RETURN 'fenced';
    ELSIF it.task_id IS NOT NULL OR SCHEMA.has_open_attempt(it) THEN
        RETURN 'order';
    END IF;
    PERFORM SCHEMA.freed(me, its_account, it.id);
    RETURN 'ok';
END $$;

-- Take the facts of one writer: all of them, or none, and then return the verdict on the first wrong one.
CREATE FUNCTION SCHEMA.take_facts(me bigint, its_account integer, is_dead boolean, facts jsonb) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    fact jsonb;
    verdict text;
    place integer := 0;
BEGIN
    FOR fact IN SELECT value FROM jsonb_array_elements(facts) LOOP
        verdict := SCHEMA.take_fact(me, its_account, is_dead, fact);
        IF verdict NOT IN ('ok', 'later') THEN
            RAISE EXCEPTION 'wrong' USING ERRCODE = 'VEO01';
        END IF;
        place := place + 1;
    END LOOP;
    RETURN NULL;
EXCEPTION
    WHEN SQLSTATE 'VEO01' THEN
        RETURN SCHEMA.judged(me, its_account, fact, verdict, place);
    WHEN unique_violation THEN  -- another session has just claimed the task
        RETURN SCHEMA.judged(me, its_account, fact, 'claimed', place);
END $$;

-- Say why a fact was not taken. A task that no purchase owns is kept in `surplus`, since it was paid for.
CREATE FUNCTION SCHEMA.judged(me bigint, its_account integer, fact jsonb, verdict text, place integer) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    it SCHEMA.job := SCHEMA.latest(its_account, (fact ->> 1)::uuid);
    owner text;
BEGIN
    SELECT key INTO owner FROM SCHEMA.job WHERE account = its_account AND task_digest = (fact ->> 7)::uuid;
    IF verdict = 'surplus' THEN
        INSERT INTO SCHEMA.surplus (account, task_digest, task_id, trace_id, key, session, at)
            VALUES (its_account, (fact ->> 7)::uuid, fact ->> 3, fact ->> 4, fact ->> 2, me,
                (fact ->> 5)::double precision) ON CONFLICT DO NOTHING;
    END IF;
    RETURN jsonb_build_object('verdict', verdict, 'place', place, 'owner', owner, 'entry',
        CASE WHEN it.id IS NOT NULL THEN to_jsonb(it) END);
END $$;

-- Take the facts of many writers, or none if one is wrong: then `write` takes them writer by writer.
CREATE FUNCTION SCHEMA.take_all(me bigint, its_account integer, is_dead boolean, works jsonb) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE fact jsonb;
BEGIN
    FOR fact IN SELECT each.value FROM jsonb_array_elements(works) AS work, jsonb_array_elements(work.value) AS each
    LOOP
        IF SCHEMA.take_fact(me, its_account, is_dead, fact) NOT IN ('ok', 'later') THEN
            RAISE EXCEPTION 'wrong' USING ERRCODE = 'VEO01';
        END IF;
    END LOOP;
    RETURN true;
EXCEPTION WHEN SQLSTATE 'VEO01' OR unique_violation THEN
    RETURN false;
END $$;

CREATE FUNCTION SCHEMA.write(me bigint, works jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    its_account integer;
    is_dead boolean;
    judgements jsonb[] := '{}';
    work jsonb;
BEGIN
    PERFORM SCHEMA.be_durable();
    PERFORM SCHEMA.check_complete();
    SELECT account, dead INTO its_account, is_dead FROM SCHEMA.session WHERE id = me;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'session % is missing', me USING ERRCODE = 'VEO03';
    END IF;
    IF (is_dead OR NOT SCHEMA.takes_together(me, its_account, works))
            AND NOT SCHEMA.take_all(me, its_account, is_dead, works) THEN
        FOR work IN SELECT value FROM jsonb_array_elements(works) LOOP
            judgements := judgements || coalesce(SCHEMA.take_facts(me, its_account, is_dead, work), 'null');
        END LOOP;
    END IF;
    RETURN jsonb_build_object('written', SCHEMA.counted(me), 'dead', is_dead, 'judgements', to_jsonb(judgements));
END $$;
"""
