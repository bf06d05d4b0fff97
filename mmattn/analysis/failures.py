"""Where in a user's own code something failed."""

import sysconfig
import traceback
from pathlib import Path

import mmattn

_OURS = Path(mmattn.__file__).resolve().parent
_STANDARD_LIBRARY = Path(sysconfig.get_path('stdlib')).resolve()
# Of any environment, of a user's own folder, and of Debian's packages.
_INSTALLED = {'site-packages', 'dist-packages'}


def find_own_frame(error: BaseException) -> traceback.FrameSummary | None:
    """The innermost line of code that is neither ours nor installed.

    None where there is none below a call of ours: the failure is not of the
    code that this package was given to run.
    """
    is_called = False
    found = None
    for frame in traceback.extract_tb(error.__traceback__):
        path = Path(frame.filename)
        is_ours = path.resolve().is_relative_to(_OURS)
        is_called = is_called or is_ours
        if is_called and not is_ours and not _is_installed(path):
            found = frame
    return found


def _is_installed(path: Path) -> bool:
    """Whether code is of a library; what is no file is made by one."""
    return (
        not path.is_file()
        or not _INSTALLED.isdisjoint(path.parts)
        or path.resolve().is_relative_to(_STANDARD_LIBRARY)
    )


def describe_failure(error: BaseException) -> str:
    """Name an error and, where it is of a user's own code, the place."""
    if isinstance(error, SyntaxError) and error.filename:
        return (
            f'{type(error).__name__}: {error.msg} ({error.filename}, line '
            f'{error.lineno}: {(error.text or "").strip()})'
        )
    text = ': '.join(filter(None, (type(error).__name__, str(error))))
    frame = find_own_frame(error)
    if frame is None:
        return text
    return (
        f'{text} ({frame.filename}, line {frame.lineno}, in {frame.name}: '
        f'{frame.line})'
    )
