"""What the machine is and reaches."""

import pytest
import torch

from mmattn.analysis import machine
from mmattn.analysis.timing import Lap


@pytest.fixture
def clock(monkeypatch):
    """Every call takes half a second, and some rounds are disturbed."""

    def time_in_turns(calls, rounds, min_seconds):
        for call in calls.values():
            call()
        laps = [Lap(seconds, 0.0) for seconds in (0.9, 0.5, 0.7)]
        return dict.fromkeys(calls, laps)

    monkeypatch.setattr(machine, 'time_in_turns', time_in_turns)
    monkeypatch.setattr(machine, '_MATRIX_SIDE', dict(cpu=10))
    monkeypatch.setattr(machine, '_COPIED_BYTES', dict(cpu=1000))


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_rates_are_those_of_the_best_round(clock, dtype):
    found = machine.measure_machine(torch.device('cpu'), dtype)
    assert found.name
    assert found.matmul_rate == 2 * 10**3 / 0.5
    assert found.copy_bandwidth == 2 * 1000 / 0.5


def test_versions():
    versions = machine.list_versions()
    assert versions['torch'] == torch.__version__
    assert {'python', 'mmattn'} <= set(versions)
    assert any('mmengine' in name for name in versions)
