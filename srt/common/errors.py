"""Errors that a user can correct: their text names the file, the key, the value and a remedy."""


class UserError(Exception):
    """An error that the command line shows as one line, without a traceback."""


class DataError(UserError):
    """Data on disk is missing or wrong. The text names the file and says what to do."""
