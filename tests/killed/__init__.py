"""
A batch in a real process with a real journal, killed with `-9` again and again, and started again.
"""
