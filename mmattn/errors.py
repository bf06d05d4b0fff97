"""Errors that a command line prints as one message."""


def printable(text: str) -> str:
    """Escape control characters, which names in files can contain."""
    return ''.join(
        c if c.isprintable() or c == '\n' else ascii(c)[1:-1] for c in text
    )


class UsageError(Exception):
    """A command cannot run as it was typed; the message says why."""
