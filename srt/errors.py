"""The error that a user can mend: its text names file, key and value, and the remedy."""


class UserError(Exception):
    """Shown as one line, without a traceback."""
