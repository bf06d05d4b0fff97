"""Decode heads. They import mmseg when they are built.

mmseg takes more than a second to import, which no detector or classifier
should pay for at the first look-up of a name.
"""

from typing import Any

from mmattn.registry import MODELS


@MODELS.register_module(name='PerspectiveHead')
def build_perspective_head(*args: Any, **kwargs: Any) -> Any:
    """Build a :class:`mmattn.heads.perspective_head.PerspectiveHead`.

    Raises:
        ImportError: If mmseg cannot be imported.
    """
    try:
        from .perspective_head import PerspectiveHead
    # Incompatible versions of mmcv or transformers raise other errors.
    except Exception as error:
        raise ImportError(
            f'PerspectiveHead needs mmseg, which cannot be imported: {error}; '
            '`python -m mmattn` shows how to fix it'
        ) from error
    return PerspectiveHead(*args, **kwargs)
