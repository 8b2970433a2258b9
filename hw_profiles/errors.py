"""The one error type that means: the person running the tool can mend this."""


class TrilobitError(Exception):
    """Bad input or a broken file. The message gives the value, what was allowed and what to do next.

    The command line prints it as one line and exits with 2; every other exception is a bug and keeps its
    traceback.
    """
