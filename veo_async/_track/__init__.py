"""
From a task to its end: one coroutine asks about all of them.

Enter by `tracker`, which asks; `schedule` decides about whom and when.
What it decides by: `poll_intervals` tells how long to wait until the next look, `batches` who shares a request,
`durations` how long tasks take, as far as that has been seen. `missing_tasks` doubts what a reply left out, and
`callback_hints` believes a little of what callbacks say. `waiting_tasks` is the record of a task that waits.

All but the tracker is pure: time is an argument.
"""
