"""Decode heads. They import mmseg when they are built.

mmseg takes more than a second to import, which no detector or classifier
should pay for at the first look-up of a name.
"""

from typing import Any

from mmattn.registry import MODELS

__all__ = ['PerspectiveHead']


@MODELS.register_module()
class PerspectiveHead:
    """Builds a :class:`mmattn.heads.perspective_head.PerspectiveHead`.

    Raises:
        ImportError: If mmseg cannot be imported.
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        try:
            from . import perspective_head
        # mmseg rejects an mmcv that it does not know with an AssertionError.
        except (ImportError, AssertionError) as error:
            raise ImportError(
                f'PerspectiveHead needs mmseg, which cannot be imported: '
                f'{error}; `python -m mmattn` shows how to fix it'
            ) from error
        return perspective_head.PerspectiveHead(*args, **kwargs)
