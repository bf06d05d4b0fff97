"""Build models from names on a command line."""

import ast
import difflib
import importlib
import importlib.util
import inspect
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.registry import MODELS, DefaultScope
from torch import nn

from mmattn.config import load_config
from mmattn.ops import list_implementations
from mmattn.stack import CODEBASES
from mmattn.swapping import list_families

Size = tuple[int, int]
Options = dict[str, Any]
# Builds a model with random weights for images of a height and width.
Build = Callable[[Size], nn.Module]
# Outputs of a target: the last map, or the map of each stage.
OUTPUTS = ('last', 'all')
NAMES = """\
A MODEL is one of
  boat-swin-tiny               an mmattn backbone; also cswin-*, smt-*, swin-*
  mmdet.ResNet(depth=50)       a registered class of any codebase
  configs/boat_swin/NAME.py    the backbone of a config
  mmdet::folder/NAME.py, mmpretrain:NAME
                               the backbone of a config of a codebase
  timm:resnet50, torchvision:resnet50
                               a model without its classifier
optionally with keyword arguments: 'boat-swin-tiny(window_size=14)'. With
mmattn models, impl='triton' forces this implementation on every operation that
has it; the others use 'sdpa', or 'reference' if they have no 'sdpa'. So
impl='sdpa' measures the default of a GPU, without native kernels.
"""


class Target(NamedTuple):
    """A model to measure."""

    name: str  # as on the command line
    build: Build
    impl: str | None = None  # implementation that our operations must take


def read_target(text: str, outputs: str = 'last', **defaults: Any) -> Target:
    """Resolve a name; nothing is built or downloaded.

    Args:
        text: The name, as described in ``NAMES``.
        outputs: One of ``OUTPUTS``.
        **defaults: Default arguments of the model.

    Raises:
        ValueError, FileNotFoundError: If there is no such model or config.
        ImportError: If the library or codebase is not installed.
    """
    name, options = _split_arguments(text)
    options = defaults | options
    library, colon, rest = name.partition(':')
    if colon and library == 'timm':
        return Target(text, _from_timm(rest, options, outputs))
    if colon and library == 'torchvision':
        if outputs == 'all':
            raise ValueError(f'{name} returns only its last map')
        return Target(text, _from_torchvision(rest, options))
    impl = options.pop('impl', None)
    known = sorted({row.name for row in list_implementations()})
    if impl is not None and impl not in known:
        raise ValueError(f'impl must be one of {known}, got {impl!r}')
    if name in list_families():
        cls, arch = list_families()[name]
        options = dict(arch=arch) | options
        build = _from_registry(f'mmattn.{cls}', options, outputs)
    elif library in CODEBASES and colon or name.endswith('.py'):
        build = _from_config(_find_config(name), options, outputs)
    elif re.fullmatch(r'\w+\.\w+', name):
        build = _from_registry(name, options, outputs)
    else:
        archs = list(list_families())
        close = difflib.get_close_matches(name, archs, n=3) or archs
        raise ValueError(
            f'unknown model {name!r}; give an arch ({", ".join(close)}), '
            'scope.Class, CONFIG.py, mmdet::folder/CONFIG.py, '
            'mmpretrain:CONFIG, timm:NAME or torchvision:NAME'
        )
    return Target(text, build, impl)


def _split_arguments(text: str) -> tuple[str, Options]:
    name, bracket, rest = text.partition('(')
    if not bracket:
        return name, {}
    try:
        call = ast.parse(f'dict({rest}', mode='eval').body
        if not isinstance(call, ast.Call) or call.args:
            raise SyntaxError
        return name, {k.arg: ast.literal_eval(k.value) for k in call.keywords}
    except (SyntaxError, ValueError) as error:
        raise ValueError(
            f'cannot read the arguments of {text}; write NAME(key=value, ...) '
            "with plain values, such as 'boat-swin-tiny(window_size=14)'"
        ) from error


def _from_registry(name: str, options: Options, outputs: str) -> Build:
    scope = name.partition('.')[0]
    if scope in CODEBASES:
        _import(scope)
    found = MODELS.get(name)
    if found is None:
        raise ValueError(f'no model called {name} is registered')
    default = inspect.signature(found).parameters.get('out_indices')
    if default is not None and isinstance(default.default, Sequence):
        last = max(default.default)
        indices = (last,) if outputs == 'last' else tuple(range(last + 1))
        options = dict(out_indices=indices) | options

    def build(size: Size) -> nn.Module:
        with DefaultScope.overwrite_default_scope(scope):
            return MODELS.build(dict(options, type=name))

    return build


def _from_config(path: Path, options: Options, outputs: str) -> Build:
    """Build the backbone of a config, without its weights."""
    cfg = load_config(path)
    backbone = (cfg.get('model') or {}).get('backbone')
    if backbone is None:
        raise ValueError(f'{path} has no model.backbone')
    own = {
        key: value
        for key, value in backbone.to_dict().items()
        if key not in ('type', 'out_indices', 'init_cfg')
    }
    name = backbone.type
    if isinstance(name, type):  # in a config of the new style
        name = f'{name.__module__}.{name.__name__}'
    elif '.' not in name:
        name = f'{cfg.get("default_scope")}.{name}'
    return _from_registry(name, own | options, outputs)


def _find_config(name: str) -> Path:
    """Find a file, or a config of an installed codebase."""
    codebase, colon, wanted = name.partition(':')
    if not colon:
        return Path(name)
    wanted = wanted.removeprefix(':').removesuffix('.py')
    configs = Path(_import(codebase).__file__).parent / '.mim/configs'
    found = sorted(configs.rglob(f'{wanted}.py'))
    if not found:
        raise FileNotFoundError(f'no config {wanted} in {configs}')
    return found[0]


def _import(package: str) -> Any:
    if importlib.util.find_spec(package) is None:
        raise ImportError(
            f'{package} is not installed; run pip install {package}, or '
            'python -m mmattn to see how to install a codebase'
        )
    return importlib.import_module(package)


def _from_timm(name: str, options: Options, outputs: str) -> Build:
    timm = _import('timm')
    key = 'features_only' if outputs == 'all' else 'num_classes'
    options = {key: outputs == 'all'} | options

    def build(size: Size) -> nn.Module:
        try:
            return timm.create_model(name, img_size=size, **options)
        except TypeError as error:  # of models that take any size
            if "'img_size'" not in str(error):
                raise
        return timm.create_model(name, **options)

    return build


def _from_torchvision(name: str, options: Options) -> Build:
    models = _import('torchvision').models

    def build(size: Size) -> nn.Module:
        model = models.get_model(name, weights=None, **options)
        for head in ('fc', 'classifier', 'head', 'heads'):
            if hasattr(model, head):
                setattr(model, head, nn.Identity())
        return model

    return build
