"""
A module for each command, or for commands that share their code.

Enter by the module of the command's name: it has the options, and hands the work to what is beside this folder.
"""
