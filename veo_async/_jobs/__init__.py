"""
The handle that people await.

Enter by `job`; `registry` holds the jobs of a session by key and by task.
`outcomes` writes down what a task has ended in, and then settles its job; `iterators` reads requests as fast as their
jobs settle.
"""
