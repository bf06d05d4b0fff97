"""What builds a model: a class, a config, a file of a checkout, timm."""

import difflib
import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmengine.registry import MODELS, DefaultScope
from torch import Tensor, nn

from mmattn.config import read_config
from mmattn.stack import CODEBASES

from .failures import describe_failure

Size = tuple[int, int]
# Builds a model with random weights for images of a height and width.
Build = Callable[[Size], nn.Module]


class ModelTypeError(TypeError):
    """What should have made a model has made something else."""


def any_size(
    text: str, make: Callable[..., Any], options: dict[str, Any]
) -> Build:
    """A builder for what takes images of any size."""

    def build(size: Size) -> nn.Module:
        with _naming_arguments(text, options):
            model = make(**options)
        if not isinstance(model, nn.Module):
            raise ModelTypeError(
                f'{text} is expected to make a torch.nn.Module, got '
                f'{type(model).__name__}'
            )
        return model

    return build


def check_arguments(make: Callable[..., Any], options: dict[str, Any]) -> None:
    """Refuse arguments that a class or function does not know.

    Who passes them on (``**kwargs``) knows any: that fails when it is built.

    Raises:
        ValueError: If there is one; it names those that are close to it.
    """
    try:
        parameters = inspect.signature(make).parameters
    except ValueError:  # of what is not written in Python
        return
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    for name in options:
        if name not in parameters:
            close = difflib.get_close_matches(name, parameters, n=3)
            hint = 'close to it' if close else 'it takes'
            raise ValueError(
                f'{make.__name__} expects arguments that it knows, got '
                f'{name}; {hint}: {", ".join(close or parameters)}'
            )


@contextmanager
def _naming_arguments(text: str, options: dict[str, Any]) -> Iterator[None]:
    """Tell which arguments are missing, or handed on to who lacks them."""
    try:
        yield
    except TypeError as error:
        if re.search(r'missing \d+ required', str(error)):
            raise ValueError(
                f'{text} expects more arguments, in brackets behind it, got '
                f'{options or "none"} ({error})'
            ) from error
        wrong = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        if wrong is None or wrong[1] not in options:
            raise
        raise ValueError(
            f'{text} expects arguments that it knows, got {wrong[1]} ({error})'
        ) from error


def choose_outputs(
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


def from_registry(name: str, options: dict[str, Any], outputs: str) -> Build:
    """A builder for a registered class, named with its scope."""
    scope = name.partition('.')[0]
    if scope in CODEBASES:
        _require_host(scope, name)
    found = MODELS.get(name)
    if found is None:
        raise ValueError(
            f'{name} is expected in the registry of models, got no such name'
        )
    check_arguments(found, options)
    options = choose_outputs(found, options, outputs)

    def make(**options: Any) -> nn.Module:
        with DefaultScope.overwrite_default_scope(scope):
            return MODELS.build(dict(options, type=name))

    return any_size(name, make, options)


def from_config(path: str, options: dict[str, Any], outputs: str) -> Build:
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
    if isinstance(name, type):  # in a config of the new style
        name = f'{name.__module__}.{name.__name__}'
    elif '.' not in name:
        name = f'{cfg.get("default_scope")}.{name}'
    return from_registry(name, own | options, outputs)


def _require_host(host: str, name: str) -> None:
    if importlib.util.find_spec(host) is None:
        raise ImportError(
            f'{name} expects {host}, which is not installed; '
            '`python -m mmattn` says how to install it'
        )


def find_host_config(host: str, name: str) -> Path:
    """Where an installed codebase keeps a config, with or without folder."""
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


def from_file(path: Path, name: str, options: dict[str, Any]) -> Build:
    """A builder for a class or function of a checkout."""
    make = _import_from_file(path, name)
    check_arguments(make, options)
    return any_size(f'{path}:{name}', make, options)


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
        try:
            spec.loader.exec_module(loaded)
        except (Exception, SystemExit) as error:  # whatever it does
            del sys.modules[dotted]
            raise ValueError(
                f'{path}:{name} expects a file that can be imported, got '
                f'{describe_failure(error)}'
            ) from error
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


def from_timm(name: str, options: dict[str, Any], outputs: str) -> Build:
    """A builder for a model of timm without its head."""
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
        with _naming_arguments(f'timm:{name}', options):
            try:
                return create(img_size=size, **options)
            except TypeError as error:  # of what takes images of any size
                if "'img_size'" not in str(error):
                    raise
            return create(**options)

    return build
