"""
Submits each job once: nothing is bought twice, and no purchase is lost.

Start reading at `submitters`: it sends an attempt, which has one of four outcomes.
Before it come `uploads`, for requests with pictures of this machine, `intake`, which writes jobs down, `recovery`,
which resumes known keys, and `queue`. `budget` reserves each purchase before it is sent.
After it comes `acceptance`; or, for an unknown outcome, `sending_again`, which is pure and decides, and
`reconciling`, which carries the decisions out. `listed_tasks` keeps what listings have shown.

No code may send a job again without the proof of absence that `sending_again` describes.
"""
