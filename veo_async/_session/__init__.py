"""
`VeoSession`, which joins all other parts.

Start reading at `session`, which callers use; `engine` is what runs inside its `async with`.
`platform` is what it calls on a platform. `shortcuts` has a method for each kind of request, `credentials` checks the token and the address,
`learned_durations` keeps how long tasks take, from one session to the next.
"""
