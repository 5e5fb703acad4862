"""
Polls tasks until they end: one coroutine polls all of them.

Start with `tracker`, which sends the polls; `schedule` decides which tasks to poll, and when.
The schedule uses `poll_intervals` (how long to wait until the next look), `batches` (which tasks share a request),
`durations` (how long tasks take, learned from past ones), `missing_tasks` (tasks that a reply left out) and
`callback_hints` (what callbacks say). `waiting_tasks` holds the record of each waiting task.

Everything except the tracker is pure: time is an argument.
"""
