"""The plan of a street: ground, houses, and where things stand; drawn from far to near."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from dfad_seg.datasets.street import objects
from dfad_seg.datasets.street.canvas import BUILDING, PAVEMENT, ROAD, TREE, VOID, Canvas, Colour, Weather, pick, tint

Put = Callable[..., None]
"""`put(z, draw, *arguments)`: draw a thing at distance `z` once all that is farther away is drawn."""


def draw_street(canvas: Canvas, rng: np.random.Generator, weather: Weather) -> None:
    """Everything between the sky and the camera."""
    half = rng.uniform(3.0, 4.8)  # of the road
    walk = {side: rng.uniform(2.4, 4.5) for side in (-1, 1)}
    _skyline(canvas, rng, weather)
    _ground(canvas, rng, half, walk)
    things: list[tuple[float, Callable[[], None]]] = []

    def put(z: float, draw: Callable[..., None], *arguments: Any, **options: Any) -> None:
        things.append((z, partial(draw, canvas, rng, *arguments, **options)))

    for side in (-1, 1):
        _frontage(canvas, rng, weather, side, side * (half + walk[side]), put)
        _pavement_things(rng, side, half, walk[side], put)
    for lane in (-1, 1):
        if rng.random() < 0.55:
            z = rng.uniform(8, 30)
            put(z, objects.car, lane * half * 0.45, z, oncoming=lane < 0)
    for _ in range(rng.integers(1, 3)):
        z = rng.uniform(5, 12)
        put(z, objects.bicyclist, rng.uniform(-0.85, 0.85) * half, z)
    if rng.random() < 0.35:  # someone crosses the road
        z = rng.uniform(7, 14)
        put(z, objects.pedestrian, rng.uniform(-0.8, 0.8) * half, z)
    things.sort(key=lambda thing: -thing[0])
    for _, draw in things:
        draw()
    if rng.random() < 0.3:  # the bonnet of the camera's own car
        radius = (canvas.width * rng.uniform(0.45, 0.7), canvas.height * rng.uniform(0.05, 0.11))
        colour = tint(pick(rng, objects.PAINTS), 0.5)
        canvas.oval(canvas.width * rng.uniform(0.4, 0.6), canvas.height, radius, colour, VOID)


def _pavement_things(rng: np.random.Generator, side: int, half: float, walk: float, put: Put) -> None:
    """Lamps, signs, trees, people, rails and parked cars along one pavement."""
    kerb = side * (half + 0.45)
    z = rng.uniform(5, 12)
    while z < 40:
        put(z, objects.lamp, side, kerb, z)
        z += rng.uniform(9, 16)
    for _ in range(rng.integers(1, 3)):
        z = rng.uniform(5, 14)
        put(z, objects.sign, kerb + side * 0.3, z)
    for _ in range(rng.integers(0, 3)):
        z = rng.uniform(7, 32)
        put(z, objects.tree, side * (half + walk - 0.7), z)
    for _ in range(rng.integers(1, 4)):
        z = rng.uniform(4.5, 12)
        put(z, objects.pedestrian, side * (half + rng.uniform(0.6, walk - 0.4)), z)
    if rng.random() < 0.2:
        z = rng.uniform(4, 9)
        put(z, objects.bin_or_box, side * (half + rng.uniform(0.6, 1.6)), z)
    if rng.random() < 0.4:  # a guard rail
        near = rng.uniform(5, 12)
        far = near + rng.uniform(4, 12)
        put(far, objects.fence, kerb, near, far, height=1.0)
    if rng.random() < 0.6:  # parked cars
        z = rng.uniform(6, 14)
        for _ in range(rng.integers(1, 4)):
            put(z, objects.car, side * (half - 1.1), z, oncoming=rng.random() < 0.5)
            z += rng.uniform(5.5, 9)


def _frontage(canvas: Canvas, rng: np.random.Generator, weather: Weather, side: int, x: float, put: Put) -> None:
    """What lines the street behind one pavement: buildings, hedges, fences with trees behind; its shadow."""
    light = (weather.sides[side], weather.front)
    shadows = []
    reach = rng.uniform(0.3, 1.6)  # shadow length over height
    near = rng.uniform(1.0, 5.0)
    while near < 70:
        far = near + rng.uniform(6, 15)
        kind = rng.random()
        if kind < 0.5:
            height = rng.uniform(5.0, 14.0)
            put(far, objects.building, side, x, near, far, height, light)
        elif kind < 0.66:
            height = rng.uniform(1.2, 3.4)
            put(far, objects.hedge, side, x, near, far, height)
        else:
            height = rng.uniform(1.2, 2.0)
            for z in rng.uniform(near + 1, far, 2):
                put(far + 0.2, objects.tree, x + side * 3, z)
            put(far, objects.fence, x, near, far, height=height)
        edge = x - side * height * reach
        corners = [(x, 0, near), (x, 0, far), (edge, 0, far + height * 0.3), (edge, 0, near + height * 0.3)]
        shadows.append(canvas.project(corners))
        near = far
    if weather.sunny and side == weather.sun_side:
        canvas.darken(shadows, weather.shadow)


def _ground(canvas: Canvas, rng: np.random.Generator, half: float, walk: dict[int, float]) -> None:
    stone = pick(rng, ((168, 160, 150), (150, 150, 152), (182, 170, 150), (164, 140, 128)), 10)
    asphalt = pick(rng, ((84, 84, 88), (98, 96, 96), (70, 72, 78), (112, 108, 104)), 8)
    distances = np.array([0.6, 1.5, 2, 3, 4, 6, 9, 14, 22, 35, 60, 110])

    def strip(left: float, right: float, near: float, far: float, colour: Colour, label: int) -> None:
        z = np.concatenate([[near], distances[(distances > near) & (distances < far)], [far]])
        sides = [[(x, 0.0, place) for place in z] for x in (left, right)]
        canvas.face(sides[0] + sides[1][::-1], colour, label)

    strip(-160, 160, 0.6, 110, stone, PAVEMENT)
    strip(-half, half, 0.6, 110, asphalt, ROAD)
    if rng.random() < 0.5:  # worn wheel tracks or a patch of other asphalt
        a = rng.uniform(-half, half * 0.5)
        near = rng.uniform(3, 9)
        strip(a, a + rng.uniform(0.8, 2), near, near + rng.uniform(2, 20), tint(asphalt, rng.uniform(0.82, 1.15)), ROAD)
    for side in (-1, 1):
        inner = side * half
        strip(inner, inner + side * 0.22, 0.6, 110, tint(stone, 1.18), PAVEMENT)
        joint = tint(stone, 0.86)
        for z in np.arange(2.5, 14, 1.5):  # joints between slabs
            strip(inner, inner + side * walk[side], z, z + 0.012 * z, joint, PAVEMENT)
        line = rng.random()
        if line < 0.35:  # edge lines
            yellow = (206, 176, 60) if line < 0.18 else (214, 214, 206)
            strip(side * (half - 0.35), side * (half - 0.22), 0.6, 60, yellow, ROAD)
    white = (216, 216, 210)
    if rng.random() < 0.85:  # centre line
        dash, gap = (3.0, rng.uniform(2, 5)) if rng.random() < 0.8 else (50.0, 1.0)
        z = rng.uniform(1, 4)
        while z < 50:
            strip(-0.09, 0.09, z, z + dash, white, ROAD)
            z += dash + gap
    if rng.random() < 0.2:  # a zebra crossing
        z = rng.uniform(7, 12)
        for x in np.arange(-half + 0.4, half - 0.4, 1.1):
            strip(x, x + 0.55, z, z + 2.6, white, ROAD)


def _skyline(canvas: Canvas, rng: np.random.Generator, weather: Weather) -> None:
    x = -160.0
    while x < 160:
        wide = rng.uniform(8, 26)
        if rng.random() < 0.55:
            colour = tint(pick(rng, objects.WALLS), 0.8)
            colour = tuple(0.6 * np.asarray(colour) + 0.4 * weather.sky_low)
            canvas.upright(x, 120, 0, wide, -2, rng.uniform(6, 20), colour, BUILDING)
        else:
            colour = tuple(0.7 * np.asarray(pick(rng, objects.GREENS)) + 0.3 * weather.sky_low)
            canvas.upright(x, 119, -2, wide + 2, -2, 4, colour, TREE)
            for _ in range(4):
                canvas.disc(x + rng.uniform(0, wide), 4, 119, (rng.uniform(4, 9), rng.uniform(3, 7)), colour, TREE)
        x += wide * rng.uniform(0.8, 1.1)
