"""Child registries of mmengine's, all in the scope ``mmattn``.

mmengine imports this module by itself when it meets ``type='mmattn.X'``, and
the packages named in ``locations`` at the first look-up: a config needs no
``custom_imports``. An import that fails here hides every name of the scope,
so this module stays cheap and the packages guard what they need from a host.
"""

from importlib import import_module

from mmattn.stack import check_stack

check_stack()

from mmengine import registry as root  # noqa: E402
from mmengine.registry import Registry  # noqa: E402


class ModelRegistry(Registry):
    """Registry of models that meets mmseg only where a name needs it.

    The decode heads import mmseg, which takes seconds that a detector has no
    use for: they are no location, but imported for a name found nowhere else.
    """

    def get(self, key: str) -> type | None:
        """Look a name up, see :class:`mmengine.registry.Registry`."""
        found = super().get(key)
        if found is None:
            import_module('mmattn.heads')
            found = super().get(key)
        return found


def _child(
    parent: Registry, *locations: str, cls: type[Registry] = Registry
) -> Registry:
    # A registry without locations makes mmengine look for
    # `mmattn.utils.register_all_modules`; the bare package is a free answer.
    return cls(
        parent.name,
        parent=parent,
        scope='mmattn',
        locations=list(locations) or ['mmattn'],
    )


MODELS = _child(
    root.MODELS,
    'mmattn.attentions',
    'mmattn.backbones',
    'mmattn.plugins',
    'mmattn.necks',
    cls=ModelRegistry,
)
HOOKS = _child(root.HOOKS, 'mmattn.engine')
OPTIM_WRAPPER_CONSTRUCTORS = _child(
    root.OPTIM_WRAPPER_CONSTRUCTORS, 'mmattn.engine'
)
WEIGHT_INITIALIZERS = _child(root.WEIGHT_INITIALIZERS, 'mmattn.checkpoints')

# Nothing of ours lives in these yet, but hosts look in every child of the
# scope and warn where one is missing.
RUNNERS = _child(root.RUNNERS)
RUNNER_CONSTRUCTORS = _child(root.RUNNER_CONSTRUCTORS)
LOOPS = _child(root.LOOPS)
STRATEGIES = _child(root.STRATEGIES)
DATASETS = _child(root.DATASETS)
DATA_SAMPLERS = _child(root.DATA_SAMPLERS)
TRANSFORMS = _child(root.TRANSFORMS)
MODEL_WRAPPERS = _child(root.MODEL_WRAPPERS)
OPTIMIZERS = _child(root.OPTIMIZERS)
OPTIM_WRAPPERS = _child(root.OPTIM_WRAPPERS)
PARAM_SCHEDULERS = _child(root.PARAM_SCHEDULERS)
METRICS = _child(root.METRICS)
EVALUATOR = _child(root.EVALUATOR)
TASK_UTILS = _child(root.TASK_UTILS)
VISUALIZERS = _child(root.VISUALIZERS)
VISBACKENDS = _child(root.VISBACKENDS)
LOG_PROCESSORS = _child(root.LOG_PROCESSORS)
INFERENCERS = _child(root.INFERENCERS)
FUNCTIONS = _child(root.FUNCTIONS)
