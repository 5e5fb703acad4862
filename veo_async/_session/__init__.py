"""
All of it joined, as `VeoSession`.

Enter by `session`, which is what callers hold; `engine` is what runs while it is entered.
`endings` says what follows when a task has ended, `shortcuts` are the methods for each kind of request,
`credentials` the token and the address.
"""
