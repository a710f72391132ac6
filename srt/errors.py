"""The error that a user can mend: its text names the file, the key and the value, and the remedy."""


class UserError(Exception):
    """Shown as one line, without a traceback."""
