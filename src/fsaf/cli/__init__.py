"""The command line ``fsaf``. Command-line words come in; text, files and an exit status go out.

Read ``main.py`` first, then ``verbs.py``, which calls the other parts. ``help.py``,
``completion.py``, ``info.py`` and ``quickstart.py`` each serve one verb or option.
"""

from fsaf.cli.main import main

__all__ = ["main"]
