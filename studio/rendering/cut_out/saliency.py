"""Saliency map: estimate where the product is before segmentation.

Minimum barrier distance from the image border (Zhang et al., "Minimum Barrier Salient Object Detection at 80
FPS", ICCV 2015): a pixel is salient if every path to the border crosses a change of color.
"""

from __future__ import annotations

import cv2
import numpy as np

from studio.rendering.color import smoothstep
from studio.rendering.model import Floats

_ROUNDS = 2


def barrier_distance(image: Floats) -> Floats:
    """Return per pixel the smallest color range on any path to the border, summed over the channels."""
    distance = np.full_like(image, np.inf)
    distance[0], distance[-1], distance[:, 0], distance[:, -1] = 0, 0, 0, 0
    upper, lower = image.copy(), image.copy()
    for _ in range(_ROUNDS):
        for axis in (0, 1):
            arrays = [np.swapaxes(array, 0, axis) for array in (image, distance, upper, lower)]
            _raster_pass(*arrays)
            _raster_pass(*(array[::-1] for array in arrays))
    return distance.sum(axis=2)


def _raster_pass(image: Floats, distance: Floats, upper: Floats, lower: Floats) -> None:
    """Run one raster pass along the first axis, in place."""
    for row in range(1, image.shape[0]):
        highest = np.maximum(upper[row - 1], image[row])
        lowest = np.minimum(lower[row - 1], image[row])
        cost = highest - lowest
        better = cost < distance[row]
        np.copyto(distance[row], cost, where=better)
        np.copyto(upper[row], highest, where=better)
        np.copyto(lower[row], lowest, where=better)


def saliency(image_lab: Floats) -> Floats:
    """Return per pixel how probably it belongs to the product, 0..1."""
    height, width = image_lab.shape[:2]
    barrier = _normalize(barrier_distance(cv2.GaussianBlur(image_lab, (0, 0), 1.0)))
    away = _normalize(_distance_to_border_colors(image_lab))
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    center = np.exp(-(((columns / width - 0.5) / 0.42) ** 2 + ((rows / height - 0.52) / 0.48) ** 2))
    raw = (0.62 * barrier + 0.38 * away) * (0.35 + 0.65 * center)
    return smoothstep(0.12, 0.75, _normalize(cv2.GaussianBlur(raw.astype(np.float32), (0, 0), 2.0)))


def _distance_to_border_colors(image_lab: Floats) -> Floats:
    """Return the distance to the nearest main color of the top and side borders.

    Products stand at the bottom.
    """
    edge = max(2, min(image_lab.shape[:2]) // 40)
    strips = [image_lab[:edge], image_lab[:, :edge], image_lab[:, -edge:]]
    samples = np.concatenate([strip.reshape(-1, 3) for strip in strips])
    cv2.setRNGSeed(1)
    criteria = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 12, 0.5)
    initial = np.zeros((0,), dtype=np.int32)
    _, labels, centers = cv2.kmeans(samples, 5, initial, criteria, 1, cv2.KMEANS_PP_CENTERS)
    share = np.bincount(labels.ravel(), minlength=5) / len(samples)
    distances = [
        np.linalg.norm(image_lab - center, axis=2)
        for center, part in zip(centers, share, strict=True)
        if part > 0.08
    ]
    return np.min(distances, axis=0).astype(np.float32)


def _normalize(values: Floats) -> Floats:
    low, high = np.percentile(values, (2, 98))
    return np.clip((values - low) / max(high - low, 1e-6), 0, 1).astype(np.float32)
