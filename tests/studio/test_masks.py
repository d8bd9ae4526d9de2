"""Test the mask providers: the network that ships, its determinism, other networks, and honest confidence."""

from __future__ import annotations

import hashlib
import io
import shutil
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from studio.infrastructure.mask_models import MaskModel, choose_mask_model
from studio.providers.local_renderer import RenderContext, render_best_image
from studio.rendering import (
    DOUBTFUL,
    Background,
    CutOut,
    Mask,
    RenderRequest,
    cut_out_product,
    get_mask_provider,
    measure_preview,
    render,
)
from studio.rendering.cut_out import inference as mask_network
from studio.rendering.cut_out.inference import UnusableMaskModel, open_network
from studio.rendering.cut_out.network_mask import drop_small_pieces
from studio.rendering.cut_out.weights import U2NETP

SHA256 = "309c8469258dda742793dce0ebea8e6dd393174f89934733ecc8b14c76f4ddd8"
WHITE = Background("SOLID", "#FFFFFF", shadow="NONE")


@pytest.fixture
def opencv_threads() -> Iterator[None]:
    before = cv2.getNumThreads()
    yield
    cv2.setNumThreads(before)


def draw_rope() -> Image.Image:
    """Return a thin rope on pure white."""
    pixels = np.full((900, 900, 3), 255, np.uint8)
    turns = np.linspace(0, 24, 4_000)
    points = np.stack([450 + 14 * turns * np.cos(turns), 450 + 14 * turns * np.sin(turns)], axis=1)
    cv2.polylines(pixels, [points.astype(np.int32)], False, (40, 60, 120), 3, cv2.LINE_AA)
    return Image.fromarray(pixels)


def find_doubtful_mask(pixels: np.ndarray) -> Mask:
    """Return a mask of which its provider is not sure."""
    height, width = pixels.shape[:2]
    return Mask(np.full((90, 90), 0.6, np.float32), (0, 0, width, height), "torn", 0.1, is_usable=True)


def to_pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def test_the_network_is_the_file_that_its_notice_names() -> None:
    assert hashlib.sha256(U2NETP.read_bytes()).hexdigest() == SHA256
    notice = U2NETP.with_name("NOTICE").read_text()
    assert SHA256 in notice
    assert "Apache License 2.0" in notice
    assert "DUTS" in notice
    assert "Apache License" in U2NETP.with_name("LICENSE").read_text()


@pytest.mark.slow("it runs the network without reusing results")
def test_the_same_photo_gives_the_same_cut_out_with_any_number_of_threads(
    photo: Image.Image, opencv_threads: None, real_network: None, long_form: bool
) -> None:
    def cut_out(_: int) -> CutOut:
        return cut_out_product(photo, 320)

    cv2.setNumThreads(1)
    expected = cut_out(0)
    cv2.setNumThreads(4)
    with ThreadPoolExecutor(2) as pool:
        # Each takes two seconds of CPU; the second one runs at the same time.
        for result in pool.map(cut_out, range(2 if long_form else 1)):
            assert np.array_equal(result.alpha, expected.alpha)
            assert np.array_equal(result.product, expected.product)
            assert result.confidence == expected.confidence


def test_a_network_is_loaded_when_a_photo_needs_it_and_stays_loaded_if_it_is_large(
    photo: Image.Image, monkeypatch: pytest.MonkeyPatch, real_network: None
) -> None:
    photo = photo.resize((150, 200))
    loads, load = [], cv2.dnn.readNetFromONNX
    monkeypatch.setattr(cv2.dnn, "readNetFromONNX", lambda path: (loads.append(path), load(path))[1])
    # The results do not matter here, and the networks would take seconds.
    monkeypatch.setattr(mask_network, "_run", lambda *args: np.zeros(args[-1].shape[2:], np.float32))
    transparent = photo.convert("RGBA")
    transparent.putalpha(Image.linear_gradient("L").resize(photo.size))
    assert cut_out_product(transparent).method == "alpha"
    assert cut_out_product(photo, find_mask=get_mask_provider("color")).method == "plain_background"
    assert loads == []
    cut_out_product(photo, 200)
    assert loads == [str(U2NETP)]
    assert mask_network._load_network.cache_info().currsize == 0
    monkeypatch.setattr(mask_network, "_MIN_KEPT_BYTES", 1)
    threads = [threading.Thread(target=cut_out_product, args=(photo, 200)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert loads == [str(U2NETP)] * 2
    mask_network._load_network.cache_clear()


@pytest.mark.slow("it runs the network without reusing results")
def test_an_operator_can_point_to_a_network_of_their_own(tmp_path: Path, photo: Image.Image) -> None:
    path = tmp_path / "Better-Model.onnx"
    shutil.copy(U2NETP, path)
    own = cut_out_product(photo, 320, get_mask_provider(str(path), "u2net"))
    assert own.method == "better-model"
    assert np.array_equal(own.alpha, cut_out_product(photo, 320).alpha)


def test_a_process_chooses_what_finds_products(photo: Image.Image) -> None:
    assert cut_out_product(photo).method == "u2netp"
    choose_mask_model(MaskModel("color"))
    try:
        assert cut_out_product(photo.resize((150, 200))).method == "plain_background"
    finally:
        choose_mask_model(MaskModel())


def test_a_network_that_is_missing_or_of_another_type_is_named(tmp_path: Path, photo: Image.Image) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not a network")
    for path in (broken, tmp_path / "missing.onnx"):
        with pytest.raises(UnusableMaskModel, match=path.name):
            cut_out_product(photo, 320, get_mask_provider(str(path)))


def test_a_network_whose_output_is_no_mask_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Classifier:
        def setInput(self, values: np.ndarray) -> None:
            assert values.shape == (1, 3, 1024, 1024)

        def forward(self, _output: str) -> np.ndarray:
            return np.zeros((1, 1000), np.float32)

    monkeypatch.setattr(mask_network, "_load_network", cache(lambda path: (Classifier(), "classes")))
    with (
        pytest.raises(UnusableMaskModel, match="does not run as a model of the type isnet"),
        open_network(U2NETP, "isnet") as predict,
    ):
        predict(np.zeros((20, 20, 3), np.uint8))


def test_a_network_is_freed_although_the_caller_keeps_the_function(monkeypatch: pytest.MonkeyPatch) -> None:
    class Network:
        pass

    networks: weakref.WeakSet[Network] = weakref.WeakSet()

    def load(_path: Path) -> tuple[Network, str]:
        network = Network()
        networks.add(network)
        return network, "mask"

    monkeypatch.setattr(mask_network, "_load_network", cache(load))
    # The function is still a variable here, like that of the mask provider which measures the mask next.
    with open_network(U2NETP, "u2net") as predict:
        assert len(networks) == 1
    assert callable(predict)
    assert not networks


def test_a_photo_without_an_object_is_never_a_confident_cut_out() -> None:
    random = np.random.default_rng(5)
    clouds = [cv2.resize(random.integers(0, 256, (n, n, 3), dtype=np.uint8), (480, 640)) for n in (4, 12, 40)]
    for pixels in (np.mean(clouds, axis=0).astype(np.uint8), np.full((300, 400, 3), 120, np.uint8)):
        cut_out = cut_out_product(Image.fromarray(pixels))
        assert cut_out.confidence < 0.5
        assert not DOUBTFUL.isdisjoint(cut_out.warnings)


def test_a_framed_crop_scores_at_most_0_4_and_has_a_warning() -> None:
    cut_out = cut_out_product(Image.new("RGB", (900, 900), (90, 120, 60)))
    rendering = render(RenderRequest(cut_out, 300, 400, framing="DETAIL"))
    assert rendering.provenance["cut_out"] == "framed_crop"
    assert rendering.warnings[0] == "not_cut_out"
    assert rendering.quality.score <= 0.4
    assert rendering.quality.confidence == 0
    assert measure_preview(RenderRequest(cut_out, 300, 400)).warnings == rendering.warnings


def test_a_photo_on_white_without_a_reliable_mask_keeps_its_background() -> None:
    cut_out = cut_out_product(draw_rope(), find_mask=find_doubtful_mask)
    assert cut_out.method == "extended_photo"
    assert cut_out.warnings == ("background_already_compliant",)
    rendering = render(RenderRequest(cut_out, 600, 800, "PNG", background=WHITE, padding_percent=8))
    pixels = to_pixels(rendering.image)
    assert rendering.warnings == ("background_already_compliant",)
    assert (pixels[:40] == 255).all()
    assert (pixels[:, :40] == 255).all()
    # The rope is complete and as dark as in the photo.
    assert pixels.min() < 60
    dark = np.asarray(draw_rope()).min(axis=2) < 200
    assert (pixels.min(axis=2) < 200).sum() / rendering.provenance["crop"][2] > 0.2 * dark.sum() / 900


def test_a_photo_on_white_that_should_have_another_background_is_not_cut_out() -> None:
    slate = Background("SOLID", "#445566", shadow="SOFT")
    cut_out = cut_out_product(draw_rope(), find_mask=find_doubtful_mask)
    rendering = render(RenderRequest(cut_out, 300, 400, "PNG", background=slate))
    assert rendering.warnings == ("not_cut_out", "background_already_compliant")
    assert rendering.quality.score <= 0.4
    assert {"background", "shadow"} <= set(rendering.provenance["ignored_inputs"])
    assert (to_pixels(rendering.image)[:20] == 255).all()


def test_a_small_product_is_reported_as_low_resolution_and_its_image_as_enlarged(photo: Image.Image) -> None:
    small = cut_out_product(photo.resize((150, 200)), find_mask=get_mask_provider("color"))
    assert small.warnings == ("low_resolution",)
    assert render(RenderRequest(small, 600, 800)).warnings == ("low_resolution", "enlarged")
    assert render(RenderRequest(small, 90, 120)).warnings == ("low_resolution",)


def test_a_doubtful_mask_is_shown_with_a_warning(photo: Image.Image) -> None:
    cut_out = cut_out_product(photo, find_mask=find_doubtful_mask)
    assert (cut_out.method, cut_out.confidence) == ("torn", 0.1)
    assert render(RenderRequest(cut_out, 300, 400)).warnings == ("mask_uncertain", "touches_edge")


def test_a_product_that_the_photo_cuts_off_is_reported(photo: Image.Image) -> None:
    small, colors = photo.resize((150, 200)), get_mask_provider("color")
    _, top, _, bottom = cut_out_product(small, find_mask=colors).box
    half = small.crop((0, 0, 150, (top + bottom) // 2)).resize((300, top + bottom))
    cut_out = cut_out_product(half, find_mask=colors)
    assert cut_out.touches == {"bottom"}
    assert "touches_edge" in cut_out.warnings


def test_agentic_generations_do_not_stop_at_a_doubtful_image(photo: Image.Image) -> None:
    scene = {
        "background": {"kind": "SOLID", "color": "#FFFFFF", "color_end": None, "shadow": "NONE"},
        "grade": {},
        "width": 60,
        "height": 80,
        "file_format": "JPEG",
        "quality": 90,
        "framing": "STILL_LIFE",
        "view_angle": "FRONT",
        "padding_percent": 8,
        "margin_percent": 0,
    }
    doubtful = cut_out_product(photo, 60, find_doubtful_mask)
    for cut_out, attempts in ((cut_out_product(photo), 1), (doubtful, 3)):
        context = RenderContext(scene, "GENERATE", cut_out=cut_out)
        image = render_best_image(context, 0, 0, 3, 0.0, lambda _share: None)
        assert image.settings["tries"] == attempts
        assert image.quality["confidence"] == round(cut_out.confidence, 4)


def draw_pieces(*others: tuple[int, int, int, int, float]) -> np.ndarray:
    """Return a mask of a large piece with a soft edge, and of other pieces: x, y, width, height and value."""
    mask = np.zeros((200, 200), np.float32)
    mask[40:140, 40:160] = 1
    mask = cv2.GaussianBlur(mask, (0, 0), 1.5)
    for x, y, width, height, value in others:
        mask[y : y + height, x : x + width] = value
    return mask


def test_a_wheel_beside_the_product_stays_and_what_lies_around_it_does_not() -> None:
    near, far, unsure = (60, 144, 16, 16, 0.95), (60, 175, 16, 16, 0.95), (120, 144, 16, 16, 0.6)
    kept = drop_small_pieces(draw_pieces(near, far, unsure))
    assert kept[150, 66] > 0.9
    assert kept[180, 66] == 0
    assert kept[150, 126] == 0


def test_a_piece_that_the_network_connects_with_the_product_stays() -> None:
    faint, end = (100, 140, 4, 35, 0.3), (98, 175, 8, 8, 0.8)
    assert drop_small_pieces(draw_pieces(faint, end))[178, 101] > 0.7
    assert drop_small_pieces(draw_pieces(end))[178, 101] == 0


def test_a_speck_that_is_dropped_makes_no_hole_in_the_edge_of_the_product() -> None:
    speck = (100, 143, 2, 1, 0.6)
    expected = draw_pieces()[139:143, 95:107]
    assert np.array_equal(drop_small_pieces(draw_pieces(speck))[139:142, 95:107], expected[:3])
