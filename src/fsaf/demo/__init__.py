"""Detectors come in; a page in the browser to try them on goes out.

Read ``page.py`` (the page), then ``look.py`` (what the network sees in a picture) and ``guard.py``
(what the page refuses).
"""
