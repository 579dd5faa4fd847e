"""What stands along a street and moves on it; each function draws one thing at its place on the ground."""

from functools import partial

import numpy as np

from dfad_seg.datasets.street.canvas import (
    BICYCLIST,
    BUILDING,
    CAR,
    FENCE,
    PEDESTRIAN,
    POLE,
    ROAD,
    SIGN,
    TREE,
    VOID,
    Canvas,
    Colour,
    pick,
    tint,
)

Rng = np.random.Generator

WALLS = ((150, 82, 66), (176, 148, 116), (196, 186, 164), (128, 104, 92), (168, 112, 84), (142, 138, 132))
GREENS = ((62, 98, 44), (84, 118, 48), (48, 82, 46), (104, 122, 52), (128, 112, 44))
PAINTS = ((168, 28, 32), (32, 62, 148), (226, 228, 230), (28, 30, 34), (150, 154, 160), (30, 92, 74), (206, 150, 30))
CLOTHES = ((38, 40, 60), (120, 40, 52), (66, 70, 76), (60, 84, 130), (150, 140, 124), (90, 58, 96), (24, 26, 28))
BRIGHT = ((232, 230, 40), (250, 130, 24), (120, 236, 60), (240, 60, 150))
SKIN = ((224, 178, 148), (168, 118, 86), (104, 70, 52))


def building(
    canvas: Canvas, rng: Rng, side: int, x: float, near: float, far: float, height: float, light: tuple[float, float]
) -> None:
    """A block whose street front runs at `x` from z = `near` to `far`, on the left (-1) or right (1).

    `light` holds the brightness of the street front and of the face towards the camera.
    """
    wall = pick(rng, WALLS)
    roof = tint(pick(rng, ((110, 62, 50), (84, 86, 94), (128, 96, 72))), light[1])
    glass = pick(rng, ((44, 54, 68), (74, 92, 112), (150, 172, 190), (206, 186, 120)), 10)
    trim = tint(pick(rng, ((220, 214, 200), (92, 84, 78), (188, 178, 160))), light[0])
    canvas.upright(x, near, min(0, side * 30), max(0, side * 30), 0, height, tint(wall, light[1]), BUILDING)
    canvas.along(x, near, far, 0, height, tint(wall, light[0]), BUILDING)
    if rng.random() < 0.6:  # a pitched roof seen from the street, with its gable
        ridge, rise = x + side * rng.uniform(2.5, 4.5), height + rng.uniform(1.2, 2.8)
        canvas.face([(x, height, near), (x, height, far), (ridge, rise, far), (ridge, rise, near)], roof, BUILDING)
        gable = [(x, height, near), (ridge, rise, near), (2 * ridge - x, height, near)]
        canvas.face(gable, tint(wall, light[1]), BUILDING)
    floors = int(height // 2.9)
    length = far - near
    columns = int(np.clip(length // rng.uniform(2.2, 3.6), 1, 5))
    step = length / columns
    if near > 40:  # too far for windows
        return
    shop = rng.random() < 0.35
    fascia = pick(rng, ((150, 40, 40), (40, 70, 120), (50, 96, 60), (190, 160, 70), (60, 56, 60)))
    for floor in range(floors):
        low = floor * 2.9 + 0.9
        if floor == 0 and shop:
            canvas.along(x, near + 0.3, far - 0.3, 0.3, 2.3, tint(glass, light[0]), BUILDING)
            canvas.along(x, near + 0.2, far - 0.2, 2.3, 2.9, tint(fascia, light[0]), BUILDING)
            continue
        for column in range(columns):
            start = near + (column + 0.22) * step
            end = near + (column + 0.78) * step
            lit = 1.0 if rng.random() > 0.15 else 1.5
            if floor == 0 and column % 3 == 1:  # a door
                canvas.along(x, start, end, 0.0, 2.2, tint(fascia, light[0]), BUILDING)
                continue
            if near < 22:
                canvas.along(x, start - 0.15, end + 0.15, low - 0.15, low + 1.5, trim, BUILDING)
            canvas.along(x, start, end, low, low + 1.35, tint(glass, light[0] * lit), BUILDING)
    # The face towards the camera has windows as well; those of low floors are mostly hidden.
    for floor in range(1 if near > 25 else 0, floors):
        for column in range(2):
            middle, low = side * (1.6 + 3.2 * column), floor * 2.9 + 0.9
            canvas.upright(x, near, middle - 0.6, middle + 0.6, low, low + 1.4, tint(glass, light[1]), BUILDING)


def tree(canvas: Canvas, rng: Rng, x: float, z: float) -> None:
    """A tree, trunk included: a crown of overlapping blobs, lighter above than below."""
    height = rng.uniform(4.0, 8.0)
    green = pick(rng, GREENS, 14)
    trunk = pick(rng, ((84, 66, 48), (104, 88, 70), (62, 54, 46)), 8)
    stem = rng.uniform(0.14, 0.26)
    canvas.upright(x, z, -stem, stem, 0, height * 0.6, trunk, TREE)
    radius = height * rng.uniform(0.24, 0.34)
    for _ in range(11 if z < 22 else 6):
        dx, dy = rng.uniform(-0.75, 0.75) * radius, rng.uniform(-0.7, 0.8) * radius
        size = radius * rng.uniform(0.35, 0.62)
        light = 0.72 + 0.42 * (dy / radius + 0.7) / 1.5 + rng.uniform(-0.1, 0.1)
        canvas.disc(x + dx, height - radius + dy, z, (size, size * 0.9), tint(green, light), TREE)


def hedge(canvas: Canvas, rng: Rng, side: int, x: float, near: float, far: float, height: float) -> None:
    """A wall of shrubs along the street, with a bumpy top."""
    green = pick(rng, GREENS, 14)
    canvas.upright(x, near, min(0, side * 20), max(0, side * 20), 0, height, tint(green, 0.95), TREE)
    canvas.along(x, near, far, 0, height, tint(green, 0.8), TREE)
    for place in np.linspace(near, far, 7):
        size = rng.uniform(0.5, 0.9)
        canvas.disc(x, height, place, (size, size * 0.7), tint(green, rng.uniform(0.75, 1.1)), TREE)


def fence(canvas: Canvas, rng: Rng, x: float, near: float, far: float, *, height: float) -> None:
    """A fence along the street: boards, railings or mesh with posts.  Its gaps count as fence."""
    kind = rng.integers(3)
    base = pick(rng, ((156, 116, 72), (196, 200, 204), (72, 92, 112)) if kind != 1 else ((70, 84, 104), (60, 90, 76)))
    canvas.along(x, near, far, 0, height, tint(base, 0.55 if kind else 0.8), FENCE)
    step = 0.45 if kind else 0.3
    place = near
    while place < far:
        # Boards too thin to be seen would only cost time.
        width = max(step * 0.5, place * 0.012)
        end = min(place + width, far)
        canvas.along(x, place, end, 0, height, base, FENCE)
        place += max(step, 2 * width)
    for low in (0.15, 0.8) if kind != 1 else (0.85,):
        a, b = low * height, (low + 0.12) * height
        canvas.along(x, near, far, a, b, tint(base, 1.25), FENCE)


def lamp(canvas: Canvas, rng: Rng, side: int, x: float, z: float) -> None:
    """A lamp post, its arm over the road."""
    grey = pick(rng, ((70, 74, 78), (122, 126, 128), (54, 66, 60), (160, 160, 152)), 8)
    height = rng.uniform(5.0, 8.0)
    wide = rng.uniform(0.12, 0.19)
    canvas.upright(x, z, -wide, wide, 0, height, grey, POLE)
    canvas.upright(x, z, -wide * 0.2, wide, 0, height, tint(grey, 1.3), POLE)
    canvas.upright(x, z, -wide * 1.7, wide * 1.7, 0, 0.9, tint(grey, 0.85), POLE)
    reach = -side * rng.uniform(0.8, 1.7)
    canvas.upright(x, z, min(0, reach), max(0, reach), height - 0.22, height, grey, POLE)
    canvas.upright(x, z, min(reach, reach * 0.6), max(reach, reach * 0.6), height - 0.4, height, tint(grey, 1.3), POLE)


def sign(canvas: Canvas, rng: Rng, x: float, z: float) -> None:
    """A traffic sign, board or light on its post (the post is a pole)."""
    grey = pick(rng, ((112, 116, 118), (146, 148, 146), (86, 88, 90)), 8)
    kind = rng.integers(5)
    high = rng.uniform(2.1, 2.9)
    size = rng.uniform(0.42, 0.62)
    canvas.upright(x, z, -0.09, 0.09, 0, high + size, grey, POLE)
    red, blue, white = (200, 26, 34), (28, 70, 176), (238, 238, 236)
    if kind == 0:  # prohibition
        canvas.disc(x, high, z, (size, size), red, SIGN)
        canvas.disc(x, high, z, (size * 0.68, size * 0.68), white, SIGN)
        canvas.upright(x, z, -size * 0.35, size * 0.35, high - size * 0.14, high + size * 0.14, (40, 40, 44), SIGN)
    elif kind == 1:  # warning
        for scale, colour in ((1.25, red), (0.75, white)):
            s = size * scale
            canvas.face([(x - s, high - s * 0.7, z), (x + s, high - s * 0.7, z), (x, high + s, z)], colour, SIGN)
    elif kind == 2:  # mandatory
        canvas.disc(x, high, z, (size, size), blue, SIGN)
        canvas.upright(x, z, -size * 0.16, size * 0.16, high - size * 0.55, high + size * 0.55, white, SIGN)
    elif kind == 3:  # direction board
        ground = (blue, (24, 110, 70), (236, 196, 40))[rng.integers(3)]
        canvas.upright(x, z, -size * 1.5, size * 1.5, high - size * 0.7, high + size * 0.7, white, SIGN)
        canvas.upright(x, z, -size * 1.35, size * 1.35, high - size * 0.55, high + size * 0.55, ground, SIGN)
        for row in (-0.25, 0.2):
            low, right = high + row * size, size * rng.uniform(0.2, 0.9)
            canvas.upright(x, z, -size * 0.9, right, low, low + 0.2 * size, white, SIGN)
    else:  # traffic light
        canvas.upright(x, z, -0.34, 0.34, high - 0.75, high + 0.75, (30, 32, 32), SIGN)
        lit = rng.integers(3)
        for lamp_number, colour in enumerate(((246, 40, 36), (250, 180, 30), (50, 230, 110))):
            glow = colour if lamp_number == lit else tint(colour, 0.3)
            canvas.disc(x, high + 0.46 - 0.46 * lamp_number, z, (0.2, 0.2), glow, SIGN)


def bin_or_box(canvas: Canvas, rng: Rng, x: float, z: float) -> None:
    """A bin or letter box: one of the things that CamVid's classes leave out (void)."""
    colour = pick(rng, ((60, 120, 60), (186, 30, 34), (40, 60, 110), (70, 70, 70)))
    high = rng.uniform(0.9, 1.4)
    canvas.upright(x, z, -0.35, 0.35, 0, high, colour, VOID)
    canvas.upright(x, z, -0.4, 0.4, high - 0.12, high, tint(colour, 0.7), VOID)


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
    for foot in (-stride, stride):
        leg = [(-wide * 0.8, hip), (wide * 0.8, hip), (foot + wide * 0.5, 0.0), (foot - wide * 0.5, 0.0)]
        canvas.figure(x, z, leg, tint(trousers, 0.9 if foot < 0 else 1.1), PEDESTRIAN)
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
    part = partial(canvas.figure, x, z, label=BICYCLIST)
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
