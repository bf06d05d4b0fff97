"""Stand-in for ``mmattn.ops._native.Library`` until it is there."""

import ctypes
import functools
import subprocess
from pathlib import Path

import torch

from mmattn.ops.compiling import is_autocast_on_cpu  # noqa: F401
from mmattn.ops.cpu_kernels import building, refuse_tensors

NATIVE = Path(building.__file__).parent
why_not_tensors = refuse_tensors
_TYPES = {'t': ctypes.c_void_p, 'i': ctypes.c_int64, 'd': ctypes.c_double}


class Library:
    def __init__(self, name, folder, include=()):
        self.name, self.folder, self.include = name, folder, include

    @functools.cached_property
    def _loaded(self):
        if building.why_no_compiler():
            return None, building.why_no_compiler()
        out = Path(f'/tmp/w/infbuild/{self.name}.so')
        sources = sorted(self.folder.glob('*.cpp'))
        deps = [*sources, *self.folder.glob('*.h'), *NATIVE.glob('*.h')]
        newest = max(p.stat().st_mtime for p in deps)
        if not out.exists() or out.stat().st_mtime < newest:
            subprocess.run(
                [
                    'g++',
                    *building._FLAGS,
                    '-shared',
                    *[f'-I{p}' for p in self.include],
                    *map(str, sources),
                    '-o',
                    str(out),
                ],
                check=True,
            )
        return ctypes.CDLL(str(out)), None

    def why_not(self):
        return self._loaded[1]

    def function(self, name, signature):
        @functools.cache
        def of(dtype):
            suffix = {torch.float32: 'f32', torch.float64: 'f64'}[dtype]
            f = getattr(self._loaded[0], f'mmattn_{name}_{suffix}')
            f.argtypes = [_TYPES[x] for x in signature]
            f.restype = ctypes.c_int64
            return f

        def call(*args):
            dtype = next(x.dtype for x in args if isinstance(x, torch.Tensor))
            with torch.autograd.profiler.record_function(f'mmattn::{name}'):
                lacking = of(dtype)(
                    *[
                        x.data_ptr() if isinstance(x, torch.Tensor) else x
                        for x in args
                    ]
                )
            if lacking:
                raise MemoryError(lacking)

        return call
