"""
The handle that callers await.

Start reading at `job`; `registry` holds the jobs of a session by key and by task.
`outcomes` writes down how a task ended, and then settles its job; `iterators` reads requests as fast as their jobs
settle.
"""
