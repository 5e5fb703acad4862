"""
From a video to a file: under its final name it is whole, or it is not there.

Enter by `downloader`, which runs a bounded number of downloads; `transfer` is one of them, attempt after attempt.
`responses` tells what an answer means for it, `destination` where the file goes.
`part_file` is where bytes are gathered, and how a later attempt goes on; `file_io` makes the calls that block.
"""
