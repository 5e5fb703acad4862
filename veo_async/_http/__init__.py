"""
Sends requests to the server, and decides when each may go.

Start with `client`, the API's HTTP. `transport` is its interface to the network; `aiohttp_transport` implements it.
`gate` decides when a request may go, and `limiter` waits for that. `clock` estimates the server's time, `outage` logs
outages, `task_listing` reads the account's tasks.
`redaction` and `failures` keep the token out of replies and error messages.
"""
