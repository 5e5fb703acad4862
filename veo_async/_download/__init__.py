"""
Downloads videos to files. A file under its final name is always complete.

Start with `downloader`, which runs a bounded number of downloads. `transfer` makes the attempts of one download.
`responses` interprets an answer, `destination` chooses the file's path.
`part_file` collects the bytes, so that a later attempt can resume; `file_io` makes the blocking calls.
"""
