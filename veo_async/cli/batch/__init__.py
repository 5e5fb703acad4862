"""
A batch: makes a directory of videos from a file of requests, in as many runs as needed.

`input` reads and checks the file, `run` buys what is missing, `manifest` records the outcome of each line,
`receipts` that of each file. `prices` tells what the lines cost.
"""
