"""Light and lens of a street scene: time of day, sky, surface texture, haze, blur, sensor noise."""

import cv2
import numpy as np

from dfad_seg.datasets.street.canvas import SKY, Canvas


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
