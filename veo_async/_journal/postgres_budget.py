"""
A migration of the schema in PostgreSQL: reservations, which hold all sessions of an account to a budget.
"""

from __future__ import annotations

from typing import Final

__all__ = ["BUDGET"]

BUDGET: Final = """
-- A purchase that is reserved counts until it has failed, or its row is deleted because it was refused.
ALTER TABLE SCHEMA.job ADD COLUMN reserved boolean NOT NULL DEFAULT false, ADD COLUMN credits double precision;

-- The totals of each account, which triggers keep: counting a hundred thousand purchases anew takes 90 ms.
CREATE TABLE SCHEMA.spent (
    account integer PRIMARY KEY,
    videos bigint NOT NULL,
    credits double precision NOT NULL,
    unpriced bigint NOT NULL
);

CREATE FUNCTION SCHEMA.count_spent() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    was integer := (OLD.reserved AND NOT OLD.failed)::integer;
    now integer := CASE WHEN TG_OP = 'DELETE' THEN 0 ELSE (NEW.reserved AND NOT NEW.failed)::integer END;
    price double precision := CASE WHEN TG_OP <> 'DELETE' THEN NEW.credits END;
BEGIN
    IF current_setting('veo_async.counts_anew', true) = 'on' THEN
        RETURN NULL;
    END IF;
    UPDATE SCHEMA.spent SET videos = videos + now - was,
            credits = credits + now * coalesce(price, 0) - was * coalesce(OLD.credits, 0),
            unpriced = unpriced + now * (price IS NULL)::integer - was * (OLD.credits IS NULL)::integer
        WHERE account = OLD.account;
    RETURN NULL;
END $$;

CREATE TRIGGER job_spent AFTER UPDATE OF reserved, failed, credits ON SCHEMA.job FOR EACH ROW
    WHEN (OLD.reserved <> NEW.reserved
        OR NEW.reserved AND (OLD.failed <> NEW.failed OR OLD.credits IS DISTINCT FROM NEW.credits))
    EXECUTE FUNCTION SCHEMA.count_spent();
CREATE TRIGGER job_unspent AFTER DELETE ON SCHEMA.job FOR EACH ROW WHEN (OLD.reserved)
    EXECUTE FUNCTION SCHEMA.count_spent();

-- Reserve a purchase if it fits, and return what all others have spent. Sessions take turns, by the account's row.
CREATE FUNCTION SCHEMA.reserve(me bigint, its_digest uuid, its_credits double precision, max_videos bigint,
    max_credits double precision) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    its_account integer := SCHEMA.account_of(me);
    it SCHEMA.spent;
    own SCHEMA.job;
BEGIN
    PERFORM SCHEMA.be_durable();
    PERFORM SCHEMA.check_complete();
    PERFORM FROM SCHEMA.account WHERE id = its_account FOR UPDATE;
    INSERT INTO SCHEMA.spent VALUES (its_account, 0, 0, 0) ON CONFLICT DO NOTHING;
    SELECT * INTO it FROM SCHEMA.spent WHERE account = its_account;
    SELECT * INTO own FROM SCHEMA.job
        WHERE account = its_account AND digest = its_digest AND NOT failed AND reserved;
    IF own.id IS NOT NULL THEN
        it.videos := it.videos - 1;
        it.credits := it.credits - coalesce(own.credits, 0);
        it.unpriced := it.unpriced - (own.credits IS NULL)::integer;
    END IF;
    IF (max_videos IS NULL OR it.videos < max_videos) AND (max_credits IS NULL
            OR (it.unpriced = 0 AND it.credits + its_credits <= max_credits + 1e-6)) THEN
        UPDATE SCHEMA.job SET reserved = true, credits = its_credits
            WHERE account = its_account AND digest = its_digest AND NOT failed;
    END IF;
    RETURN jsonb_build_object('videos', it.videos, 'credits', it.credits, 'unpriced', it.unpriced);
END $$;

-- Reserve what was bought, or may have been, without a budget; returns the purchases whose price is not known.
-- All is counted anew: a row's change by another session may then count once too often, and never too seldom.
CREATE FUNCTION SCHEMA.reserve_purchases(me bigint) RETURNS TABLE (key text, request text) LANGUAGE plpgsql AS $$
DECLARE its_account integer := SCHEMA.account_of(me);
BEGIN
    PERFORM SCHEMA.be_durable();
    PERFORM SCHEMA.check_complete();
    PERFORM FROM SCHEMA.account WHERE id = its_account FOR UPDATE;
    PERFORM set_config('veo_async.counts_anew', 'on', true);
    UPDATE SCHEMA.job AS it SET reserved = true WHERE account = its_account AND NOT reserved AND NOT failed
        AND (task_id IS NOT NULL OR SCHEMA.has_open_attempt(it));
    -- What an ended session reserved and never sent is free again; without a holder, it cannot be sent meanwhile.
    UPDATE SCHEMA.job AS it SET reserved = false, session = NULL WHERE account = its_account AND reserved
        AND NOT failed AND task_id IS NULL AND NOT SCHEMA.has_open_attempt(it) AND NOT SCHEMA.is_live(session);
    PERFORM set_config('veo_async.counts_anew', 'off', true);
    INSERT INTO SCHEMA.spent AS known
        SELECT its_account, count(*), coalesce(sum(it.credits), 0), count(*) FILTER (WHERE it.credits IS NULL)
        FROM SCHEMA.job AS it WHERE it.account = its_account AND it.reserved AND NOT it.failed
        ON CONFLICT (account) DO UPDATE
        SET videos = excluded.videos, credits = excluded.credits, unpriced = excluded.unpriced;
    RETURN QUERY SELECT it.key, it.request FROM SCHEMA.job AS it
        WHERE it.account = its_account AND it.reserved AND NOT it.failed AND it.credits IS NULL;
END $$;
"""
