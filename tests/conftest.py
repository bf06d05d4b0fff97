"""Fixtures that several test modules share."""

import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

TESTS = Path(__file__).parent
sys.path.insert(0, str(TESTS / 'golden'))


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture
def golden_case():
    """Read one case of ``tests/golden`` by its name."""
    import golden

    def load(name):
        case = golden.load_case(TESTS / 'golden' / f'{name}.npz')
        golden.check_rng(case)
        return case

    return load


@pytest.fixture
def process_group(tmp_path):
    """A gloo process group of this process alone."""
    dist.init_process_group(
        'gloo', init_method=f'file://{tmp_path}/store', rank=0, world_size=1
    )
    yield
    dist.destroy_process_group()


@pytest.fixture(params=[torch.bfloat16, torch.float16], ids=str)
def half(request):
    """A half-precision type that autocast takes on this machine."""
    try:
        with torch.autocast('cpu', request.param):
            pass
    except RuntimeError as error:
        pytest.skip(str(error))
    return request.param


@pytest.fixture
def kept_bytes():
    """Count the bytes that a call keeps for its backward pass."""

    def count(call):
        kept = {}

        def pack(tensor):
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            out = call()  # held: a freed storage's place is taken again
        assert torch.is_tensor(out)
        return sum(kept.values())

    return count
