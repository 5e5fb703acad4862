"""
What must not be forgotten: facts about jobs, each durable before its effect.

`facts` says what is remembered, `journal` what a session asks of it, `batching` gathers it from the event loop.
`sqlite_store` writes it, in a file that `sqlite_file` opens, migrates and locks: for one process.
`postgres_store` writes it for many: `postgres_rules` says in the server what may follow what, and who may say it;
`postgres_lease` says for how long; `postgres_keeping` renews that, and listens.

A new fact needs a rule in `sqlite_store` and in `postgres_rules`, a row in `postgres_rows`, and a migration in both.
"""
