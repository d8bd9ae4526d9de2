"""Test the local renderer with real pixels: determinism, size, variation, time limits and provenance."""

from __future__ import annotations

import io
import itertools
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from importlib import import_module, resources

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from studio.rendering import (
    Background,
    CutOut,
    Grade,
    Mask,
    RenderRequest,
    adjust,
    cut_out_product,
    get_mask_provider,
    refine,
    render,
    score,
)
from studio.rendering.compose import framed_crop
from studio.rendering.compose.encode import encode
from studio.rendering.compose.framing import Placement, project_product
from studio.rendering.cut_out.cut_out import shrink_cut_out
from tests.images.measurements import compare, get_color_difference
from tests.support.sample_media import open_image
from tools.sample_images.mannequin import draw, encode_mannequin
from tools.sample_images.photograph import load_phone_photo

FRAMINGS = ("FULL_BODY", "THREE_QUARTER", "HALF_BODY", "CLOSE_UP", "DETAIL", "FLAT_LAY", "STILL_LIFE")
KINDS = ("SOLID", "GRADIENT", "SWEEP", "IMAGE")
SHADOWS = ("NONE", "CONTACT", "SOFT")


@pytest.fixture(scope="module")
def cut_out(photo: Image.Image) -> CutOut:
    return cut_out_product(photo)


@pytest.fixture(scope="module", autouse=True)
def _reused_saliency() -> Iterator[None]:
    """Find what stands out in a framed photo once, although each rendering asks for it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(framed_crop, "_saliency_weight", cache(framed_crop._saliency_weight))
        yield


@pytest.fixture(scope="module")
def noisy_photo() -> CutOut:
    """Return the cut-out of colored noise of several sizes, which contains no product."""
    random = np.random.default_rng(5)
    layers = [
        cv2.resize(
            random.integers(0, 256, (n, n, 3), dtype=np.uint8), (240, 320), interpolation=cv2.INTER_CUBIC
        )
        for n in (4, 12, 40)
    ]
    return cut_out_product(Image.fromarray(np.mean(layers, axis=0).astype(np.uint8)))


def find_everything(pixels: np.ndarray) -> Mask:
    """Return a mask of the whole photo, for tests that are not about masks."""
    height, width = pixels.shape[:2]
    return Mask(np.ones((height, width), np.float32), (0, 0, width, height), "all", 1.0, is_usable=True)


def difference_hash(image: Image.Image) -> np.ndarray:
    small = np.asarray(image.convert("L").resize((17, 16), Image.Resampling.LANCZOS)).astype(int)
    return small[:, 1:] > small[:, :-1]


def test_the_sample_photo_has_exif_rotation_and_a_gps_position() -> None:
    data = load_phone_photo()
    image = open_image(data)
    assert len(data) < 400_000
    assert image.getexif()[0x0112] == 6
    assert image.getexif().get_ifd(0x8825)
    assert image.width > image.height


def test_the_cut_out_of_the_sample_has_the_hole_of_the_handle_and_no_shadow(cut_out: CutOut) -> None:
    assert cut_out.method == "u2netp"
    assert cut_out.confidence > 0.9
    assert cut_out.standing
    enclosed, _ = cv2.connectedComponents((cut_out.alpha < 30).astype(np.uint8))
    holes = [
        np.sum(cv2.connectedComponents((cut_out.alpha < 30).astype(np.uint8))[1] == n)
        for n in range(1, enclosed)
    ]
    assert sum(size > 0.01 * cut_out.alpha.size for size in holes) >= 2
    lowest_right = cut_out.alpha[int(0.85 * cut_out.alpha.shape[0]) :, int(0.9 * cut_out.alpha.shape[1]) :]
    assert lowest_right.mean() < 3


def test_a_cutout_confirmed_at_half_size_is_not_repeated_at_full_size(
    photo: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    heights, cut = [], cv2.grabCut
    monkeypatch.setattr(cv2, "grabCut", lambda *args: (heights.append(len(args[0])), cut(*args)))
    small = photo.resize((180, 240))
    assert cut_out_product(small, find_mask=get_mask_provider("color")).method == "plain_background"
    assert heights == [240, 240, 120]


@pytest.mark.parametrize("background", [Background(), Background("SOLID", "#FFFFFF", shadow="CONTACT")])
def test_without_a_style_the_product_keeps_its_colors_in_every_prediction(
    cut_out: CutOut, background: Background
) -> None:
    medians, means = [], []
    for variant in range(4):
        request = RenderRequest(cut_out, 240, 320, background=background, variant=variant)
        found = compare(request, render(request))
        medians.append(float(np.median(get_color_difference(found.photographed, found.rendered))))
        means.append(found.rendered.mean(axis=0))
    assert max(medians) <= 1.0
    # The predictions differ in the shadow, the crop and the angle only.
    assert np.ptp(means, axis=0).max() < 0.5


@pytest.mark.parametrize("grade", [Grade(lighting="hard left"), Grade(tone="moody"), Grade(saturation=-60)])
def test_a_style_changes_the_colors_of_the_product(cut_out: CutOut, grade: Grade) -> None:
    request = RenderRequest(cut_out, 240, 320, grade=grade)
    found = compare(request, render(request))
    assert np.median(get_color_difference(found.photographed, found.rendered)) > 1


def test_an_enlarged_photo_does_not_show_the_blocks_of_its_compression(photo: Image.Image) -> None:
    encoded = io.BytesIO()
    photo.resize((150, 200)).save(encoded, "JPEG", quality=40)
    small = np.asarray(Image.open(io.BytesIO(encoded.getvalue())).convert("RGB"))
    whole = (0.0, 0.0, 600.0, 800.0)
    placement = Placement(np.diag([4.0, 4.0, 1.0]), 4.0, "lying", whole, frozenset(), 0, 0, 0)
    opaque = np.full((200, 150), 255, dtype=np.uint8)
    enlarged, _, _ = project_product(small, opaque, placement, 600, 800)
    cubic = cv2.resize(small, (600, 800), interpolation=cv2.INTER_CUBIC)
    true = np.asarray(photo.resize((600, 800))).astype(float)
    errors = [float(np.abs(pixels - true).mean()) for pixels in (enlarged, cubic)]
    assert errors[0] < 0.95 * errors[1]


@pytest.mark.usefixtures("real_cut_outs")
def test_the_same_seed_gives_the_same_bytes(photo: Image.Image) -> None:
    small = photo.resize((150, 200))
    colors = get_mask_provider("color")
    first = RenderRequest(cut_out_product(small, find_mask=colors), 120, 160, seed=41)
    # Other users of OpenCV's random generator in the same thread must not affect the result.
    cv2.setRNGSeed(99)
    second = RenderRequest(cut_out_product(small, find_mask=colors), 120, 160, seed=40, variant=1)
    for file_format in ("JPEG", "PNG", "WEBP", "AVIF"):
        rendered = [render(replace(request, file_format=file_format)) for request in (first, second)]
        assert rendered[0].image == rendered[1].image, file_format
        assert rendered[0].provenance == rendered[1].provenance


def test_predictions_of_one_generation_differ(cut_out: CutOut) -> None:
    request = RenderRequest(cut_out, 240, 320, seed=7)
    renderings = [render(replace(request, variant=variant)) for variant in range(8)]
    hashes = [difference_hash(open_image(rendering.image)) for rendering in renderings]
    for first, second in itertools.combinations(hashes, 2):
        assert np.count_nonzero(first != second) >= 6
    assert len({rendering.provenance["light"] for rendering in renderings}) == 8


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "AVIF"])
@pytest.mark.parametrize("size", [(301, 417), (640, 128), (64, 64)])
def test_the_image_has_exactly_the_requested_size_and_format(
    cut_out: CutOut, file_format: str, size: tuple[int, int]
) -> None:
    rendering = render(RenderRequest(cut_out, *size, file_format))
    image = open_image(rendering.image)
    assert (image.width, image.height, image.format) == (*size, file_format)
    assert rendering.content_type == f"image/{file_format.lower()}"
    assert not image.getexif()
    profile = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
    assert "sRGB" in ImageCms.getProfileDescription(profile)


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_framing_renders_on_every_background(
    cut_out: CutOut, noisy_photo: CutOut, photo: Image.Image, framing: str, kind: str, long_form: bool
) -> None:
    # In the short form, each shadow still meets each framing and each kind of background.
    first = FRAMINGS.index(framing) + KINDS.index(kind)
    shadows = SHADOWS if long_form else [SHADOWS[first % len(SHADOWS)]]
    for product, shadow in itertools.product((cut_out, noisy_photo), shadows):
        background = Background(kind, "#E8E4DD", "#BFB6A8", photo, shadow)
        rendering = render(RenderRequest(product, 90, 120, framing=framing, background=background))
        for name, value in rendering.quality.as_dict().items():
            assert 0 <= value <= 1, name


def test_closer_framings_show_the_product_larger(cut_out: CutOut) -> None:
    def scale(framing: str) -> float:
        left, _, right, _ = render(RenderRequest(cut_out, 300, 400, framing=framing)).provenance["crop"]
        return right - left

    assert scale("STILL_LIFE") < scale("HALF_BODY") < scale("CLOSE_UP") < scale("DETAIL")


@pytest.mark.parametrize("variant", range(8))
def test_the_margin_stays_clear(cut_out: CutOut, variant: int) -> None:
    background = Background("SOLID", "#FFFFFF", shadow="NONE")
    request = RenderRequest(
        cut_out, 400, 400, "PNG", framing="FULL_BODY", padding_percent=0, margin_percent=20, variant=variant
    )
    pixels = np.asarray(open_image(render(replace(request, background=background)).image))
    frame = np.ones((400, 400), dtype=bool)
    frame[76:324, 76:324] = False
    assert (pixels[frame] == 255).all()


def test_a_solid_background_keeps_its_exact_color_under_any_grade(cut_out: CutOut) -> None:
    background = Background("SOLID", "#F3E9DA", shadow="SOFT")
    grade = Grade(60, -40, 70, tone="moody", lighting="hard left")
    rendering = render(RenderRequest(cut_out, 300, 400, "PNG", background=background, grade=grade))
    pixels = np.asarray(open_image(rendering.image))
    assert (pixels[:20] == (0xF3, 0xE9, 0xDA)).all()


def test_a_gradient_is_dithered_and_does_not_band(cut_out: CutOut) -> None:
    background = Background("GRADIENT", "#808080", "#8A8A8A", shadow="NONE")
    rendering = render(RenderRequest(cut_out, 400, 800, "PNG", background=background, padding_percent=30))
    column = np.asarray(open_image(rendering.image))[:, 5, 1].astype(int)
    runs = np.diff(np.flatnonzero(np.diff(column) != 0))
    assert runs.max() < 40


@pytest.mark.slow("it renders a large photo")
def test_the_alpha_channel_of_a_file_is_used_as_the_cut_out() -> None:
    cut_out = cut_out_product(encode_mannequin("three_quarter"))
    assert (cut_out.method, cut_out.is_trusted) == ("alpha", True)
    rendering = render(RenderRequest(cut_out, 300, 400, framing="FULL_BODY"))
    assert rendering.provenance["cut_out"] == "alpha"


def test_the_larger_of_padding_and_margin_applies_and_a_still_life_fills_the_rest(cut_out: CutOut) -> None:
    request = RenderRequest(cut_out, 300, 400, padding_percent=8, margin_percent=5)
    for variant in range(8):
        left, _, right, _ = render(replace(request, variant=variant)).provenance["crop"]
        assert 0.78 * 300 <= right - left <= 0.85 * 300


def test_a_product_with_a_wavy_hem_hangs_and_one_with_a_flat_base_stands(cut_out: CutOut) -> None:
    photo = Image.open(io.BytesIO((resources.files("studio.seed.images") / "dress.jpg").read_bytes()))
    dress = cut_out_product(photo.resize((120, 160)), find_mask=get_mask_provider("color"))
    assert cut_out.standing
    assert not dress.standing
    assert render(RenderRequest(dress, 90, 120, framing="STILL_LIFE")).provenance["pose"] == "hanging"


def test_a_product_that_hangs_from_the_upper_edge_has_no_shadow_on_the_ground(cut_out: CutOut) -> None:
    lamp = replace(
        cut_out, product=cut_out.product[200:], alpha=cut_out.alpha[200:], touches=frozenset(("top",))
    )
    background = Background("SOLID", "#FFFFFF", shadow="SOFT")
    for variant in range(4):
        request = RenderRequest(lamp, 300, 400, "PNG", background=background, variant=variant)
        rendering = render(request)
        assert (rendering.provenance["pose"], rendering.provenance["crop"][1]) == ("hanging", 0)
        pixels = np.asarray(open_image(rendering.image)).astype(int)
        assert (pixels[0].min(axis=1) < 200).any()
        assert pixels[-10:].min() > 250


def test_a_shadow_that_cannot_be_computed_costs_the_shadow_only(
    cut_out: CutOut, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("an unexpected outline")

    request = RenderRequest(cut_out, 90, 120, background=Background("SOLID", shadow="SOFT"))
    without_shadow = render(replace(request, background=Background("SOLID", shadow="NONE")))
    monkeypatch.setattr("studio.rendering.compose.shadows.shadow_map", fail)
    rendering = render(request)
    assert (rendering.image, rendering.warnings) == (without_shadow.image, without_shadow.warnings)
    assert rendering.provenance == without_shadow.provenance | {
        "honoured_inputs": [
            name for name in without_shadow.provenance["honoured_inputs"] if name != "shadow"
        ],
        "ignored_inputs": ["shadow"],
    }
    (record,) = caplog.records
    assert record.getMessage() == "the image has no shadow, because it could not be computed"
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == "an unexpected outline"


@pytest.mark.parametrize("step", ["place_product", "project_product"])
def test_an_image_without_its_product_is_not_made(
    cut_out: CutOut, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("the step failed")

    # The package has a function of this name.
    monkeypatch.setattr(import_module("studio.rendering.compose.render"), step, fail)
    with pytest.raises(ValueError, match="the step failed"):
        render(RenderRequest(cut_out, 90, 120))


@pytest.mark.parametrize("quality", [88, 94, 100])
def test_an_image_of_strong_noise_is_encoded_as_jpeg(quality: int) -> None:
    noise = np.random.default_rng(6).integers(0, 256, (420, 400, 3), dtype=np.uint8)
    data, content_type = encode(noise, "JPEG", quality)
    assert content_type == "image/jpeg"
    assert len(data) > noise.shape[0] * noise.shape[1]
    decoded = np.asarray(open_image(data)).astype(int)
    assert np.abs(decoded - noise).mean() < 12


def test_a_small_product_that_may_not_be_enlarged_to_fit_is_in_the_middle(cut_out: CutOut) -> None:
    small = shrink_cut_out(cut_out, 40 / max(cut_out.alpha.shape))
    rendering = render(RenderRequest(small, 500, 500))
    left, top, right, bottom = rendering.provenance["crop"]
    assert max(right - left, bottom - top) < 0.6 * 500
    assert abs(left + right - 500) < 0.2 * 500
    assert abs(top + bottom - 500) < 0.2 * 500


@pytest.mark.parametrize("side", ["left", "right", "bottom"])
def test_a_product_that_its_photo_cuts_off_is_cut_off_by_the_same_edge(cut_out: CutOut, side: str) -> None:
    part = replace(cut_out, touches=frozenset((side,)))
    rendering = render(RenderRequest(part, 300, 400))
    left, _, right, bottom = rendering.provenance["crop"]
    assert rendering.provenance["pose"] == "bleeding"
    assert {"left": left == 0, "right": right == 300, "bottom": bottom == 400}[side]


def test_a_framed_crop_has_a_narrow_margin_and_a_detail_none(noisy_photo: CutOut) -> None:
    background = Background("SOLID", "#FF0000")
    for framing, margin in (("STILL_LIFE", 7), ("DETAIL", 0)):
        request = RenderRequest(noisy_photo, 300, 400, "PNG", framing=framing, background=background)
        pixels = np.asarray(open_image(render(request).image))
        red = (pixels == (255, 0, 0)).all(axis=2)
        assert not red[margin + 1 : 399 - margin, margin + 1 : 299 - margin].any()
        assert red[:, : margin // 2].all()


@pytest.mark.slow("it renders a large photo")
def test_a_wide_photo_in_a_tall_image_is_shown_whole_instead_of_enlarged_three_times() -> None:
    random = np.random.default_rng(3)
    pixels = cv2.resize(random.integers(0, 256, (20, 30, 3), dtype=np.uint8), (480, 320))
    rendering = render(RenderRequest(cut_out_product(Image.fromarray(pixels)), 720, 960))
    left, _, right, _ = rendering.provenance["framed_crop"]
    assert right - left == 480


def test_enlargement_beyond_the_photo_lowers_the_sharpness_score(photo: Image.Image) -> None:
    pixels = np.asarray(photo.resize((300, 400)))
    whole = np.full(pixels.shape[:2], 255, dtype=np.uint8)
    values = [score(pixels, whole, enlarged=enlarged).sharpness for enlarged in (0.5, 1.0, 1.6, 3.0)]
    assert values[0] == values[1] > values[2] > values[3]


def test_a_photo_without_a_confident_cut_out_becomes_a_framed_crop(noisy_photo: CutOut) -> None:
    rendering = render(RenderRequest(noisy_photo, 300, 400))
    assert rendering.provenance["cut_out"] == "framed_crop"
    assert rendering.provenance["pose"] == "framed"
    left, top, right, bottom = rendering.provenance["framed_crop"]
    assert 0 <= left < right <= 240
    assert 0 <= top < bottom <= 320
    assert rendering.quality.cut_out_edge == 0.5


@pytest.mark.parametrize("content", ["noise", "flat", "pixel", "line"])
@pytest.mark.slow("it measures the time of the network")
def test_an_image_without_a_product_is_rendered_quickly(content: str, real_network: None) -> None:
    image = {
        "noise": Image.fromarray(np.random.default_rng(1).integers(0, 256, (900, 900, 3), dtype=np.uint8)),
        "flat": Image.new("RGB", (300, 300), (90, 120, 60)),
        "pixel": Image.new("RGB", (1, 1)),
        "line": Image.new("RGB", (2000, 1), (250, 0, 0)),
    }[content]
    begin = time.process_time()
    rendering = render(RenderRequest(cut_out_product(image), 120, 160))
    assert rendering.provenance["cut_out"] == "framed_crop"
    assert time.process_time() - begin < 8


def test_every_image_mode_is_accepted(photo: Image.Image) -> None:
    small = photo.resize((45, 60))
    sixteen = Image.fromarray(np.asarray(small.convert("L")).astype(np.uint16) * 257)
    bitmap = small.convert("1")
    palette = small.convert("RGBA").quantize(64)
    modes = [small.convert(mode) for mode in ("L", "LA", "CMYK", "P", "I", "F")]
    for image in [*modes, sixteen, bitmap, palette, small.convert("YCbCr")]:
        product = cut_out_product(image, find_mask=find_everything)
        assert open_image(render(RenderRequest(product, 60, 80)).image).size == (60, 80)
        if image is sixteen:
            assert abs(product.photo.mean() - np.asarray(small.convert("L")).mean()) < 2


def test_a_blurred_product_scores_lower_in_sharpness(photo: Image.Image) -> None:
    pixels = np.asarray(photo.resize((600, 800)))
    whole = np.full(pixels.shape[:2], 255, dtype=np.uint8)
    values = [
        score(cv2.GaussianBlur(pixels, (0, 0), sigma) if sigma else pixels, whole).sharpness
        for sigma in (0, 1.0, 2.0, 4.0)
    ]
    assert values == sorted(values, reverse=True)
    assert values[0] > values[-1] + 0.2


def test_quality_falls_with_clipping_crowding_and_a_poor_edge() -> None:
    random = np.random.default_rng(2)
    pixels = np.clip(random.normal(130, 40, (400, 300, 3)), 0, 255).astype(np.uint8)
    alpha = np.zeros((400, 300), dtype=np.uint8)
    alpha[100:300, 75:225] = 255
    good = score(pixels, alpha, "STILL_LIFE", edge=0.9, margin=30)
    white = score(np.full_like(pixels, 255), alpha, "STILL_LIFE", edge=0.9, margin=30)
    crowded = np.zeros_like(alpha)
    crowded[100:400, 75:225] = 255
    assert white.exposure < 0.2 < good.exposure
    assert score(pixels, crowded, "STILL_LIFE", edge=0.9, margin=30).clearance < good.clearance
    assert score(pixels, alpha, "STILL_LIFE", edge=0.2, margin=30).score < good.score
    assert score(pixels, np.zeros_like(alpha), "STILL_LIFE").coverage == 0


def test_light_from_the_left_brightens_the_left_and_shades_to_the_right(cut_out: CutOut) -> None:
    def sides(lighting: str) -> tuple[float, float]:
        background = Background("SOLID", "#DDDDDD", shadow="SOFT")
        request = RenderRequest(
            cut_out, 300, 400, "PNG", background=background, grade=Grade(lighting=lighting)
        )
        pixels = np.asarray(open_image(render(request).image)).astype(float)
        return pixels[:, :150].mean(), pixels[:, 150:].mean()

    left, right = sides("left hard"), sides("right hard")
    assert left[0] - left[1] > right[0] - right[1]


def test_refining_enlarges_and_keeps_edges_crisp(photo: Image.Image) -> None:
    small = photo.resize((300, 400), Image.Resampling.LANCZOS)
    rendering = refine(small, 2.0, file_format="PNG")
    assert (rendering.width, rendering.height) == (600, 800)
    plain = np.asarray(small.resize((600, 800), Image.Resampling.BICUBIC))
    whole = np.full((800, 600), 255, dtype=np.uint8)
    assert rendering.quality.sharpness > score(plain, whole, "DETAIL").sharpness
    assert open_image(refine(small, width=450, height=600, file_format="WEBP").image).size == (450, 600)


def test_refining_to_another_shape_crops_instead_of_stretching(photo: Image.Image) -> None:
    small = photo.resize((300, 400), Image.Resampling.LANCZOS)
    square = open_image(refine(small, width=600, height=600, file_format="PNG").image)
    middle = small.crop((0, 50, 300, 350)).resize((600, 600), Image.Resampling.BICUBIC)
    assert np.abs(np.asarray(square).astype(int) - np.asarray(middle)).mean() < 4


def test_adjusting_grades_the_whole_image(photo: Image.Image) -> None:
    small = photo.resize((150, 200))
    before = np.asarray(small).astype(float)
    warm = np.asarray(open_image(adjust(small, Grade(temperature=80), file_format="PNG").image)).astype(float)
    gray = np.asarray(open_image(adjust(small, Grade(saturation=-100), file_format="PNG").image)).astype(int)
    same = np.asarray(open_image(adjust(small, Grade(), file_format="PNG").image))
    assert warm[..., 0].mean() > before[..., 0].mean()
    assert warm[..., 2].mean() < before[..., 2].mean()
    assert np.ptp(gray, axis=2).max() <= 1
    assert np.array_equal(same, np.asarray(small))


def test_progress_rises_to_one(cut_out: CutOut) -> None:
    reported: list[float] = []
    render(RenderRequest(cut_out, 120, 160), reported.append)
    assert reported == sorted(reported)
    assert reported[-1] == 1


def test_unsupported_inputs_are_listed_as_ignored(cut_out: CutOut) -> None:
    provenance = render(
        RenderRequest(cut_out, 60, 80, view_angle="BACK", grade=Grade(tone="zesty"))
    ).provenance
    assert provenance["ignored_inputs"] == ["tone", "view_angle"]


@pytest.mark.slow("it measures what `make bench-generation` measures")
def test_four_predictions_of_three_megapixels_take_less_than_ten_seconds(real_network: None) -> None:
    # CPU time of all threads, so that other load on the machine does not count.
    begin = time.process_time()
    cut_out = cut_out_product(ImageOps.exif_transpose(Image.open(io.BytesIO(load_phone_photo()))))
    for variant in range(4):
        render(RenderRequest(cut_out, 1536, 2048, "WEBP", variant=variant))
    assert time.process_time() - begin < 10


@pytest.mark.slow("it draws a sample image twice, which changes only with its script")
def test_the_mannequin_is_reproducible() -> None:
    first = encode_mannequin("front")
    image = open_image(first)
    assert first == encode_mannequin("front")
    assert (image.size, image.mode) == ((1200, 1600), "RGBA")


@pytest.mark.slow("it draws a sample image")
def test_a_light_product_before_a_light_background_is_cut_out_completely() -> None:
    figure = draw("front")
    paper = Image.new("RGBA", figure.size, (240, 238, 234, 255))
    cut_out = cut_out_product(Image.alpha_composite(paper, figure).convert("RGB"))
    known = np.asarray(figure.getchannel("A")) > 128
    left, top, right, bottom = cut_out.box
    assert cut_out.method == "u2netp"
    mask = np.zeros(known.shape, dtype=bool)
    mask[top:bottom, left:right] = cut_out.alpha > 128
    assert (mask & known).sum() / (mask | known).sum() > 0.97
