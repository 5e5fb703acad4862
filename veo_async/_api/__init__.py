"""
The API's data and rules. All of it is pure: no event loop, no clock, no socket. Only `local_images` reads files.

Outgoing: `requests` check themselves against the table in `models` and the field `rules`. `warnings` names what the
server may refuse. `wire` makes the bodies.
Incoming: `wire` reads bytes, `replies` interprets an answer, `tasks` reads the task records in it, and `states`
tells a task's state. Callers get `records`; `to_json` turns them into plain values.
`marks` puts a mark on each submit, so that its task can be found again. `journal_text` stores requests and outcomes
as text. `fields` gives type checkers the optional fields of each request.

To add a model, start in `models`; for an endpoint or a field, in `requests` and `rules`; for a new kind of answer,
in `replies`.
"""
