"""The one exception for a user's mistake."""


class UserError(ValueError):
    """A mistake in the user's input; the message names the file, the value and the remedy.

    The command line prints it without a traceback and exits with status 2.
    """
