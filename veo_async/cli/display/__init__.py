"""
The display: `board` on a terminal, `crowd` for a batch, `records` for one job, `gallery` in a browser.
"""
