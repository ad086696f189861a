"""The command line ``fsaf``. Command-line words come in; text, files and an exit status go out.

Read ``main.py`` first, then ``verbs.py``, the table of verbs. Each verb is in the file of its name: its
options, and the function that runs it. ``verb.py`` defines a verb, ``parser.py`` formats help and errors.
``machine.py`` does the work of ``fsaf info``, ``tour.py`` that of ``fsaf quickstart``.
"""

from fsaf.cli.main import main

__all__ = ["main"]
