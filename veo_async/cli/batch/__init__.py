"""
A batch: a file of requests in, a directory of videos out, in as many runs as it takes.

`input` reads and checks the file, `run` buys what is missing, `manifest` tells what became of each line.
"""
