"""The error that a command line prints as one message."""


class UsageError(Exception):
    """A command cannot run as it was typed; the message says why."""
