"""
A migration of the schema in PostgreSQL: reservations, which hold all sessions of an account to a budget.
"""

from __future__ import annotations

from typing import Final

__all__ = ["BUDGET"]

BUDGET: Final = """
-- A purchase that is reserved counts until it has failed, or its row is deleted because it was refused.
ALTER TABLE SCHEMA.job ADD COLUMN reserved boolean NOT NULL DEFAULT false, ADD COLUMN credits double precision;
CREATE INDEX job_reserved ON SCHEMA.job (account) WHERE reserved AND NOT failed;

-- Reserve a purchase if it fits, and return what all others have spent. Sessions take turns, by the account's row.
CREATE FUNCTION SCHEMA.reserve(me bigint, its_digest uuid, its_credits double precision, max_videos bigint,
    max_credits double precision) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    its_account integer := SCHEMA.account_of(me);
    videos bigint;
    spent double precision;
    unpriced bigint;
BEGIN
    PERFORM SCHEMA.be_durable();
    PERFORM SCHEMA.check_complete();
    PERFORM FROM SCHEMA.account WHERE id = its_account FOR UPDATE;
    SELECT count(*), coalesce(sum(credits), 0), count(*) FILTER (WHERE credits IS NULL)
        INTO videos, spent, unpriced FROM SCHEMA.job
        WHERE account = its_account AND reserved AND NOT failed AND digest <> its_digest;
    IF (max_videos IS NULL OR videos < max_videos) AND (max_credits IS NULL
            OR (unpriced = 0 AND spent + its_credits <= max_credits + 1e-6)) THEN
        UPDATE SCHEMA.job SET reserved = true, credits = its_credits
            WHERE account = its_account AND digest = its_digest AND NOT failed;
    END IF;
    RETURN jsonb_build_object('videos', videos, 'credits', spent, 'unpriced', unpriced);
END $$;

-- Reserve what was bought, or may have been, without a budget; returns the purchases whose price is not known.
CREATE FUNCTION SCHEMA.reserve_purchases(me bigint) RETURNS TABLE (key text, request text) LANGUAGE plpgsql AS $$
DECLARE its_account integer := SCHEMA.account_of(me);
BEGIN
    PERFORM SCHEMA.be_durable();
    PERFORM SCHEMA.check_complete();
    UPDATE SCHEMA.job AS it SET reserved = true WHERE account = its_account AND NOT reserved AND NOT failed
        AND (task_id IS NOT NULL OR SCHEMA.has_open_attempt(it));
    RETURN QUERY SELECT it.key, it.request FROM SCHEMA.job AS it
        WHERE account = its_account AND reserved AND NOT failed AND credits IS NULL;
END $$;
"""
