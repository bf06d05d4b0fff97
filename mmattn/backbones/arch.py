"""Sizes of the backbones: names, dictionaries, drop-path schedules."""

from collections.abc import Mapping, Sequence

Arch = str | dict


def resolve_arch(owner: str, arch: Arch, arch_zoo: Mapping[str, dict]) -> dict:
    """The sizes of an arch, a new dictionary.

    Args:
        owner: Name of the backbone, for messages.
        arch: A name of ``arch_zoo``, or a dictionary with the same keys.
        arch_zoo: Sizes by name.

    Raises:
        ValueError: If the name is unknown, keys are missing or unknown, or
            the stages of the entries do not match.
    """
    if isinstance(arch, str):
        if arch not in arch_zoo:
            raise ValueError(
                f'{owner} expects arch to be one of '
                f'{sorted(arch_zoo)} or a dict, got {arch!r}'
            )
        return dict(arch_zoo[arch])
    keys = set(next(iter(arch_zoo.values())))
    if not isinstance(arch, Mapping) or set(arch) != keys:
        got = sorted(arch) if isinstance(arch, Mapping) else arch
        raise ValueError(
            f'{owner} expects an arch dict with the keys '
            f'{sorted(keys)}, got {got}'
        )
    stages = {
        key: len(value)
        for key, value in arch.items()
        if isinstance(value, Sequence) and not isinstance(value, str)
    }
    if len(set(stages.values())) > 1:
        raise ValueError(
            f'{owner} expects an arch dict with one entry per '
            f'stage, got lengths {stages}'
        )
    return dict(arch)


def drop_path_schedule(
    rate: float, depths: Sequence[int]
) -> list[list[float]]:
    """Rates that grow linearly from 0 at the first block to ``rate``.

    Source: https://arxiv.org/abs/1603.09382, section 3.

    Args:
        rate: Probability of leaving out a branch of the last block.
        depths: Blocks of each stage.

    Returns:
        One rate for each block of each stage.

    Raises:
        ValueError: If ``rate`` is not a probability below 1.
    """
    if not 0 <= rate < 1:
        raise ValueError(
            'drop_path_schedule expects drop_path_rate from 0 to below 1, got '
            f'{rate}'
        )
    steps = max(sum(depths) - 1, 1)
    rates = (rate * step / steps for step in range(sum(depths)))
    return [[next(rates) for _ in range(depth)] for depth in depths]
