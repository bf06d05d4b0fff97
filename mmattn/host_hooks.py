"""What hosts have to know of mmattn before a name of ours means anything.

``mmattn::`` in a config, our models in mmpretrain's hub and ``mmattn://``
weights are looked up in tables of the hosts. Importing a host to fill its
table would make ``import mmattn`` last seconds, and need the host. So each
table is filled right after its module is imported, by whoever imports it, or
at once where that is done: any order of imports works.
"""

import sys
import warnings
from collections.abc import Callable, Sequence
from importlib import metadata
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType


class AfterImport:
    """A finder that calls a function with a module once it is imported.

    It finds nothing by itself: another finder does, and the loader of this
    one module, still the one Python knows, calls the function last.

    Args:
        calls: Function by dotted name of the module.
    """

    def __init__(self, calls: dict[str, Callable[[ModuleType], None]]) -> None:
        self.calls = dict(calls)

    def install(self) -> None:
        """Watch later imports; serve the modules that are there already."""
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
        """Let the others find a module that is waited for."""
        call = self.calls.pop(name, None)
        if call is None:
            return None
        spec = find_spec(name)  # asks the others: this name is taken out
        if spec is None or spec.loader is None:
            self.calls[name] = call
            return spec
        execute = spec.loader.exec_module

        def execute_and_call(module: ModuleType) -> None:
            try:
                execute(module)
            except BaseException:
                self.calls[name] = call  # the next attempt may succeed
                raise
            call(module)

        spec.loader.exec_module = execute_and_call
        return spec


def find_more_configs(config_utils: ModuleType) -> None:
    """Let ``_base_ = 'mmattn::...'`` and ``get_config`` find our configs.

    And those of mmseg on both stacks: mmengine knows the distribution of one
    of them; on the other the package itself says where it is.
    """
    config_utils.MODULE2PACKAGE.setdefault('mmattn', 'mmattn')
    try:
        metadata.distribution('mmsegmentation')
    except metadata.PackageNotFoundError:
        config_utils.MODULE2PACKAGE['mmseg'] = 'mmseg'


def keep_hosts_of_our_configs(config: ModuleType) -> None:
    """Let a model of ``_base_ = 'mmattn::...'`` be built by its host.

    mmengine looks names of such a model up where the config lies. Ours lie
    here, but are written for a host, as their ``default_scope`` says.
    """
    find = config.Config._get_cfg_path

    def find_as_if_it_lay_here(
        cfg_path: str, filename: str
    ) -> tuple[str, str | None]:
        path, scope = find(cfg_path, filename)
        return path, None if scope == 'mmattn' else scope

    config.Config._get_cfg_path = staticmethod(find_as_if_it_lay_here)


def serve_our_weights(checkpoint: ModuleType) -> None:
    """Let mmengine load ``'mmattn://NAME'`` wherever it takes a path."""

    def load_from_mmattn(filename: str, map_location: object = None) -> dict:
        from mmattn.checkpoints.loading import load_published

        return load_published(filename, map_location)

    checkpoint.CheckpointLoader.register_scheme(
        'mmattn://', load_from_mmattn, force=True
    )


def list_our_models(hub: ModuleType) -> None:
    """Add our classifiers to the models that mmpretrain knows by name."""
    from mmattn.zoo import SCHEME, index_files, read_index

    models = hub.ModelHub._models_dict
    for index in index_files():
        before = set(models)
        try:
            ours = {model.name.lower(): model for model in read_index(index)}
            hub.ModelHub.register_model_index(index, index.parent)
        except (KeyError, OSError, TypeError, ValueError) as error:
            # A broken zoo must not keep anyone from importing mmpretrain.
            warnings.warn(f'mmattn leaves out {index}: {error}', stacklevel=2)
            continue
        for name in set(models) - before:
            # The models of mmdet and mmseg cannot be built there.
            if 'Image Classification' not in ours[name].tasks:
                del models[name]
            elif ours[name].weights is not None:
                models[name].weights = SCHEME + ours[name].name


def install() -> None:
    """Fill the tables, those of hosts not yet imported when they are."""
    AfterImport(
        {
            'mmengine.config.config': keep_hosts_of_our_configs,
            'mmengine.config.utils': find_more_configs,
            'mmengine.runner.checkpoint': serve_our_weights,
            'mmpretrain.apis.model': list_our_models,
        }
    ).install()
