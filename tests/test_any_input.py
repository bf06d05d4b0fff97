"""Every registered module, whatever its kind: any size, any batch.

The tests of each kind ask more of it; this one leaves none out.
"""

import pytest
import torch
from registered import NAMES, build, call, make_args
from torch.utils._pytree import tree_map


@pytest.mark.parametrize('size', [(32, 32), (37, 101), (64, 45)])
@pytest.mark.parametrize('name', NAMES)
def test_an_image_gives_the_same_alone_and_in_any_batch(name, size):
    model = build(name).double().eval()
    args = make_args(name, 3, size, torch.float64)
    with torch.no_grad():
        together = call(model, args)
        turned = call(model, tree_map(lambda x: x.flip(0), args))
        alone = [
            call(model, tree_map(lambda x: x[i : i + 1], args))  # noqa: B023
            for i in range(3)
        ]
    assert all(out.isfinite().all() for out in together)
    assert all(out.std() > 0 for out in together)
    for i in range(3):
        for a, b, c in zip(alone[i], together, turned):
            torch.testing.assert_close(a[0], b[i], rtol=0, atol=1e-12)
            torch.testing.assert_close(a[0], c[2 - i], rtol=0, atol=1e-12)
