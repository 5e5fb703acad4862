"""
Keeps facts about jobs; each is durable before its effect.

`facts` defines the facts, `journal` what a session calls, `batching` collects writes from the event loop.
For one process, `sqlite_store` writes them to a file, which `sqlite_file` opens, migrates and locks.
For many, `postgres_store` writes them: `postgres_rules` holds, in the server, which fact may follow which and which
session may write it, `postgres_limits` what all sessions may send together; `postgres_lease` says for how long;
`postgres_keeping` renews the lease, and listens.

A new fact needs a rule in `sqlite_store` and in `postgres_rules`, a row in `postgres_rows`, and a migration in both.
"""
