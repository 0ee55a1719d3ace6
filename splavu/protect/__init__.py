"""From videos, or a store of features, to a protected release and a page about it: what `splavu protect` does.

inventory   what is there: videos, clips, subjects, actions
recipe      what so much data allows: the split, the rank of the eraser, the bits of the codes; or what is missing
steps       the commands that are run, each once, and what they made
page        report.html
"""
