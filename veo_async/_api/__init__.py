"""
What the API is: pure, without a loop, a clock or a socket.

Requests are checked against the tables in `rules` and become bytes in `wire`.
Replies get their meaning in `replies`, the records in them in `states`; callers get them as `records`.
`marks` names each submit, so that its task is found again.

A new endpoint or field begins in `rules` and `requests`; a new way for a server to answer, in `replies`.
"""
