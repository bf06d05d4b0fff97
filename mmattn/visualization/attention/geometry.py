"""Where the tokens of a map lie on the picture that a network was given.

Sizes are ``(height, width)``, places ``(row, column)``.
"""

import math
from typing import NamedTuple

Size = tuple[int, int]

# Sides of a token that differ by more are no token of a picture: the map is
# something else, such as a sequence.
_MOST_OBLONG = 2**0.5
_LARGEST_STRIDE = 256


class TokenGrid(NamedTuple):
    """Tokens laid out on a picture.

    Attributes:
        size: Rows and columns of tokens.
        cell: Height and width of a token, in pixels of the picture.
    """

    size: Size
    cell: tuple[float, float]

    def token_at(self, row: int, column: int) -> Size:
        """The token that holds a pixel."""
        places = zip((row, column), self.cell, self.size)
        r, c = (min(int(x // cell), n - 1) for x, cell, n in places)
        return r, c


def fit_tokens(size: Size, picture: Size) -> TokenGrid | None:
    """Find how a map lies on the picture that it was made from.

    Networks round up where a stride does not divide the picture: the last
    tokens then reach beyond it.

    Args:
        size: Rows and columns of the map.
        picture: Height and width of what the network was given, in pixels.

    Returns:
        The grid, or None where the map is no map of the picture.
    """
    stride = 1
    while stride <= _LARGEST_STRIDE:
        if tuple(-(-side // stride) for side in picture) == tuple(size):
            return TokenGrid(tuple(size), (stride, stride))
        stride *= 2
    height, width = (side / n for side, n in zip(picture, size))
    if abs(math.log(height / width)) > math.log(_MOST_OBLONG):
        return None
    return TokenGrid(tuple(size), (height, width))
