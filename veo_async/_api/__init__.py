"""
What the API is: pure, without a loop, a clock or a socket.

On the way out: `requests` are checked against the table in `models` and the `rules` of their fields, and what may
be refused is named by `warnings`; `wire` makes their bodies.
On the way back: `wire` reads bytes, `replies` tells what an answer means, `tasks` what a record in it says, and
`states` how its task stands. Callers get `records`, as values that `to_json` makes ready for JSON.
`marks` names each submit, so that its task is found again; `journal_text` is how requests and outcomes are kept as
text.
`fields` names for type checkers what may be left out of a request.

A new model begins in `models`, a new endpoint or field in `requests` and `rules`, a new way for a server to answer
in `replies`.
"""
