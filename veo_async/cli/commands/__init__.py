"""
One module for each command, or for several commands that share code.

A command's module defines its options, and leaves the work to the modules outside this folder.
"""
