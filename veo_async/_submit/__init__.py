"""
From a job to a task, once: nothing is bought twice, and nothing bought is lost.

Enter by `submitters`: an attempt goes out there, and has one of four outcomes.
What follows an unknown one is decided in `reconciler`, which is pure, and carried out in `reconciling`.
`shown` is what listings have shown, `intake` writes jobs down before they are queued.

Whatever sends a second time must have the proof of absence that `reconciler` tells of.
"""
