"""Errors that a command line prints as one message."""


def printable(text: str) -> str:
    """Escape control characters, which names in files can contain."""
    return ''.join(
        c if c.isprintable() or c == '\n' else ascii(c)[1:-1] for c in text
    )


class UsageError(Exception):
    """A command cannot run as it was typed; the message says why."""


class DataError(UsageError):
    """A file of a data set is at fault.

    A data-loading worker hands it over as text, with its traceback before the
    message; only the message is kept.
    """

    def __init__(self, message: str) -> None:
        message = message.rpartition(f'{__name__}.DataError: ')[2]
        super().__init__(message.strip())
