"""The memory of one token does not grow with the map."""

import pytest
import torch

from mmattn.backbones import SMT, AttentionPyramid, BOATCSWin, BOATSwin, CSWin

# Some attend to the whole map in their last stages: what these keep is linear
# in the tokens too, though their time is not.
BUILD = {
    'boat-swin': lambda: BOATSwin('nano'),
    'boat-cswin': lambda: BOATCSWin('nano'),
    'cswin': lambda: CSWin('nano'),
    'enltb': lambda: AttentionPyramid('enltb-nano'),
    'smt': lambda: SMT('nano'),
    'swin': lambda: AttentionPyramid('swin-nano'),
}


@pytest.mark.parametrize('name', BUILD)
def test_bytes_kept_per_token_do_not_grow(name, kept_bytes):
    model = BUILD[name]().train()
    weights = [*model.parameters(), *model.buffers()]

    def kept(side):
        x = torch.rand(1, 3, side, side)
        return kept_bytes(lambda: sum(y.sum() for y in model(x)), weights)

    # Twice the side, four times the tokens.
    assert kept(448) < 4.1 * kept(224)
