"""Names in messages."""

import pytest

from mmattn.checkpoints.naming import count_names, list_names


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
