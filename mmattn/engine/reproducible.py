"""Let every random draw of a training follow from its seed and its step.

A training that is killed and resumed then equals an uninterrupted one bit for
bit, whatever the number of data-loading workers, and no generator state has
to be saved.
"""

import hashlib
import logging
import random
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner
from torch.utils.data import DataLoader

# Transforms that remember earlier images or own a generator.
_WITH_MEMORY = ('Cached', 'Albu')


class SeededIndex(int):
    """Index of a sample with the seed of the draws that it takes."""

    seed: int

    def __new__(cls, index: int, seed: int) -> 'SeededIndex':
        self = super().__new__(cls, index)
        self.seed = seed
        return self

    def __getnewargs__(self) -> tuple[int, int]:
        return int(self), self.seed


class SeedHook(Hook):
    """Seeds the generators of the main process before each iteration.

    It runs before other hooks. The draws of a sample follow from the epoch,
    its position in the epoch and the rank.
    """

    priority = 'HIGHEST'

    def before_train_epoch(self, runner: Runner) -> None:
        """Tell the sampler the epoch."""
        sampler = _find_sampler(runner.train_dataloader)
        if sampler is not None:
            sampler.seed_epoch = runner.epoch

    def before_train_iter(self, runner: Runner, *args, **kwargs) -> None:
        """Seed the draws of the model."""
        seed_all(derive_seed(runner.seed, get_rank(), runner.iter))


def make_reproducible(runner: Runner) -> None:
    """Seed the samples and iterations of a runner's training.

    Args:
        runner: A runner whose training loop is not built yet.
    """
    build = runner.build_dataloader

    def build_seeded(dataloader: Any, *args: Any, **kwargs: Any) -> DataLoader:
        loader = build(dataloader, *args, **kwargs)
        if dataloader is runner._train_dataloader:
            seed_samples(loader, runner.seed)
        return loader

    runner.build_dataloader = build_seeded
    runner.register_hook(SeedHook())
    exceptions = list_exceptions(runner.cfg)
    print_log(
        f'All random draws follow from seed {runner.seed}: a resumed training '
        'equals an uninterrupted one'
        + (f', except for {"; ".join(exceptions)}' if exceptions else ''),
        logger='current',
    )


def seed_samples(loader: DataLoader, seed: int) -> None:
    """Seed the generators before each sample of a loader.

    Args:
        loader: A loader that has not been iterated.
        seed: Seed of the training.
    """
    sampler = _find_sampler(loader)
    if sampler is None:
        _warn(f'{type(loader.dataset).__name__} has no sampler')
        return
    base = derive_seed(seed, get_rank())
    try:
        _add_methods(loader.dataset, _dataset_methods(type(loader.dataset)))
        _add_methods(sampler, _sampler_methods(type(sampler), base))
    except TypeError:  # a built-in type, such as a list
        _warn(f'{type(loader.dataset).__name__} cannot be seeded')


def seed_all(seed: int) -> None:
    """Seed Python, NumPy and PyTorch, on all devices."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002, what transforms draw from
    torch.manual_seed(seed)


def derive_seed(*numbers: int) -> int:
    """A seed of 63 bits that follows from some numbers."""
    text = ':'.join(map(str, numbers)).encode()
    digest = hashlib.blake2b(text, digest_size=8).digest()
    return int.from_bytes(digest, 'big') >> 1


def list_exceptions(cfg: Config) -> list[str]:
    """What may differ between a resumed and an uninterrupted training."""
    names = sorted(_type_names(cfg.get('train_dataloader')))
    found = [
        f'{name}, which keeps a state of its own'
        for name in names
        if name.startswith(_WITH_MEMORY)
    ]
    deterministic = (cfg.get('randomness') or {}).get('deterministic')
    if torch.cuda.is_available() and not deterministic:
        found.append(
            'non-deterministic CUDA kernels (set randomness.deterministic)'
        )
    if (cfg.get('optim_wrapper') or {}).get('accumulative_counts', 1) > 1:
        found.append('gradients accumulated when a checkpoint is written')
    return found


def _warn(reason: str) -> None:
    print_log(
        f'{reason}: a resumed training may differ from an uninterrupted one',
        logger='current',
        level=logging.WARNING,
    )


def _find_sampler(loader: DataLoader) -> Any:
    # A batch sampler of the config has its own; that of torch shares it.
    batches = loader.batch_sampler
    return getattr(batches, 'sampler', batches)


def _add_methods(target: Any, methods: dict[str, Any]) -> None:
    """Give an object a subclass of its class, which keeps ``isinstance``."""
    cls = type(target)
    target.__class__ = type(cls)(cls.__name__, (cls,), methods)


def _sampler_methods(cls: type, base: int) -> dict[str, Any]:
    def __iter__(self: Any) -> Iterator[Any]:
        start, self.seed_start = getattr(self, 'seed_start', 0), 0
        epoch = getattr(self, 'seed_epoch', 0)
        for position, index in enumerate(cls.__iter__(self), start):
            yield _with_seed(index, base, epoch, position)

    methods = {'__iter__': __iter__, '__module__': cls.__module__}
    if hasattr(cls, 'set_epoch'):

        def set_epoch(self: Any, epoch: int) -> None:
            self.seed_epoch = epoch
            cls.set_epoch(self, epoch)

        methods['set_epoch'] = set_epoch
    if hasattr(cls, 'skip'):

        def skip(self: Any, num_samples: int) -> None:
            self.seed_start = num_samples
            cls.skip(self, num_samples)

        methods['skip'] = skip
    return methods


def _with_seed(index: Any, *numbers: int) -> Any:
    if isinstance(index, int):
        return SeededIndex(index, derive_seed(*numbers))
    if isinstance(index, (list, tuple)):
        return [_with_seed(x, *numbers, i) for i, x in enumerate(index)]
    return index


def _dataset_methods(cls: type) -> dict[str, Any]:
    def __getitem__(self: Any, index: Any) -> Any:
        if isinstance(index, SeededIndex):
            seed_all(index.seed)
            index = int(index)
        return cls.__getitem__(self, index)

    def __reduce_ex__(self: Any, protocol: int) -> tuple:
        # Workers that are spawned, not forked, unpickle the data set.
        return _restore_dataset, (cls, self.__dict__)

    return {
        '__getitem__': __getitem__,
        '__reduce_ex__': __reduce_ex__,
        '__module__': cls.__module__,
    }


def _restore_dataset(cls: type, state: dict) -> Any:
    dataset = cls.__new__(cls)
    dataset.__dict__.update(state)
    _add_methods(dataset, _dataset_methods(cls))
    return dataset


def _type_names(node: Any) -> Iterable[str]:
    if isinstance(node, dict):
        kind = node.get('type', '')
        yield getattr(kind, '__name__', str(kind)).rpartition('.')[2]
        node = node.values()
    if isinstance(node, (list, tuple, type({}.values()))):
        for child in node:
            yield from _type_names(child)
