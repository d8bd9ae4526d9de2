"""Derive from a seed what differs between the predictions of a generation: shadow, paper, crop and angle.

The product's own colors never differ: without a style they are those of the photo.

Consecutive seeds take consecutive rows of a table of light set-ups, so that neighbors differ visibly. A
random generator with the same seed adds small differences, as between two frames of a photo shoot.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Variation:
    """One set-up of light and camera."""

    seed: int
    light: str
    light_x: float
    """-1: light from the left; 1: from the right."""
    light_back: float
    """-1: light from the camera's side, shadow falls back; 1: from behind, shadow falls forward."""
    hardness: float
    """0: a large soft box; 1: a bare lamp."""
    shadow_length: float
    strength: float
    intensity: float
    """Brightness of the lamps on the background, around 1."""
    zoom: float
    shift_x: float
    shift_y: float
    angle: float
    """Rotation in the image plane, in degrees; standing products are not rotated."""
    yaw: float
    """Rotation of the camera around the product, in degrees."""
    horizon: float


# name, light_x, light_back, hardness, shadow_length, intensity, zoom, yaw, rise
_LIGHT_SETUPS = (
    ("soft box left", -0.75, -0.60, 0.25, 0.50, 1.00, 1.00, -1.6, 0.004),
    ("window right, low", 0.95, -0.45, 0.40, 0.60, 1.05, 0.93, 3.0, -0.014),
    ("overhead", -0.12, -0.30, 0.10, 0.22, 0.97, 1.06, 0.6, 0.012),
    ("back left", -0.60, 0.55, 0.30, 0.40, 0.94, 0.96, -3.4, -0.006),
    ("soft box right", 0.70, -0.65, 0.20, 0.45, 1.02, 1.03, 1.9, 0.016),
    ("lamp left, high", -0.90, -0.40, 0.55, 0.45, 1.07, 0.91, 3.8, -0.010),
    ("front fill", 0.20, -0.85, 0.08, 0.30, 1.03, 1.08, -0.8, 0.008),
    ("back right", 0.65, 0.50, 0.35, 0.42, 0.95, 0.95, -2.7, -0.016),
)


def sample_variation(seed: int, lighting: str | None = None) -> Variation:
    """Return the set-up of a seed.

    Args:
        lighting: Words that override a part of the set-up: left, right, top, front, soft, hard.
    """
    name, light_x, light_back, hardness, length, intensity, zoom, yaw, rise = _LIGHT_SETUPS[
        seed % len(_LIGHT_SETUPS)
    ]
    random = np.random.default_rng(np.random.PCG64(abs(seed)))
    jitter = random.uniform(-1, 1, 12)
    requested = (lighting or "").lower()
    if "left" in requested:
        light_x, name = -abs(light_x) if abs(light_x) > 0.4 else -0.6, f"{name} (from the left)"
    elif "right" in requested:
        light_x, name = abs(light_x) if abs(light_x) > 0.4 else 0.6, f"{name} (from the right)"
    elif "top" in requested:
        light_x, length, name = light_x * 0.15, 0.20 + 0.1 * abs(light_back), f"{name} (from the top)"
    elif "front" in requested:
        light_x, light_back, name = light_x * 0.3, -0.85, f"{name} (from the front)"
    if "soft" in requested:
        hardness, name = hardness * 0.35, f"{name} (soft)"
    elif "hard" in requested:
        hardness, name = 0.65 + 0.35 * hardness, f"{name} (hard)"
    return Variation(
        seed=seed,
        light=name,
        light_x=float(np.clip(light_x + 0.08 * jitter[0], -1, 1)),
        light_back=float(np.clip(light_back + 0.10 * jitter[1], -1, 1)),
        hardness=float(np.clip(hardness + 0.06 * jitter[2], 0, 1)),
        shadow_length=length * (1 + 0.12 * float(jitter[3])),
        strength=1 + 0.10 * float(jitter[4]),
        intensity=intensity + 0.012 * float(jitter[11]),
        zoom=zoom * (1 + 0.012 * float(jitter[5])),
        shift_x=0.014 * float(jitter[6]) - 0.020 * light_x,
        shift_y=rise + 0.006 * float(jitter[7]),
        angle=4.5 * float(np.sign(yaw)) * (0.45 + 0.55 * abs(float(jitter[8]))),
        yaw=yaw * (1 + 0.2 * float(jitter[9])),
        horizon=0.016 * float(jitter[10]),
    )
