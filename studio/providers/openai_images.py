"""The provider OPENAI_IMAGES: what a server that speaks the Images API supports, and its requests.

Hosted servers and servers on a GPU of one's own speak the same API with small differences, which the
`dialect` of a model's configuration names:

- `openai` (the API reference at platform.openai.com/docs/api-reference/images): `image[]`, and a `mask`
  that is transparent where the image may change. No seed and no negative prompt.
- `vllm_omni` (docs.vllm.ai/projects/vllm-omni, Image Edit API): `mask_image` is white where the image may
  change; `seed` and `negative_prompt` are fields.
- `localai` (localai.io/features/image-generation): no `/images/edits`; `/images/generations` takes base64
  images as `ref_images`, and `|` separates prompt and negative prompt.

Knows no rows and no network: `openai_images_client` sends the requests.
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from studio.infrastructure.http_client import encode_multipart
from studio.infrastructure.settings import Settings
from studio.media.digital_source_type import DigitalSourceType
from studio.providers import local

PROVIDER = "OPENAI_IMAGES"
STRATEGIES = frozenset({"GENERATE", "EDITING", "BACKGROUND_FIXING", "FACE_FIXING"})
MAX_PIXELS = local.MAX_PIXELS
MAX_SIDE = local.MAX_SIDE
SOURCE_TYPE = DigitalSourceType.TRAINED_ALGORITHMIC_MEDIA
"""How a generative model makes images, unless its files say otherwise."""
PRESERVED_SOURCE_TYPE = DigitalSourceType.COMPOSITE_WITH_TRAINED_ALGORITHMIC_MEDIA
"""The same with the pixels of the product pasted over the result."""
SUPPORTED_INPUTS = frozenset(
    {
        *("lighting", "framing", "perspective", "background", "tone", "pose", "extra_prompt"),
        *("negative_prompt", "generated_prompt", "subject_description", "product_description"),
        *("subject_id", "subject_slug", "style_id", "style_slug", "product_id", "product_slug"),
        "preserve_product",
    }
)

DIALECTS = ("openai", "vllm_omni", "localai")
OPTIONS = ("quality", "background", "output_format", "input_fidelity", "moderation", "response_format")
"""Entries of the configuration that are sent as they are: which ones exist depends on the server's model."""
FIXED_SIZES = ((1024, 1024), (1536, 1024), (1024, 1536))
"""The sizes of the `openai` dialect without `sizes`: those that every GPT image model has."""
DEFAULT_MAX_SIDE = 1536
MAX_CONFIGURED_SIDE = 4_096
SIDE_STEP = 16
"""Sides of free sizes are multiples of this number: diffusion models need it."""
MAX_IMAGES_PER_REQUEST = 8
MAX_TIMEOUT_SECONDS = 900
_SIZE = re.compile(r"([1-9][0-9]{1,3})x([1-9][0-9]{1,3})")

Size = tuple[int, int]


class ImagesUnavailable(Exception):
    """The server is unreachable or its response is unusable; a fallback provider may render instead."""

    max_failures = 0
    """How many such failures of one generation are followed by another request."""


class RequestRejected(ImagesUnavailable):
    """The server works, but rejects the request or lacks credit. The same request would not succeed."""


@dataclass(frozen=True)
class ImagesServer:
    """The server of models whose configuration names none, from the settings of the process."""

    base_url: str | None = None
    api_key: str | None = field(default=None, repr=False)
    timeout_seconds: int = 180

    @classmethod
    def from_settings(cls, settings: Settings) -> ImagesServer:
        """Return the server of a process with these settings."""
        return cls(
            settings.openai_images_url,
            settings.openai_images_api_key,
            settings.openai_images_timeout_seconds,
        )

    @property
    def host(self) -> str | None:
        """The host and port of the server, in the format of `OUTBOUND_ALLOWED_HOSTS`."""
        if self.base_url is None:
            return None
        parts = urlsplit(self.base_url)
        return f"{parts.hostname}:{parts.port or (443 if parts.scheme == 'https' else 80)}"


@dataclass(frozen=True)
class ImagesConfig:
    """A model of an Images API, from the provider configuration of a generation model."""

    base_url: str
    """The URL before `/v1`."""
    api_key: str | None = field(repr=False)
    model: str
    dialect: str = "openai"
    sizes: tuple[Size, ...] = FIXED_SIZES
    """The sizes that the model renders; empty for any size."""
    max_side: int = DEFAULT_MAX_SIDE
    """The longer side of free sizes, in pixels."""
    max_images: int = MAX_IMAGES_PER_REQUEST
    timeout_seconds: int = 180
    options: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_config(cls, config: Mapping[str, Any] | None, server: ImagesServer) -> ImagesConfig:
        """Read a provider configuration; what it omits comes from the settings of the process.

        The API key of the settings is for the server of the settings only: a model with a `base_url` of its
        own never gets it.

        Raises:
            RequestRejected: An entry is missing or invalid. The message contains no values.
        """
        entries = {name: str(value).strip() for name, value in (config or {}).items() if value}
        own_url = entries.get("base_url")
        base_url = own_url or server.base_url
        if not base_url:
            raise RequestRejected("neither the provider configuration nor OPENAI_IMAGES_URL names a server")
        if not entries.get("model"):
            raise RequestRejected("the provider configuration has no model")
        dialect = entries.get("dialect", DIALECTS[0])
        if dialect not in DIALECTS:
            raise RequestRejected(
                f"dialect of the provider configuration must be one of {', '.join(DIALECTS)}"
            )
        return cls(
            base_url=base_url.rstrip("/").removesuffix("/v1"),
            api_key=entries.get("api_key") or (None if own_url else server.api_key),
            model=entries["model"],
            dialect=dialect,
            sizes=_parse_sizes(entries.get("sizes"), dialect),
            max_side=_parse_number(entries, "max_side", 256, MAX_CONFIGURED_SIDE, DEFAULT_MAX_SIDE),
            max_images=_parse_number(
                entries, "max_images_per_request", 1, MAX_IMAGES_PER_REQUEST, MAX_IMAGES_PER_REQUEST
            ),
            timeout_seconds=_parse_number(
                entries, "timeout_seconds", 1, MAX_TIMEOUT_SECONDS, server.timeout_seconds
            ),
            options={name: entries[name] for name in OPTIONS if name in entries},
        )

    @property
    def accepts_seed(self) -> bool:
        """Whether a seed makes a difference."""
        return self.dialect == "vllm_omni"

    def choose_size(self, width: int, height: int) -> Size:
        """Return the size to request for an image of this size: the closest ratio, then the most pixels."""
        if self.sizes:
            return min(
                self.sizes,
                key=lambda size: (
                    round(abs(math.log(size[0] / size[1]) - math.log(width / height)), 3),
                    -size[0] * size[1],
                ),
            )
        factor = min(1.0, self.max_side / max(width, height))
        across, down = (
            max(SIDE_STEP, round(side * factor / SIDE_STEP) * SIDE_STEP) for side in (width, height)
        )
        return across, down


@dataclass(frozen=True)
class EditRequest:
    """What to render. Images are PNG files."""

    prompt: str
    negative_prompt: str
    size: Size
    seed: int
    images: Sequence[bytes]
    mask_alpha: bytes | None = None
    """The mask that is transparent where the first image may change; None if it may change everywhere."""
    mask_white: bytes | None = None
    """The same mask, white where the first image may change."""


@dataclass(frozen=True)
class HttpBody:
    """The path, media type and content of a request."""

    path: str
    content_type: str
    content: bytes


def build_body(config: ImagesConfig, request: EditRequest, count: int) -> HttpBody:
    """Return the request for a number of images.

    Texts are values of their own fields only: the multipart encoder and JSON escape them, and a prompt cannot
    become the negative prompt.
    """
    fields: dict[str, Any] = {
        "model": config.model,
        "prompt": _build_prompt(config, request),
        "n": count,
        "size": f"{request.size[0]}x{request.size[1]}",
        **config.options,
    }
    if config.dialect == "vllm_omni":
        fields["seed"] = request.seed
        if request.negative_prompt:
            fields["negative_prompt"] = request.negative_prompt
    if config.dialect != "localai":
        return _build_multipart(config, request, fields)
    fields.setdefault("response_format", "b64_json")
    fields["ref_images"] = [base64.b64encode(image).decode() for image in request.images]
    return HttpBody("/v1/images/generations", "application/json", json.dumps(fields).encode())


def _build_multipart(config: ImagesConfig, request: EditRequest, fields: Mapping[str, Any]) -> HttpBody:
    files = [("image[]", (f"image-{n}.png", data, "image/png")) for n, data in enumerate(request.images)]
    mask = request.mask_white if config.dialect == "vllm_omni" else request.mask_alpha
    if mask is not None:
        name = "mask_image" if config.dialect == "vllm_omni" else "mask"
        files.append((name, ("mask.png", mask, "image/png")))
    content_type, content = encode_multipart({name: str(value) for name, value in fields.items()}, files)
    return HttpBody("/v1/images/edits", content_type, content)


def _build_prompt(config: ImagesConfig, request: EditRequest) -> str:
    if config.dialect == "localai":
        # The separator of its negative prompt.
        prompt = request.prompt.replace("|", "/")
        return f"{prompt}|{request.negative_prompt.replace('|', '/')}" if request.negative_prompt else prompt
    if config.dialect == "openai" and request.negative_prompt:
        return f"{request.prompt}\nAvoid: {request.negative_prompt}"
    return request.prompt


def _parse_number(entries: Mapping[str, str], name: str, least: int, most: int, default: int) -> int:
    text = entries.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 6 and least <= int(text) <= most):
        raise RequestRejected(f"{name} of the provider configuration must be a number from {least} to {most}")
    return int(text)


def _parse_sizes(text: str | None, dialect: str) -> tuple[Size, ...]:
    """Return the sizes of a list such as `1024x1024,1536x1024`; empty for `any`."""
    if text is None:
        return FIXED_SIZES if dialect == "openai" else ()
    if text == "any":
        return ()
    matches = [_SIZE.fullmatch(part.strip()) for part in text.split(",")]
    sizes = tuple((int(match[1]), int(match[2])) for match in matches if match)
    if len(sizes) != len(matches) or any(max(size) > MAX_CONFIGURED_SIDE for size in sizes):
        raise RequestRejected("sizes of the provider configuration must be any, or sizes such as 1024x1024")
    return sizes
