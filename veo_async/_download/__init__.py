"""
From a video to a file: under its final name it is whole, or it is not there.

Enter by `downloader`; `part_file` is where bytes are gathered, and how a later attempt goes on.
"""
