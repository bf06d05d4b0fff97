"""Names in messages."""

import pytest

from mmattn.checkpoints.naming import by_table, count_names, list_names


@pytest.mark.parametrize(
    'names, listed, counted',
    [
        ('', '', '0'),
        ('ab', 'a, b', '2 (a, b)'),
        ('abcdef', 'a, b, c, d, e, f', '6 (a, b, c, d, e, f)'),
        ('abcdefg', 'a, b, c, d, e, f, ...', '7 (a, b, c, d, e, f, ...)'),
    ],
)
def test_the_first_few_names_are_shown(names, listed, counted):
    assert list_names(list(names)) == listed
    assert count_names(dict.fromkeys(names)) == counted


@pytest.mark.parametrize(
    'old, new',
    [
        ('norm1.weight', 'norm0.weight'),
        ('norm10.bias', 'norm9.bias'),
        ('norm0.weight', None),
        ('norm.weight', None),
        ('norm1.a.weight', None),
        ('block2.7.fc1.bias', 'stages.3.blocks.7.mlp.1.bias'),
        ('block2.7.fc1', None),
    ],
)
def test_names_by_table(old, new):
    module = 'block#.#', 'stages.#+1.blocks.#', {'fc#.*': 'mlp.#.*'}
    assert by_table({'norm#.*': 'norm#-1.*'}, module)(old) == new
