"""What differs between the predictions of one generation: light, shadow, crop and angle, all from one number.

Consecutive seeds walk through a table of light set-ups, so that neighbours differ visibly; a generator seeded
with the same number adds the small differences that no two frames of a shoot are without.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Variation:
    """One set-up of the studio."""

    seed: int
    light: str
    light_x: float
    """-1 light from the left .. 1 from the right."""
    light_back: float
    """-1 light from the camera's side (shadow falls behind) .. 1 from behind (shadow falls forward)."""
    hardness: float
    """0 a large soft box .. 1 a bare lamp."""
    shadow_length: float
    strength: float
    zoom: float
    shift_x: float
    shift_y: float
    angle: float
    """Degrees in the picture's plane; things that stand get a fraction of it."""
    yaw: float
    """Degrees of turning the camera around the product."""
    horizon: float


# name, light_x, light_back, hardness, shadow_length, zoom, yaw
_SET_UPS = (
    ("soft box left", -0.75, -0.45, 0.25, 0.50, 1.00, -1.2),
    ("window right, low", 0.95, -0.20, 0.50, 0.85, 0.94, 1.6),
    ("overhead", -0.12, 0.30, 0.15, 0.22, 1.05, 0.6),
    ("back left", -0.60, 0.75, 0.40, 0.50, 0.97, -1.9),
    ("soft box right", 0.70, -0.50, 0.20, 0.45, 1.03, 1.1),
    ("lamp left, high", -0.90, -0.10, 0.70, 0.60, 0.92, 2.1),
    ("front fill", 0.20, -0.85, 0.10, 0.30, 1.07, -0.5),
    ("back right", 0.65, 0.70, 0.45, 0.55, 0.95, -1.6),
)


def vary(seed: int, lighting: str | None = None) -> Variation:
    """The set-up of a seed; `lighting` (left, right, top, front, soft, hard) overrides its part of it."""
    name, light_x, light_back, hardness, length, zoom, yaw = _SET_UPS[seed % len(_SET_UPS)]
    random = np.random.default_rng(np.random.PCG64(abs(seed)))
    jitter = random.uniform(-1, 1, 12)
    asked = (lighting or "").lower()
    if "left" in asked:
        light_x, name = -abs(light_x) if abs(light_x) > 0.4 else -0.6, f"{name} (from the left)"
    elif "right" in asked:
        light_x, name = abs(light_x) if abs(light_x) > 0.4 else 0.6, f"{name} (from the right)"
    elif "top" in asked:
        light_x, length, name = light_x * 0.15, 0.20 + 0.1 * abs(light_back), f"{name} (from the top)"
    elif "front" in asked:
        light_x, light_back, name = light_x * 0.3, -0.85, f"{name} (from the front)"
    if "soft" in asked:
        hardness, name = hardness * 0.35, f"{name} (soft)"
    elif "hard" in asked:
        hardness, name = 0.65 + 0.35 * hardness, f"{name} (hard)"
    return Variation(
        seed=seed,
        light=name,
        light_x=float(np.clip(light_x + 0.08 * jitter[0], -1, 1)),
        light_back=float(np.clip(light_back + 0.10 * jitter[1], -1, 1)),
        hardness=float(np.clip(hardness + 0.06 * jitter[2], 0, 1)),
        shadow_length=length * (1 + 0.12 * float(jitter[3])),
        strength=1 + 0.10 * float(jitter[4]),
        zoom=zoom * (1 + 0.012 * float(jitter[5])),
        shift_x=0.014 * float(jitter[6]) - 0.012 * light_x,
        shift_y=0.008 * float(jitter[7]),
        angle=3.2 * float(np.sign(yaw)) * (0.55 + 0.45 * abs(float(jitter[8]))),
        yaw=yaw * (1 + 0.2 * float(jitter[9])),
        horizon=0.016 * float(jitter[10]),
    )
