"""Every kernel is compiled for GPUs that need not be there."""

import pytest
import torch

from mmattn.ops import _triton

if not _triton.HAS_TRITON or _triton.IS_INTERPRETED:
    pytest.skip('Triton compiles nothing', allow_module_level=True)

pytest.importorskip('triton.knobs', reason='older Triton compiles otherwise')

import ahead_of_time  # noqa: E402

# Bytes of shared memory that a program may take, by compute capability.
MOST_SHARED = {80: 163 * 1024, 90: 227 * 1024}

# Bytes that the assembler may spill of itself, to keep more programs at once.
MOST_SPILLED = 64


# Kernels, and whether they multiply matrices.
KERNELS = {
    'add_shares': False,
    'attend': True,
    'attend_backward_keys': True,
    'attend_backward_queries': True,
    'attend_stripes': True,
    'attend_stripes_backward_keys': True,
    'attend_stripes_backward_queries': True,
    'attend_windows': True,
    'attend_windows_backward': True,
    'convolve': False,
    'convolve_backward': False,
    'convolve_weights': False,
    'merge_runs': False,
    'sort_groups': False,
    'sort_runs': False,
}


def compile_operations(capability, dtype, channels):
    kernels = ahead_of_time.compile_operations(capability, dtype, channels)
    assert {kernel.name for kernel in kernels} == set(KERNELS)
    for kernel in kernels:
        assert kernel.shared <= MOST_SHARED[capability], kernel
        assert 0 < kernel.registers <= 255
    return kernels


def test_kernels_of_the_published_heads_fit_into_registers():
    kernels = compile_operations(90, torch.bfloat16, 32)
    # Stripes that a program holds.
    small = 90, torch.bfloat16, 32, (1, 49, 49, 2)
    for kernel in kernels + ahead_of_time.compile_operations(*small):
        assert kernel.spilled <= MOST_SPILLED, kernel
        # Keys are searched for one by one.
        assert kernel.loads == (8 if kernel.name == 'merge_runs' else 16)
        products = 'HGMMA' if KERNELS[kernel.name] else ''
        assert kernel.products == products, kernel


@pytest.mark.parametrize('height, width', [(66, 64), (49, 49)])
def test_attention_in_float32_fits_into_registers(height, width):
    with ahead_of_time.compiling_for(90) as kernels:
        shape = torch.float32, 32, 1, height, width, 2
        ahead_of_time.launch_window_attention(*shape)
        ahead_of_time.launch_stripes(*shape)
    assert len(kernels) == (5 if height > 64 else 4)
    for kernel in kernels:
        assert kernel.spilled <= MOST_SPILLED, kernel


def test_another_size_compiles_nothing_anew():
    """But for each power of two that is sorted."""
    compiled = {name: set() for name in KERNELS}
    for height in range(46, 65, 2):
        for width in (56, 61):
            for kernel in ahead_of_time.compile_operations(
                90, torch.bfloat16, 32, (2, height, width, 3)
            ):
                compiled[kernel.name].add(kernel.key)
    several = {'sort_groups': 6}
    for name, keys in compiled.items():
        assert len(keys) <= several.get(name, 1), name


def test_a_launch_asks_for_the_programs_of_its_map():
    with ahead_of_time.compiling_for(90) as kernels:
        ahead_of_time.launch_window_attention(torch.bfloat16, 32, 5, 56, 56, 3)
    assert [x.programs for x in kernels] == [5 * 64 * 3, 5 * 64 * 3]


def launch_clustering(*shape):
    with ahead_of_time.compiling_for(90) as kernels:
        ahead_of_time.launch_clustering(torch.bfloat16, 32, *shape)
    return kernels


def test_groups_beyond_a_program_compile_once_for_all_sizes():
    compiled = {}
    for height, width in ((66, 64), (100, 101), (200, 336), (333, 500)):
        for kernel in launch_clustering(2, height, width, 3):
            compiled.setdefault(kernel.name, set()).add(kernel.key)
    del compiled['sort_groups']  # for each power of two that it sorts
    assert set(compiled) == {'add_shares', 'merge_runs', 'sort_runs'}
    assert all(len(keys) == 1 for keys in compiled.values())


@pytest.mark.parametrize(
    'height, width, merges',
    [(64, 64, 0), (65, 64, 1), (512, 256, 1), (512, 257, 2)],
)
def test_launches_of_a_level(height, width, merges):
    """One for groups that a program sorts, a few for any larger one."""
    names = [x.name for x in launch_clustering(5, height, width, 2)]
    large = ['add_shares'] * 3 + ['sort_runs'] + ['merge_runs'] * merges
    first = large if merges else ['sort_groups']
    assert names[: len(first)] == first
    assert names[len(first)] in ('add_shares', 'sort_groups')  # the next
    assert names[-5:] == ['sort_groups'] * 5


@pytest.mark.slow
@pytest.mark.parametrize('channels', [12, 16, 24, 32, 48, 64])
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize('capability', MOST_SHARED)
def test_all_kernels(capability, dtype, channels):
    compile_operations(capability, dtype, channels)
