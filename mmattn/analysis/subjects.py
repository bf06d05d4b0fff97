"""What can be measured, by the name that a command line gives it."""

import ast
import difflib
import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.registry import MODELS, DefaultScope
from torch import Tensor, nn

from mmattn.backbones import (
    SMT,
    AttentionPyramid,
    BOATCSWin,
    BOATSwin,
    CSWin,
    PerspectiveEncoder,
)
from mmattn.engine.run_config import HOSTS, read_config

FAMILIES = {
    'boat-cswin': BOATCSWin,
    'boat-swin': BOATSwin,
    'cswin': CSWin,
    'perspective': PerspectiveEncoder,
    'smt': SMT,
}
# What a subject computes: its last map, or a map of each of its stages.
OUTPUTS = ('last', 'all')

Size = tuple[int, int]


class Subject(NamedTuple):
    """Something to measure: its name, and what builds it for a size."""

    name: str
    build: Callable[[Size], nn.Module]


def own_archs() -> dict[str, tuple[type[nn.Module], str]]:
    """Class and arch of each of our backbones, by name: boat-swin-tiny."""
    names = {
        f'{family}-{arch}': (backbone, arch)
        for family, backbone in FAMILIES.items()
        for arch in backbone.arch_zoo
    }
    pyramids = {
        arch: (AttentionPyramid, arch) for arch in AttentionPyramid.arch_zoo
    }
    return names | pyramids


def read_subjects(texts: Sequence[str], outputs: str) -> list[Subject]:
    """Find what names stand for; one given twice gets two names.

    See :func:`read_subject`. A model beside itself shows the noise.
    """
    found = [read_subject(text, outputs) for text in texts]
    return [
        subject._replace(name=f'{subject.name} #{1 + texts[:i].count(text)}')
        if text in texts[:i]
        else subject
        for i, (text, subject) in enumerate(zip(texts, found))
    ]


def read_subject(text: str, outputs: str = 'last') -> Subject:
    """Find what a name stands for; nothing is built or downloaded.

    A name is one of

    - an arch of ours: ``boat-swin-tiny``, ``swin-tiny``, ...;
    - a registered class: ``mmattn.BOATSwin``, ``mmpretrain.ConvNeXt``;
    - a config, whose backbone is meant: ``path/to/config.py``,
      ``mmdet::folder/config.py``, ``mmpretrain:config-without-folder``;
    - a model of timm without its head: ``timm:resnet50``;
    - a class or function in a file: ``path/to/file.py:Class``.

    Keyword arguments may follow: ``boat-swin-tiny(window_size=14)``.

    Args:
        text: The name.
        outputs: ``'last'`` for the last map alone, ``'all'`` for one of each
            stage. Means nothing to a class in a file, which computes what
            its own forward pass computes.

    Raises:
        ValueError: If there is no such name, or if the arguments cannot be
            read.
        FileNotFoundError: If there is no such file.
        ImportError: If timm or a codebase is not installed.
    """
    name, options = _split_arguments(text)
    in_file = re.fullmatch(r'(.+\.py):(\w+)', name)
    of_host = re.fullmatch(rf'({"|".join(HOSTS)})::?([^:]+)', name)
    if name.startswith('timm:'):
        build = _find_timm(name.removeprefix('timm:'), options, outputs)
    elif in_file:
        make = _import_from_file(Path(in_file[1]), in_file[2])
        build = _ignore_size(text, make, options)
    elif of_host or name.endswith('.py'):
        path = _find_host_config(*of_host.groups()) if of_host else name
        build = _find_config(str(path), options, outputs)
    elif name in own_archs():
        backbone, arch = own_archs()[name]
        options = _choose_outputs(backbone, options, outputs)
        build = _ignore_size(text, backbone, dict(arch=arch) | options)
    elif re.fullmatch(r'\w+\.\w+', name):
        build = _find_registered(name, options, outputs)
    else:
        raise ValueError(_unknown(name))
    return Subject(text, build)


def _split_arguments(text: str) -> tuple[str, dict[str, Any]]:
    name, bracket, rest = text.partition('(')
    if not bracket:
        return name, {}
    try:
        call = ast.parse(f'f({rest}', mode='eval').body
        if not isinstance(call, ast.Call) or call.args:
            raise SyntaxError
        values = {k.arg: ast.literal_eval(k.value) for k in call.keywords}
        if None in values:  # of **
            raise SyntaxError
    except (SyntaxError, ValueError) as error:
        raise ValueError(
            'arguments are expected as NAME(key=value, ...) with plain '
            f"values, got {text}; such as 'boat-swin-tiny(window_size=14)'"
        ) from error
    return name, values


def _unknown(name: str) -> str:
    names = list(own_archs())
    close = difflib.get_close_matches(name, names, n=3) or sorted(names)
    return (
        'a model is expected: an arch of ours, scope.Class, config.py, '
        'mmdet::path/config.py, mmpretrain:config, timm:name or '
        f'file.py:Class, got {name!r}; known archs are {", ".join(close)}'
    )


def _ignore_size(
    text: str, make: Callable[..., Any], options: dict[str, Any]
) -> Callable[[Size], nn.Module]:
    """A builder for what takes images of any size."""

    def build(size: Size) -> nn.Module:
        model = make(**options)
        if not isinstance(model, nn.Module):
            raise TypeError(
                f'{text} is expected to make a torch.nn.Module, got '
                f'{type(model).__name__}'
            )
        return model

    return build


def _choose_outputs(
    backbone: type, options: dict[str, Any], outputs: str
) -> dict[str, Any]:
    """Add ``out_indices`` where the class knows it and nobody chose yet."""
    parameters = inspect.signature(backbone).parameters
    default = getattr(parameters.get('out_indices'), 'default', None)
    if 'out_indices' in options or not isinstance(default, Sequence):
        return options
    last = max(default)
    indices = (last,) if outputs == 'last' else tuple(range(last + 1))
    return dict(options, out_indices=indices)


def _find_registered(
    name: str, options: dict[str, Any], outputs: str
) -> Callable[[Size], nn.Module]:
    scope = name.partition('.')[0]
    if scope in HOSTS:
        _require_host(scope, name)
    found = MODELS.get(name)
    if found is None:
        raise ValueError(
            f'{name} is expected in the registry of models, got no such name'
        )
    options = _choose_outputs(found, options, outputs)

    def make(**options: Any) -> nn.Module:
        with DefaultScope.overwrite_default_scope(scope):
            return MODELS.build(dict(options, type=name))

    return _ignore_size(name, make, options)


def _find_config(
    path: str, options: dict[str, Any], outputs: str
) -> Callable[[Size], nn.Module]:
    """A builder for the backbone of a config; its weights stay unread."""
    cfg = read_config(path, None, needs=('model',), purpose='a benchmark')
    backbone = cfg.model.get('backbone')
    if backbone is None:
        raise ValueError(f'{path} is expected to have model.backbone')
    # `outputs` says for all subjects what they compute.
    own = {
        key: value
        for key, value in backbone.to_dict().items()
        if key not in ('type', 'out_indices', 'init_cfg')
    }
    name = backbone.type
    if '.' not in name:
        name = f'{cfg.get("default_scope")}.{name}'
    return _find_registered(name, own | options, outputs)


def _require_host(host: str, name: str) -> None:
    if importlib.util.find_spec(host) is None:
        raise ImportError(
            f'{name} expects {host}, which is not installed; '
            '`python -m mmattn` says how to install it'
        )


def _find_host_config(host: str, name: str) -> Path:
    _require_host(host, name)
    (package,) = importlib.util.find_spec(host).submodule_search_locations
    configs = Path(package, '.mim', 'configs')
    found = sorted(configs.rglob(f'{name.removesuffix(".py")}.py'))
    if not found:
        names = [path.stem for path in configs.rglob('*.py')]
        stem = Path(name).stem
        close = difflib.get_close_matches(stem, names, n=3)
        hint = f'; close to it: {", ".join(close)}' if close else ''
        raise FileNotFoundError(
            f'{host} is expected to have a config {name}, got none in '
            f'{configs}{hint}'
        )
    return found[0]


def _import_from_file(path: Path, name: str) -> Callable[..., Any]:
    """Import from a checkout as its own code would: as part of its package.

    The folder above stays importable, since modules import at any time.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f'{path}:{name} expects a file {path}, which does not exist'
        )
    folder, dotted = path.resolve().parent, path.stem
    while (folder / '__init__.py').is_file():
        folder, dotted = folder.parent, f'{folder.name}.{dotted}'
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    loaded = sys.modules.get(dotted)
    if loaded is None or Path(loaded.__file__ or '') != path.resolve():
        spec = importlib.util.spec_from_file_location(dotted, path)
        loaded = importlib.util.module_from_spec(spec)
        sys.modules[dotted] = loaded
        spec.loader.exec_module(loaded)
    if not hasattr(loaded, name):
        raise ValueError(
            f'{path} is expected to define {name}, got no such name in it'
        )
    return getattr(loaded, name)


class _Features(nn.Module):
    """A classifier of timm up to its last map."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model.forward_features(x)


def _find_timm(
    name: str, options: dict[str, Any], outputs: str
) -> Callable[[Size], nn.Module]:
    try:
        timm = importlib.import_module('timm')
    except ImportError as error:
        raise ImportError(
            f'timm:{name} expects timm, which is not installed; pip install '
            "'mmattn[tests]' or pip install timm"
        ) from error
    if not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models(), n=3)
        hint = f'; close to it: {", ".join(close)}' if close else ''
        raise ValueError(f'timm is expected to have a model {name!r}{hint}')

    def create(**more: Any) -> nn.Module:
        if outputs == 'all':
            return timm.create_model(name, features_only=True, **more)
        return _Features(timm.create_model(name, num_classes=0, **more))

    def build(size: Size) -> nn.Module:
        try:
            return create(img_size=size, **options)
        except TypeError as error:  # of what takes images of any size
            if "'img_size'" not in str(error):
                raise
        return create(**options)

    return build
