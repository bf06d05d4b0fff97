"""Decode heads. They build on mmseg and exist where it can be imported."""

try:
    from .perspective_head import PerspectiveHead
# mmseg asserts an mmcv version that it knows. Neither error may
# hide the names of everything else in the scope.
except (ImportError, AssertionError):
    __all__ = []
else:
    __all__ = ['PerspectiveHead']
