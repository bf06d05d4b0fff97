"""The backbones that compilers and exporters are shown."""

import pytest

MOST = [
    ('AttentionPyramid', 'swin-nano'),
    ('BOATSwin', 'nano'),
    ('CSWin', 'nano'),
    ('BOATCSWin', 'nano'),
    ('SMT', 'nano'),
]
OTHERS = ['enltb-nano', 'key-value-nano', 'sliding-window-nano']


@pytest.fixture(
    params=[
        *MOST,
        *(
            pytest.param(('AttentionPyramid', arch), marks=pytest.mark.slow)
            for arch in OTHERS
        ),
    ],
    ids='-'.join,
)
def nano(request):
    """Registered name and arch, of every kind of attention."""
    return request.param
