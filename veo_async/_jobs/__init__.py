"""
The handle that people await.

Enter by `job`; `registry` holds the jobs of a session by key and by task, `streams` reads requests as fast as
their jobs settle.
"""
