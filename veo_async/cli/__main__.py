"""
`python -m veo_async.cli`, where the command itself is not on the path.
"""

from . import main

main()
