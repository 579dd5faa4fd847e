"""Cars, people on foot and on bicycles; each function draws one at its place on the ground."""

from __future__ import annotations

import numpy as np

from dfad_seg.datasets.street.canvas import BICYCLIST, CAR, PEDESTRIAN, ROAD, Canvas, Colour, pick, tint

Rng = np.random.Generator

PAINTS = ((168, 28, 32), (32, 62, 148), (226, 228, 230), (28, 30, 34), (150, 154, 160), (30, 92, 74), (206, 150, 30))
CLOTHES = ((38, 40, 60), (120, 40, 52), (66, 70, 76), (60, 84, 130), (150, 140, 124), (90, 58, 96), (24, 26, 28))
BRIGHT = ((232, 230, 40), (250, 130, 24), (120, 236, 60), (240, 60, 150))
SKIN = ((224, 178, 148), (168, 118, 86), (104, 70, 52))


def car(canvas: Canvas, rng: Rng, x: float, z: float, *, oncoming: bool) -> None:
    """A car, van or bus as a box with a cabin; its rear, or its front if `oncoming`, faces the camera."""
    paint = pick(rng, PAINTS, 10)
    kind = rng.random()
    if kind < 0.78:
        half, length, body, top = 0.88, 4.2, 0.85, 1.5
    elif kind < 0.92:
        half, length, body, top = 0.98, 5.0, 1.1, 2.2
    else:
        half, length, body, top = 1.2, 9.0, 1.3, 3.0
    back = z + length
    glass = (40, 50, 62) if rng.random() < 0.7 else (96, 118, 136)
    a, b = x - half - 0.2, x + half + 0.2
    canvas.face([(a, 0, z - 0.3), (b, 0, z - 0.3), (b, 0, back), (a, 0, back)], (34, 34, 38), ROAD)  # shadow
    edge = half * 0.82 if kind < 0.92 else half
    slope = 0.7 if kind < 0.78 else 0.1
    visible = -1 if canvas.project([(x, 0, z)])[0][0] > canvas.centre else 1  # the flank turned to the camera
    flank = x + visible * half
    canvas.along(flank, z, back, 0.25, body, tint(paint, 0.72), CAR)
    roof = x + visible * edge
    side = [(flank, body, z), (flank, body, back - 0.5), (roof, top, back - 1), (roof, top, z + slope)]
    canvas.face(side, tint(glass, 0.8), CAR)
    for wheel in (z + 0.75, back - 0.75):
        canvas.along(flank, wheel - 0.34, wheel + 0.34, 0.0, 0.62, (22, 22, 24), CAR)

    def slab(a: float, low: float, near: float, b: float, high: float, far: float, colour: Colour) -> None:
        """From half width a, height and distance, to another."""
        canvas.face([(x - a, low, near), (x + a, low, near), (x + b, high, far), (x - b, high, far)], colour, CAR)

    # Roof, window, boot or bonnet, bumper, lights, plate.
    slab(edge, top, z + slope, edge, top, back - 1, tint(paint, 1.12))
    slab(half, body, z, edge, top, z + slope, paint)
    slab(half * 0.86, body + 0.06, z + 0.05, edge * 0.86, top - 0.14, z + slope * 0.9, glass)
    canvas.upright(x, z, -half, half, 0.28, body, paint, CAR)
    canvas.upright(x, z, -half, half, 0.28, 0.48, tint(paint, 0.6), CAR)
    light = (250, 246, 214) if oncoming else (190, 20, 24)
    for flip in (-1, 1):
        left, right = sorted((flip * half * 0.96, flip * half * 0.62))
        canvas.upright(x, z, left, right, body * 0.62, body * 0.86, light, CAR)
        left, right = sorted((flip * half * 0.95, flip * half * 0.65))
        canvas.upright(x, z, left, right, 0.0, 0.3, (20, 20, 22), CAR)
    plate = (236, 236, 228) if oncoming else (236, 206, 60)
    canvas.upright(x, z, -0.28, 0.28, 0.5, 0.64, plate, CAR)


def pedestrian(canvas: Canvas, rng: Rng, x: float, z: float) -> None:
    """A person on foot, 1.3 to 1.9 m tall, mid-stride."""
    tall = rng.uniform(1.55, 1.9) if rng.random() < 0.85 else rng.uniform(1.2, 1.4)
    coat, trousers, skin = pick(rng, CLOTHES), pick(rng, CLOTHES), pick(rng, SKIN, 8)
    wide = tall * rng.uniform(0.15, 0.2)
    stride = rng.uniform(0.02, 0.13) * tall
    hip = 0.5 * tall
    ((u, v),) = canvas.project([(x, 0.0, z)])
    s = canvas.scale(z)
    for foot in (-stride, stride):
        leg = [(-wide * 0.8, hip), (wide * 0.8, hip), (foot + wide * 0.5, 0.0), (foot - wide * 0.5, 0.0)]
        canvas.fill([(u + a * s, v - b * s) for a, b in leg], tint(trousers, 0.9 if foot < 0 else 1.1), PEDESTRIAN)
    hem = hip - rng.uniform(0, 0.16) * tall
    canvas.upright(x, z, -wide, wide, hem, 0.84 * tall, coat, PEDESTRIAN)
    canvas.upright(x, z, -wide * 1.35, -wide * 0.85, 0.45 * tall, 0.82 * tall, tint(coat, 0.8), PEDESTRIAN)
    canvas.upright(x, z, wide * 0.85, wide * 1.35, 0.45 * tall, 0.82 * tall, tint(coat, 1.15), PEDESTRIAN)
    canvas.disc(x, 0.92 * tall, z, (0.075 * tall, 0.085 * tall), skin, PEDESTRIAN)
    if rng.random() < 0.7:
        hair = pick(rng, ((40, 30, 24), (96, 70, 44), (24, 22, 22)), 8)
        canvas.disc(x, 0.96 * tall, z, (0.075 * tall, 0.05 * tall), hair, PEDESTRIAN)
    if rng.random() < 0.35:
        bag = pick(rng, CLOTHES)
        canvas.upright(x, z, wide * 1.1, wide * 1.9, 0.3 * tall, 0.5 * tall, bag, PEDESTRIAN)


def bicyclist(canvas: Canvas, rng: Rng, x: float, z: float) -> None:
    """A rider on a bicycle, seen from behind or ahead, or crossing from the side."""
    top = pick(rng, BRIGHT if rng.random() < 0.7 else CLOTHES)
    trousers, skin = pick(rng, CLOTHES), pick(rng, SKIN, 8)
    helmet = pick(rng, (*BRIGHT, (236, 236, 236)))
    frame = pick(rng, ((180, 40, 40), (40, 80, 170), (40, 40, 44), (60, 150, 90)))
    tyre = (26, 26, 28)
    ((u, v),) = canvas.project([(x, 0.0, z)])
    s = canvas.scale(z)

    def part(points: list[tuple[float, float]], colour: Colour) -> None:
        canvas.fill([(u + a * s, v - b * s) for a, b in points], colour, BICYCLIST)

    if rng.random() < 0.5:  # from the side
        way = 1 if rng.random() < 0.5 else -1
        for wheel in (-0.55, 0.55):
            canvas.disc(x + wheel, 0.36, z, (0.36, 0.36), tyre, BICYCLIST)
            canvas.disc(x + wheel, 0.36, z, (0.25, 0.25), (120, 122, 124), BICYCLIST)
        part([(way * -0.55, 0.3), (way * -0.55, 0.45), (way * 0.4, 0.85), (way * 0.5, 0.72)], frame)
        part([(way * 0.0, 0.25), (way * 0.14, 0.25), (way * -0.1, 0.95), (way * -0.28, 0.95)], trousers)
        part([(way * 0.0, 0.25), (way * 0.16, 0.3), (way * 0.28, 0.75), (way * 0.1, 0.8)], tint(trousers, 1.2))
        part([(way * -0.3, 0.85), (way * 0.02, 0.85), (way * 0.34, 1.42), (way * 0.02, 1.5)], top)
        part([(way * 0.14, 1.35), (way * 0.3, 1.4), (way * 0.58, 1.0), (way * 0.48, 0.92)], tint(top, 0.8))
        canvas.disc(x + way * 0.3, 1.6, z, (0.15, 0.17), skin, BICYCLIST)
        canvas.disc(x + way * 0.28, 1.7, z, (0.18, 0.12), helmet, BICYCLIST)
    else:
        part([(-0.09, 0.0), (0.09, 0.0), (0.09, 0.8), (-0.09, 0.8)], tyre)
        part([(-0.34, 0.98), (0.34, 0.98), (0.34, 1.08), (-0.34, 1.08)], frame)
        part([(-0.26, 0.2), (-0.1, 0.2), (-0.06, 0.95), (-0.26, 0.95)], trousers)
        part([(0.1, 0.35), (0.26, 0.35), (0.26, 0.95), (0.06, 0.95)], tint(trousers, 1.2))
        part([(-0.28, 0.85), (0.28, 0.85), (0.24, 1.48), (-0.24, 1.48)], top)
        part([(-0.4, 1.0), (-0.26, 1.0), (-0.2, 1.42), (-0.3, 1.42)], tint(top, 0.8))
        part([(0.26, 1.0), (0.4, 1.0), (0.3, 1.42), (0.2, 1.42)], tint(top, 0.8))
        part([(-0.28, 1.12), (0.28, 1.12), (0.28, 1.2), (-0.28, 1.2)], (236, 238, 240))
        canvas.disc(x, 1.6, z, (0.14, 0.17), skin, BICYCLIST)
        canvas.disc(x, 1.69, z, (0.17, 0.13), helmet, BICYCLIST)
