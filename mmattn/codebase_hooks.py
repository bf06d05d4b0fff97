"""Register mmattn's names in mmengine and mmpretrain.

``mmattn::`` in a config, mmattn's models in mmpretrain's hub and ``mmattn://``
weights are looked up in tables of those packages. ``import mmattn`` must stay
fast and not require them. So each table is filled after its module is
imported, or at once if it already is: the order of imports does not matter.
"""

import functools
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib import metadata
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any


class AfterImport:
    """A meta path finder that calls functions after modules are imported.

    It wraps the loaders that other finders return.

    Args:
        calls: Dotted module name to the function to call with the module.
    """

    def __init__(self, calls: dict[str, Callable[[ModuleType], None]]) -> None:
        self.calls = dict(calls)

    def install(self) -> None:
        """Call the functions of imported modules and wait for the others."""
        for name in list(self.calls):
            if sys.modules.get(name) is not None:
                self.calls.pop(name)(sys.modules[name])
        sys.meta_path.insert(0, self)

    def find_spec(
        self,
        name: str,
        path: Sequence[str] | None = None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        """Find a watched module with the other finders and wrap its loader."""
        call = self.calls.pop(name, None)
        if call is None:
            return None
        spec = find_spec(name)  # not recursive: the name is no longer watched
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_call(module: ModuleType) -> None:
                execute(module)
                call(module)

            spec.loader.exec_module = execute_and_call
        return spec


def find_more_configs(config_utils: ModuleType) -> None:
    """Let mmengine find ``mmattn::`` configs, and ``mmseg::`` on OneDL.

    mmengine looks for the distribution ``mmsegmentation``.
    """
    config_utils.MODULE2PACKAGE.setdefault('mmattn', 'mmattn')
    try:
        metadata.distribution('mmsegmentation')
    except metadata.PackageNotFoundError:
        config_utils.MODULE2PACKAGE['mmseg'] = 'mmseg'


def keep_default_scope(config: ModuleType) -> None:
    """Build models of ``_base_ = 'mmattn::...'`` in their codebase's scope.

    mmengine would set the scope of their types to mmattn.
    """
    get_path = config.Config._get_cfg_path

    def get_path_without_scope(
        cfg_path: str, filename: str
    ) -> tuple[str, str | None]:
        path, scope = get_path(cfg_path, filename)
        return path, None if scope == 'mmattn' else scope

    config.Config._get_cfg_path = staticmethod(get_path_without_scope)


def extend_loading(checkpoint: ModuleType) -> None:
    """Let mmengine load ``mmattn://NAME`` and published checkpoints.

    ``mmpretrain.get_model(name, pretrained=FILE)``, inferencers and
    ``load_from`` then convert published checkpoints for our backbones.
    """
    load = checkpoint.load_state_dict

    @functools.wraps(load)
    def convert_and_load(
        module: Any, state_dict: dict, *args: Any, **kwargs: Any
    ) -> None:
        backbone = getattr(getattr(module, 'module', module), 'backbone', None)
        if type(backbone).__module__.startswith('mmattn.'):
            from mmattn.checkpoints.whole_model import rename_published

            state_dict = rename_published(module, state_dict)
        load(module, state_dict, *args, **kwargs)

    def load_from_mmattn(filename: str, map_location: object = None) -> dict:
        from mmattn.checkpoints.loading import read_whole

        return read_whole(filename, map_location)

    checkpoint.load_state_dict = convert_and_load
    checkpoint.CheckpointLoader.register_scheme(
        'mmattn://', load_from_mmattn, force=True
    )


def check_pretrained(weight_init: ModuleType) -> None:
    """Raise if a whole model's ``init_cfg`` checkpoint does not fit.

    mmengine only logs what does not fit, and loads NaN and integers.
    """
    load = weight_init.PretrainedInit.__call__

    @functools.wraps(load)
    def load_and_check(self: Any, module: Any) -> None:
        seen = []
        handle = module._register_load_state_dict_pre_hook(
            lambda state, *_: seen.append(state)
        )
        try:
            load(self, module)
        finally:
            handle.remove()
        parts = (type(part).__module__ for part in module.modules())
        if seen and any(name.startswith('mmattn.') for name in parts):
            from mmattn.checkpoints.whole_model import check_fits

            check_fits(module, seen[0], self.checkpoint)

    weight_init.PretrainedInit.__call__ = load_and_check


def register_classifiers(hub: ModuleType) -> None:
    """Add mmattn's classifiers to mmpretrain's ``ModelHub``."""
    from mmattn.zoo import SCHEME, check_digest, index_files, read_index

    models = hub.ModelHub._models_dict
    for index in index_files():
        before = set(models)
        try:
            ours = {model.name.lower(): model for model in read_index(index)}
            for model in ours.values():
                check_digest(model.config)
            hub.ModelHub.register_model_index(index, index.parent)
        except (KeyError, OSError, TypeError, ValueError) as error:
            # A broken zoo must not break `import mmpretrain`.
            warnings.warn(f'mmattn skips {index}: {error}', stacklevel=2)
            continue
        for name in set(models) - before:
            # mmpretrain cannot build models of mmdet and mmseg.
            if 'Image Classification' not in ours[name].tasks:
                del models[name]
            elif ours[name].weights is not None:
                models[name].weights = SCHEME + ours[name].name


def install() -> None:
    """Fill the tables, now or when their modules are imported."""
    calls = {
        'mmengine.config.config': keep_default_scope,
        'mmengine.config.utils': find_more_configs,
        'mmengine.model.weight_init': check_pretrained,
        'mmengine.runner.checkpoint': extend_loading,
        'mmpretrain.apis.model': register_classifiers,
    }
    AfterImport(calls).install()
