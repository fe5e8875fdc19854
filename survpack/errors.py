"""The one exception a user's mistake ends in."""


class BadInput(Exception):
    """Bad input, told in one sentence: what was found, where, what was expected, how to fix it.

    The command line prints the sentence without a traceback and exits with code 2.
    """
