"""
A migration of the schema in PostgreSQL: the addresses of uploaded pictures.
"""

from __future__ import annotations

from typing import Final

__all__ = ["UPLOADS"]

UPLOADS: Final = """
-- Where pictures were uploaded to, by the digests of their contents.
CREATE TABLE SCHEMA.upload (
    account integer NOT NULL,
    name text NOT NULL,
    address text NOT NULL,
    at double precision NOT NULL,
    PRIMARY KEY (account, name)
);

CREATE FUNCTION SCHEMA.note_upload(me bigint, its_name text, its_address text, its_at double precision)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE its_account integer := SCHEMA.account_of(me);
BEGIN
    PERFORM SCHEMA.be_durable();
    PERFORM SCHEMA.check_complete();
    INSERT INTO SCHEMA.upload (account, name, address, at) VALUES (its_account, its_name, its_address, its_at)
        ON CONFLICT (account, name) DO UPDATE SET address = excluded.address, at = excluded.at;
END $$;
"""
