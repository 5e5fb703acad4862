"""
From a task to its end: one coroutine asks about all of them.

Enter by `tracker`, which asks; `schedule` decides about whom and when, and is pure.
`durations` learns how long tasks take, `missing` doubts what a reply left out, `callbacks` believes a little of what
callbacks say.
"""
