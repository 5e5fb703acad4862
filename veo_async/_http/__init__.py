"""
How a request gets to the server, and when it may go.

Enter by `client`, the API's HTTP. `transport` is its one seam to the network, `aiohttp_transport` what fills it.
`gate` decides when a request may leave, `limiter` waits for it; `clock` knows the server's time, `outage` tells of
silence once, `task_listing` reads the account's tasks.
`redaction` and `failures` keep the token out of what is said.
"""
