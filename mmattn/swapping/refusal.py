"""The one exception of a swap that makes no sense."""

from mmattn.errors import UsageError


class SwapRefused(UsageError):
    """A config whose backbone cannot be replaced: the message says why.

    Args:
        reason (str): What holds for every config of this kind; the coverage
            page counts by it.
        detail (str): What is particular to this config. Defaults to ''.
    """

    def __init__(self, reason: str, detail: str = '') -> None:
        super().__init__(f'{reason}: {detail}' if detail else reason)
        self.reason = reason
