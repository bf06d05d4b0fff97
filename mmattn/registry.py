"""Child registries of mmengine's, all in the scope ``mmattn``.

mmengine imports this module when it meets ``type='mmattn.X'``, and the
packages in ``locations`` at the first look-up: configs need no
``custom_imports``.
A failing import would hide every name of the scope: the packages import
optional dependencies only where they use them.
"""

from mmattn.stack import check_stack

check_stack()

from mmengine import registry as root  # noqa: E402
from mmengine.registry import Registry  # noqa: E402


def _child(parent: Registry, *locations: str) -> Registry:
    # Without locations mmengine would import `mmattn.utils`; the package
    # itself is imported already.
    return Registry(
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
    'mmattn.heads',
)
HOOKS = _child(root.HOOKS, 'mmattn.engine')
OPTIM_WRAPPER_CONSTRUCTORS = _child(
    root.OPTIM_WRAPPER_CONSTRUCTORS, 'mmattn.engine'
)
WEIGHT_INITIALIZERS = _child(root.WEIGHT_INITIALIZERS, 'mmattn.checkpoints')

# These are empty, but mmengine warns if a registry has no child of a scope.
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
