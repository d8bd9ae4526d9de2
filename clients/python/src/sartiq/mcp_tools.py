"""The tools and resources of the MCP server: the tasks of a studio, not single operations."""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import functools
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ResourceError, ToolError
from mcp.server.mcpserver.tools import Tool
from mcp.types import ToolAnnotations
from pydantic import Field

from sartiq import models
from sartiq._model import OMIT
from sartiq.client import AsyncSartiq
from sartiq.errors import APIError, SartiqError, WaitTimeoutError

Connect: TypeAlias = Callable[[Context], AbstractAsyncContextManager[AsyncSartiq]]
"""Opens a client with the credential of the caller of a request."""
Result: TypeAlias = dict[str, Any]
Run: TypeAlias = Callable[..., Awaitable[Result]]

READ = ToolAnnotations(read_only_hint=True, open_world_hint=False)
WRITE = ToolAnnotations(read_only_hint=False, destructive_hint=False, open_world_hint=False)
DESTRUCTIVE = ToolAnnotations(read_only_hint=False, destructive_hint=True, open_world_hint=True)

IMAGE_WIDTH = 1024
MAX_ROWS = 50
WAIT_SECONDS = 300.0

Photo = Annotated[
    str,
    Field(description="Data URL (`data:image/jpeg;base64,...`) or https URL; with stdio also a path."),
]
ProductId = Annotated[str, Field(description="ID of a product that has a photo.")]
ShootingId = Annotated[str, Field(description="ID of a shooting.")]
GenerationId = Annotated[str, Field(description="ID of a generation, which other tools return.")]
PredictionId = Annotated[str, Field(description="ID of a prediction.")]
Count = Annotated[int, Field(ge=1, le=8, description="Number of predictions.")]
Limit = Annotated[int, Field(ge=1, le=MAX_ROWS, description="Maximum number of items.")]


def build_tools(connect: Connect, *, is_local: bool, allow_destructive: bool) -> list[Tool]:
    """Return the tools. Their names, arguments and docstrings are what an assistant sees."""
    tools: list[Tool] = []

    def tool(annotations: ToolAnnotations) -> Callable[[Run], Run]:
        def register(run: Run) -> Run:
            made = Tool.from_function(_with_problems(run), annotations=annotations, description=run.__doc__)
            tools.append(_reject_unknown_arguments(made))
            return run

        return register

    @tool(WRITE)
    async def shoot_product_photo(
        context: Context,
        photo: Photo,
        name: Annotated[str, Field(description="Name of the new product.")],
        sku: Annotated[str | None, Field(description="Its stock keeping unit.")] = None,
        count: Count = 2,
    ) -> Result:
        """Create a product with its photo, generate images of it, and wait for them."""
        async with connect(context) as client:
            file_url = await _upload_photo(client, photo, is_local)
            product = await client.products.create_product(name=name, sku=OMIT if sku is None else sku)
            await client.products.add_product_image_from_url(product.id, file_url=file_url, type="primary")
            return await _generate(client, product.id, count) | {"product_id": product.id}

    @tool(WRITE)
    async def generate_images(
        context: Context,
        product_id: ProductId,
        count: Count = 2,
        background: Annotated[
            str | None, Field(description="Description of the background, such as `white`.")
        ] = None,
    ) -> Result:
        """Generate images of a product, and wait for them. It costs credits."""
        async with connect(context) as client:
            return await _generate(client, product_id, count, background)

    @tool(READ)
    async def wait_for_generation(context: Context, generation_id: GenerationId) -> Result:
        """Wait for a generation that was requested before, and return its images. It costs nothing."""
        async with connect(context) as client:
            return await _wait(client, await client.generations.get_generation(generation_id))

    @tool(READ)
    async def find_products(
        context: Context,
        query: Annotated[str | None, Field(description="Text in the name or description.")] = None,
        sku: Annotated[str | None, Field(description="Exact stock keeping unit.")] = None,
        limit: Limit = 20,
    ) -> Result:
        """Find products by text or SKU."""
        async with connect(context) as client:
            page = await client.products.list_products(q=query, sku=sku, limit=limit)
            return {"count": page.count, "products": _pick(page.data, "id", "name", "sku", "state")}

    @tool(WRITE)
    async def import_products(
        context: Context,
        csv: Annotated[str, Field(description="CSV text with a header line, for example `sku,name`.")],
        mode: Literal["create", "upsert"] = "upsert",
    ) -> Result:
        """Create or update products from CSV text, matched by SKU, and return what happened to each line."""
        async with connect(context) as client:
            file_url = await client.upload(("products.csv", csv.encode()), content_type="text/csv")
            started = await client.product_imports.create_product_import(
                file_url=file_url, format="csv", mode=mode
            )
            done = await client.wait(started, timeout=WAIT_SECONDS)
            failed = await client.product_imports.list_product_import_results(
                done.id, status="failed", limit=MAX_ROWS
            )
            counted = ("created", "updated", "unchanged", "failed")
            counts = done.model_dump(include={f"{name}_count" for name in counted})
            return {"import_id": done.id, **counts, "failed": [_dump(row) for row in failed.data]}

    @tool(WRITE)
    async def create_shooting(
        context: Context,
        name: Annotated[str, Field(description="Name of the shooting.")],
        product_ids: Annotated[list[str], Field(min_length=1, max_length=100, description="Its products.")],
        shot_type_ids: Annotated[
            list[str] | None, Field(description="Types of the shots; by default a front packshot.")
        ] = None,
    ) -> Result:
        """Create a shooting with a look for each product and a shot for each shot type."""
        async with connect(context) as client:
            if not shot_type_ids:
                shot_type_ids = [(await client.shot_types.list_shot_types(limit=1, sort="name")).data[0].id]
            shooting = await client.shootings.create_shooting(name=name)
            await client.shootings.create_looks(
                shooting.id, main_product_ids=product_ids, shot_type_ids=shot_type_ids
            )
            shooting = await client.shootings.get_shooting(shooting.id)
            return {"shooting_id": shooting.id, "shots_count": shooting.shots_count}

    @tool(WRITE)
    async def generate_shooting(context: Context, shooting_id: ShootingId, count: Count = 2) -> Result:
        """Request images for all shots of a shooting that need some. Look at them with `review_shooting`."""
        async with connect(context) as client:
            batch = await client.shootings.generate_shooting(shooting_id, num_predictions=count)
            return _dump(batch, "accepted_count", "refused_count", "cost_credits")

    @tool(READ)
    async def review_shooting(context: Context, shooting_id: ShootingId) -> Result:
        """Return the shots of a shooting, and the predictions that wait for a decision."""
        async with connect(context) as client:
            shooting = await client.shootings.get_shooting(shooting_id)
            shots = await client.shots.list_shots(shooting_id=shooting_id, limit=MAX_ROWS)
            waiting = await client.predictions.list_predictions(
                shooting_id=shooting_id, status="pending_review", limit=MAX_ROWS
            )
            return {
                "shooting": _dump(shooting, "id", "name", "phase", "shots_count", "shots_approved_count"),
                "shots": _pick(shots.data, "id", "status", "approved_prediction_id"),
                "pending_review": [_describe(prediction) for prediction in waiting.data],
            }

    @tool(WRITE)
    async def comment_on_prediction(
        context: Context,
        prediction_id: PredictionId,
        text: Annotated[str, Field(description="What to change.")],
    ) -> Result:
        """Add a comment to a prediction, for the people who review it."""
        async with connect(context) as client:
            return _dump(await client.predictions.create_prediction_comment(prediction_id, text=text), "id")

    @tool(WRITE)
    async def approve_prediction(
        context: Context,
        prediction_id: PredictionId,
        note: Annotated[str | None, Field(description="Why it is approved.")] = None,
    ) -> Result:
        """Approve a prediction. Ask the user first: the approved image is the one that is exported."""
        async with connect(context) as client:
            return _describe(
                await client.predictions.approve_prediction(
                    prediction_id, note=OMIT if note is None else note
                )
            )

    @tool(READ)
    async def find_approved_images(
        context: Context,
        sku: Annotated[str, Field(description="Stock keeping unit of the product.")],
        limit: Limit = 20,
    ) -> Result:
        """Find the approved images of a product by its SKU."""
        async with connect(context) as client:
            page = await client.predictions.list_predictions(sku=sku, status="approved", limit=limit)
            return {"count": page.count, "images": [_describe(prediction) for prediction in page.data]}

    @tool(WRITE)
    async def export_shooting(context: Context, shooting_id: ShootingId) -> Result:
        """Write the approved images of a shooting into a ZIP file, and return its URL."""
        async with connect(context) as client:
            return await _export(client, shooting_id, None)

    @tool(READ)
    async def get_usage(
        context: Context,
        month: Annotated[
            str | None,
            Field(pattern=r"^\d{4}-\d{2}$", description="Month such as `2026-11`; by default this one."),
        ] = None,
        organization_id: Annotated[
            str | None, Field(description="ID of another organization than the one of the server.")
        ] = None,
    ) -> Result:
        """Return how many images and credits an organization used in a month."""
        start = (dt.date.fromisoformat(f"{month}-01") if month else dt.datetime.now(dt.UTC).date()).replace(
            day=1
        )
        end = (start + dt.timedelta(days=31)).replace(day=1) - dt.timedelta(days=1)
        async with connect(context) as client:
            chosen = organization_id or client.organization_id
            if chosen is None:
                raise ToolError("No organization: pass `organization_id`, or start with --organization.")
            usage = await client.usage.get_organization_usage(chosen, from_=start, to=end)
            return {"from": str(start), "to": str(end), **_dump(usage.model, "totals")}

    @tool(READ)
    async def follow_changes(
        context: Context,
        cursor: Annotated[
            str | None, Field(description="`cursor` of the last call; absent to start now.")
        ] = None,
    ) -> Result:
        """Return which resources were created, updated and deleted since the last call."""
        async with connect(context) as client:
            page = await client.changes.list_changes(
                cursor=cursor, start=None if cursor else "latest", limit=MAX_ROWS
            )
            return {"changes": [_dump(change) for change in page.data], "cursor": page.next_cursor}

    if not allow_destructive:
        return tools

    @tool(DESTRUCTIVE)
    async def reject_prediction(
        context: Context,
        prediction_id: PredictionId,
        reason: Annotated[str, Field(description="Why it is rejected; people see it.")],
    ) -> Result:
        """Reject a prediction with a reason."""
        async with connect(context) as client:
            return _describe(await client.predictions.reject_prediction(prediction_id, reason=reason))

    @tool(DESTRUCTIVE)
    async def delete_prediction(context: Context, prediction_id: PredictionId) -> Result:
        """Delete a prediction and its image permanently."""
        async with connect(context) as client:
            await client.predictions.delete_prediction(prediction_id)
            return {"deleted": prediction_id}

    @tool(DESTRUCTIVE)
    async def deliver_shooting(
        context: Context,
        shooting_id: ShootingId,
        destination_id: Annotated[str, Field(description="ID of a destination of the organization.")],
    ) -> Result:
        """Send the approved images of a shooting to storage outside of Sartiq."""
        async with connect(context) as client:
            return await _export(client, shooting_id, destination_id)

    @tool(DESTRUCTIVE)
    async def publish_image(context: Context, prediction_id: PredictionId) -> Result:
        """Give an approved image a public URL that anyone can open."""
        async with connect(context) as client:
            return _dump(await client.predictions.publish_prediction(prediction_id))

    return tools


def add_resources(server: MCPServer, connect: Connect) -> None:
    """Add the images of predictions."""

    @server.resource(
        "sartiq://predictions/{prediction_id}/image",
        name="prediction_image",
        description=f"Image of a prediction, {IMAGE_WIDTH} pixels wide.",
        mime_type="image/jpeg",
    )
    async def prediction_image(prediction_id: str, context: Context) -> bytes:
        try:
            async with connect(context) as client:
                download = await client.predictions.get_prediction_image(
                    prediction_id, width=IMAGE_WIDTH, format="jpeg"
                )
                return await download.read()
        except SartiqError as error:
            raise ResourceError(describe_error(error)) from error


def describe_error(error: SartiqError) -> str:
    """Return an error for an assistant: the stable code first, then the explanation."""
    if isinstance(error, APIError):
        needed = error.problem.get("required_scope") or error.problem.get("required_permission")
        text = f"{error.code or error.status}: {error.detail or error.title}"
        return f"{text} (needed: {needed})" if needed else text
    return str(error)


def _reject_unknown_arguments(tool: Tool) -> Tool:
    """Let a tool reject arguments that it does not have, and return it.

    By default they are ignored: a misspelled filter or an `organization_id` would return other rows than
    those that were asked for.
    """
    model = tool.fn_metadata.arg_model
    model.model_config["extra"] = "forbid"
    model.model_rebuild(force=True)
    tool.parameters["additionalProperties"] = False
    return tool


def _with_problems(run: Run) -> Run:
    """Let a tool report errors of the API with their code and detail."""

    @functools.wraps(run)
    async def guarded(*args: Any, **kwargs: Any) -> Result:
        try:
            return await run(*args, **kwargs)
        except SartiqError as error:
            raise ToolError(describe_error(error)) from error

    return guarded


async def _upload_photo(client: AsyncSartiq, photo: str, is_local: bool) -> str:
    """Return the URL of a photo: uploaded from a data URL or a local file, or as it is."""
    if photo.startswith("https://"):
        return photo
    if photo.startswith("data:image/"):
        head, _, text = photo.partition(",")
        try:
            content = base64.b64decode(text, validate=True)
        except binascii.Error as error:
            raise ToolError("invalid_photo: the data URL is no valid base64") from error
        media_type = head.removeprefix("data:").partition(";")[0]
        return await client.upload(
            (f"photo.{media_type.partition('/')[2]}", content), content_type=media_type
        )
    # A server for other callers must not read files of this machine for them.
    if not is_local:
        raise ToolError("invalid_photo: send a data URL or an https URL")
    if not Path(photo).is_file():
        raise ToolError("invalid_photo: there is no such file")
    return await client.upload(photo)


async def _generate(
    client: AsyncSartiq, product_id: str, count: int, background: str | None = None
) -> Result:
    started = await client.generations.create_generation(
        product_id=product_id, batch_size=count, background=OMIT if background is None else background
    )
    return await _wait(client, started)


async def _wait(client: AsyncSartiq, generation: models.Generation) -> Result:
    """Wait for a generation, and return its predictions.

    The end of the time is no error: an assistant that sees one asks for the images, and pays, again.
    """
    try:
        generation = await client.wait(generation, timeout=WAIT_SECONDS)
    except WaitTimeoutError:
        generation = await client.generations.get_generation(generation.id)
    page = await client.predictions.list_predictions(generation_id=generation.id, limit=MAX_ROWS)
    result = _dump(generation, "status", "cost_credits") | {
        "generation_id": generation.id,
        "predictions": [_describe(prediction) for prediction in page.data],
    }
    if generation.completed_at is None:
        result["next"] = "The images are not there yet. Call `wait_for_generation`, do not generate again."
    return result


async def _export(client: AsyncSartiq, shooting_id: str, destination_id: str | None) -> Result:
    started = await client.exports.create_export(shooting_id, destination_id=destination_id)
    done = await client.wait(started, timeout=WAIT_SECONDS)
    return {
        "export_id": done.id,
        "predictions_count": done.predictions_count,
        "file": done.urls.file,
        "destination_id": done.destination_id,
    }


def _describe(prediction: models.Prediction) -> Result:
    """Return what an assistant needs to know about a prediction, with the URI of its image."""
    described = _dump(prediction, "id", "status", "shot_id", "width", "height", "warnings")
    return described | {"image": f"sartiq://predictions/{prediction.id}/image"}


def _pick(items: Iterable[Any], *names: str) -> list[Result]:
    return [_dump(item, *names) for item in items]


def _dump(item: Any, *names: str) -> Result:
    dumped: Result = item.model_dump(mode="json", include=set(names) or None)
    return dumped
