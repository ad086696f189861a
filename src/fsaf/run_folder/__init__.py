"""A run folder comes in; its config, metrics, pictures and commands go out as plain values.

Read ``read.py`` (what lies there), then ``commands.py`` (the record of commands, which training
appends to).
"""
