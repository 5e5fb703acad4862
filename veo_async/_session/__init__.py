"""
All of it joined, as `VeoSession`.

Enter by `session`, which is what callers hold; `engine` is what runs while it is entered.
`shortcuts` are the methods for each kind of request, `credentials` the token and the address;
`learned_durations` keeps what was learned of how long tasks take, from one session to the next.
"""
