"""Decode heads. They build on mmseg and exist where it can be imported."""

try:
    from .perspective_head import PerspectiveHead
# mmseg refuses an mmcv that it does not know by an assertion. Neither may
# hide the names of everything else in the scope.
except (ImportError, AssertionError):
    __all__ = []
else:
    __all__ = ['PerspectiveHead']
