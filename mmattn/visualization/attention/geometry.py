"""Map the tokens of a feature map to the network's input image.

Sizes are ``(height, width)``, positions ``(row, column)``.
"""

import math
from typing import NamedTuple

Size = tuple[int, int]

# If the sides of a token differ by more, the map is something else than a
# feature map of the image, such as a sequence.
_MAX_ASPECT = 2**0.5
_STRIDES = tuple(2**i for i in range(9))


class TokenGrid(NamedTuple):
    """Layout of tokens on an image.

    Attributes:
        size: Rows and columns of tokens.
        cell: Height and width of a token in pixels.
    """

    size: Size
    cell: tuple[float, float]

    def token_at(self, row: int, column: int) -> Size:
        """The token that contains a pixel."""
        axes = zip((row, column), self.cell, self.size)
        r, c = (min(int(x // cell), n - 1) for x, cell, n in axes)
        return r, c


def fit_tokens(size: Size, picture: Size) -> TokenGrid | None:
    """Find the stride between an image and a feature map.

    Where a stride does not divide the image, the last tokens extend beyond
    it.

    Args:
        size: Rows and columns of the map.
        picture: Height and width of the network's input in pixels.

    Returns:
        The grid, or None if the map is not a feature map of the image.
    """
    for stride in _STRIDES:
        if tuple(-(-side // stride) for side in picture) == tuple(size):
            return TokenGrid(tuple(size), (stride, stride))
    height, width = (side / n for side, n in zip(picture, size))
    if abs(math.log(height / width)) > math.log(_MAX_ASPECT):
        return None
    return TokenGrid(tuple(size), (height, width))
