"""
From a task to its end: one coroutine asks about all of them.

Enter by `tracker`, which asks; `schedule` decides about whom and when.
What it decides by: `gaps` tells how long to wait until the next look, `batches` who shares a request, `durations`
how long tasks take, as far as that has been seen. `missing` doubts what a reply left out, and `callbacks` believes
a little of what callbacks say. `waiting` is the record of a task that waits.

All but the tracker is pure: time is an argument.
"""
