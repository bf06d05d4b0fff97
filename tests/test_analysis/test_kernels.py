import pytest
import torch

from mmattn.analysis.kernels import measure_kernels, to_markdown


@pytest.fixture(scope='module')
def measured():
    lines = []
    rows = measure_kernels(
        3, (9, 14), 2, torch.device('cpu'), torch.float32, 1e9, 1, lines.append
    )
    return rows, lines


def test_all_that_can_run_is_measured(measured):
    rows, lines = measured
    found = {(row.operation, row.impl, row.mode) for row in rows}
    for mode in ('forward', 'training'):
        assert ('window_attention', 'cpp', mode) in found
        assert ('cluster_attention', 'sdpa', mode) in found
        assert ('mixed_convolution', 'reference', mode) in found
    assert ('balanced_clusters', 'reference', 'forward') in found
    assert ('balanced_clusters', 'reference', 'training') not in found
    assert ('mixed_expansion', 'parts', 'forward') in found
    assert ('mixed_expansion', 'parts', 'training') not in found
    if not any(impl == 'triton' for _, impl, _ in found):
        assert any(
            line.startswith('left out: window_attention cannot run')
            for line in lines
        )


def test_share_of_a_copy(measured):
    row = next(row for row in measured[0] if row.mode == 'forward')
    assert row.operation == 'window_attention'
    # A map of 2 heads, the bias, the result; float32.
    numbers = 3 * 9 * 14 * (3 * 64 + 64) + 2 * 49 * 49
    assert row.moved == 4 * numbers
    assert row.of_copy == pytest.approx(row.moved / row.seconds / 1e9)


def test_error_is_of_the_size_of_the_definition(measured):
    errors = [row.error for row in measured[0] if row.error is not None]
    assert max(errors) < 4
    assert errors.count(1.0) >= 3  # the definition beside itself


def test_table(measured):
    lines = to_markdown(measured[0]).splitlines()
    assert len(lines) == 2 + len(measured[0])
    assert lines[2].startswith('| window_attention | 3 x 9 x 14 x 192 | cpp')
