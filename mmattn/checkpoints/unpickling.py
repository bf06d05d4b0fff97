"""Read a pickle into placeholders, without a class or function of it.

Accepts the opcodes of torch's restricted unpickler and the names of
:func:`.is_allowed`, and no call that could allocate or compute more than the
file contains.
"""

import pickle
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from typing import Any, NamedTuple

from mmattn.errors import printable

from .stubs import MAPPINGS, is_allowed

# Far above real checkpoints; reading a million objects takes a second.
_MAX_OBJECTS = 1_000_000
REBUILD = 'torch._utils._rebuild_'
_TYPED = 'torch._tensor._rebuild_from_type_v2'
# Allowed as names only: calling these with sizes allocates memory.
_NOT_CALLED = ('torch.Tensor', 'numpy.ndarray', 'Storage')
_HASHING = ('builtins.set', 'collections.OrderedDict', 'collections.Counter')
_PLAIN = (str, int, float, bool, type(None))
# Of torch's storages; the others have items of one byte.
_ITEM_SIZES = dict(
    Double=8, Float=4, Half=2, BFloat16=2, Long=8, Int=4, Short=2
) | dict(ComplexDouble=16, ComplexFloat=8)
SAVE_WEIGHTS = (
    'save only its weights where it comes from: torch.save('
    "model.state_dict(), 'weights.pth')"
)


class InvalidCheckpoint(ValueError):
    """A file is not a valid checkpoint.

    Args:
        what: What is wrong, such as ``'is truncated'``.
        advice: What to do.
    """

    def __init__(
        self, what: str, advice: str = 'download or copy it again'
    ) -> None:
        self.what = printable(what)
        super().__init__(f'{self.what}; {advice}')


class Global(str):
    """Placeholder of a class or function: its dotted name."""

    __slots__ = ()


class Storage(NamedTuple):
    """Placeholder of a storage of ``numel`` items."""

    kind: str
    key: str
    location: str
    numel: int

    @property
    def item_size(self) -> int:
        """Bytes of one item."""
        kind = self.kind.rpartition('.')[2].removesuffix('Storage')
        return _ITEM_SIZES.get(kind, 1)


class Items(dict):
    """A dictionary whose keys can be hashed in bounded time."""

    def __setitem__(self, key: Any, value: Any) -> None:
        """Add an item with a plain key."""
        _check_key(key)
        super().__setitem__(key, value)


class Call:
    """Placeholder of the result of a call, such as a tensor."""

    def __init__(self, function: str, args: tuple) -> None:
        self.function = function
        self.args = args
        self.state: Any = None
        self.is_tensor = function.startswith(REBUILD)


class Reader(pickle._Unpickler):
    """Reads pickles of the opcodes that torch's restricted unpickler has."""

    def __init__(self, file: Any) -> None:
        super().__init__(file, encoding='latin1')
        self.content: Any = None
        self.globals: set[str] = set()
        self.storages: list[Storage] = []
        self.calls: list[Call] = []
        self.readline = file.readline
        self._file = file
        self._count = 0

    def read(self, count: int) -> bytes:
        """Read bytes."""
        data = self._file.read(count)
        if len(data) < count:
            raise InvalidCheckpoint('is truncated or damaged')
        return data

    def load(self) -> Any:
        """Read one pickle."""
        self.metastack, self.stack, self.memo = [], [], {}
        self.append = self.stack.append
        while (code := self.read(1)) != pickle.STOP:
            self._count += 1
            if self._count > _MAX_OBJECTS:
                raise InvalidCheckpoint(
                    f'contains more than {_MAX_OBJECTS:,} objects',
                    SAVE_WEIGHTS,
                )
            if code[0] not in self.dispatch:
                raise InvalidCheckpoint(
                    'is damaged or not a checkpoint (unsupported pickle '
                    f'opcode {code!r})',
                    SAVE_WEIGHTS,
                )
            self.dispatch[code[0]](self)
        return self.stack.pop()

    def find_class(self, module: str, name: str) -> Global:
        """Return a placeholder for an allowed class or function."""
        module, name = NAME_MAPPING.get(
            (module, name), (IMPORT_MAPPING.get(module, module), name)
        )
        path = f'{module}.{name}'[:200]
        if path not in self.globals and not is_allowed(path):
            if path.startswith(REBUILD):
                raise InvalidCheckpoint(
                    'holds tensors without plain values '
                    f'({path.removeprefix(REBUILD)!r})',
                    'save dense, unquantized tensors on the CPU',
                )
            raise InvalidCheckpoint(
                f'asks to use {path} while it is read and could run any '
                'code, so it was not loaded',
                f'if you trust it, {SAVE_WEIGHTS}',
            )
        self.globals.add(path)
        return Global(path)

    def persistent_load(self, pid: Any) -> Storage:
        """Return a placeholder for a storage."""
        kind, *fields = pid
        storage = Storage(*fields[:4])
        types = str, str, str, int
        if kind != 'storage' or not all(map(isinstance, storage, types)):
            raise InvalidCheckpoint('is damaged (not a storage)')
        self.storages.append(storage)
        return storage

    def load_dict(self) -> None:
        """Push a dictionary."""
        self.append(Items())

    def load_call(self) -> None:
        """Push a placeholder for the result of a call."""
        args, function = self.stack.pop(), self.stack.pop()
        while function == _TYPED:  # calls another function
            function, args = args[0], args[2]
        if (
            not isinstance(function, Global)
            or not isinstance(args, tuple)
            or function.endswith(_NOT_CALLED)
        ):
            raise InvalidCheckpoint(
                'asks to call something other than a function while it is '
                'read, so it could run any code',
                f'if you trust it, {SAVE_WEIGHTS}',
            )
        if function in _HASHING:
            for keys in args:
                for key in keys:
                    _check_key(key)
        if function == '_codecs.encode' and args[1:] != ('latin1',):
            raise InvalidCheckpoint('is damaged (not bytes)')
        if function.endswith('multiarray._reconstruct') and args[1] != (0,):
            raise InvalidCheckpoint('is damaged (an array without data)')
        self.calls.append(Call(function, args))
        is_mapping = function in (*_HASHING[1:], *MAPPINGS)
        self.append(Items(*args) if is_mapping else self.calls[-1])

    def load_state(self) -> None:
        """Keep the state of an object."""
        state = self.stack.pop()
        if isinstance(self.stack[-1], Call):
            self.stack[-1].state = state

    # The same opcodes as torch._weights_only_unpickler.
    dispatch = {
        code: pickle._Unpickler.dispatch[code]
        for code in b'\x80c(aesuQt\x85\x86\x87N\x88\x89)]\x8fJKMG\x8aXUhjqr'
    } | {
        pickle.EMPTY_DICT[0]: load_dict,
        pickle.REDUCE[0]: load_call,
        pickle.NEWOBJ[0]: load_call,
        pickle.BUILD[0]: load_state,
    }


def _check_key(key: Any) -> None:
    # Hashing nested tuples can crash Python; large integers can collide.
    for part in key if isinstance(key, tuple) else (key,):
        if type(part) not in _PLAIN or (
            type(part) is int and abs(part) >= 1 << 60
        ):
            raise InvalidCheckpoint(
                'is not a checkpoint: it has keys other than names and numbers'
            )
