"""
From a job to a task, once: nothing is bought twice, and nothing bought is lost.

Enter by `submitters`: an attempt goes out there, and has one of four outcomes.
Before it come `intake`, which writes jobs down, `recovery`, which knows what their keys stand for, and `queue`.
After it comes `acceptance`; or, for an unknown outcome, `sending_again`, which decides and is pure, and
`reconciling`, which carries that out. `listed_tasks` is what listings have shown.

Whatever sends a second time must have the proof of absence that `sending_again` tells of.
"""
