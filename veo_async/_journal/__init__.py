"""
What must not be forgotten: facts about jobs, each durable before its effect.

`facts` says what is remembered, `journal` gathers it from the event loop.
`sqlite_store` writes it, in a file that `sqlite_file` opens, migrates and locks.

A new fact needs a row in each of the three, and a migration.
"""
