"""Colours, and the palette that the world uses for label maps."""

Colour = tuple[int, int, int]
"""Red, green, blue, 0-255."""


def bit_palette(count: int) -> tuple[Colour, ...]:
    """The first `count` (at most 256) colours of Pascal VOC's palette, all different; many tools write it for any ids.

    The rule of the VOC development kit (`VOClabelcolormap.m`): bits 0, 3, 6 of an index are the highest bits of red,
    1, 4, 7 of green, 2, 5 of blue.
    """

    def level(index: int, first: int) -> int:
        return sum((index >> first + 3 * place & 1) << 7 - place for place in range(3))

    return tuple((level(i, 0), level(i, 1), level(i, 2)) for i in range(count))
