"""tools/dev/benchmark_kernels.py."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

TOOL = Path(__file__).parents[2] / 'tools' / 'dev' / 'benchmark_kernels.py'


@pytest.fixture
def tool():
    spec = importlib.util.spec_from_file_location(TOOL.stem, TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_implementation_that_can_run_is_measured(tool):
    cases = list(tool.make_cases((2, 9, 14, 2), 'cpu', torch.float32))
    rows = [
        [cell.strip() for cell in line.strip('|').split('|')]
        for case in cases
        for line in tool.measure(case, bandwidth=1e9, seconds=0)
    ]
    found = {(operation, impl, mode) for operation, _, impl, mode, *_ in rows}
    for operation in (case.operation for case in cases):
        assert (operation, 'reference', 'inference') in found
    assert ('window_attention', 'sdpa', 'training') in found
    assert ('balanced_clusters', 'reference', 'training') not in found
    for *_, ms, share, error in rows:
        assert float(ms) > 0 and float(share.rstrip('%')) > 0
        assert error == '' or float(error) < 4
    errors = {error for _, _, impl, *_, error in rows if impl == 'reference'}
    assert errors == {'', '1.00'}


def test_share_of_a_copy_counts_all_bytes(tool):
    case = next(tool.make_cases((1, 7, 7, 1), 'cpu', torch.float32))
    _, moved = tool.time_call(case, 'reference', 'inference', 0)
    # qkv and the result, then the bias: 49 tokens, 32 channels, one head.
    assert moved == 4 * (49 * 4 * 32 + 49 * 49)
    assert tool.time_call(case, 'reference', 'training', 0)[1] == 3 * moved


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')
def test_without_a_gpu(tool, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', [str(TOOL), '--device', 'cuda'])
    with pytest.raises(SystemExit):
        tool.main()
    assert '--device' in capsys.readouterr().err
