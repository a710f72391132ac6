"""The error that a user can mend: its text names file, key and value, and the remedy."""


class UserError(Exception):
    """Shown as one line, without a traceback."""


class DataError(UserError):
    """Data on disk is not what it must be; the text names the file and says what to do."""
