"""Hooks that make deletions use new rows, because later steps need the seeded ones."""

from __future__ import annotations

from collections.abc import Callable

import schemathesis

from tests.contract.fuzzing import accounts, client, destinations, identity_providers, webhooks
from tests.contract.fuzzing.cases import seeded_id


def target_new_row(case: schemathesis.Case, name: str) -> None:
    """Set the first path parameter, which has this name, to the id of a new row of the collection."""
    collection = case.operation.path.split("{")[0]
    body = client.MINIMAL_BODIES[collection]
    case.path_parameters[name] = client.create_row(collection, {"name": "Fuzzed", **body})


def delete_a_new_row(case: schemathesis.Case) -> None:
    """Delete a new row without references."""
    (name,) = case.path_parameters
    target_new_row(case, name)


def delete_a_new_account(case: schemathesis.Case) -> None:
    """Delete a new account."""
    case.path_parameters["user_id"] = client.new_account_id()


def delete_a_new_base_image(case: schemathesis.Case) -> None:
    """Delete a new base image."""
    ids = client.create_image("/subjects/", "base-images", {"shot_type_id": seeded_id(0x0E)})
    case.path_parameters["subject_id"], case.path_parameters["base_image_id"] = ids


def delete_a_new_photo(case: schemathesis.Case) -> None:
    """Delete a new photo."""
    ids = client.create_image("/products/", "images", {"type": "back"})
    case.path_parameters["product_id"], case.path_parameters["image_id"] = ids


def delete_a_new_prediction(case: schemathesis.Case) -> None:
    """Delete a new prediction."""
    case.path_parameters["prediction_id"] = client.new_prediction_id()


def delete_a_new_share_link(case: schemathesis.Case) -> None:
    """Delete a new share link."""
    ids = client.create_share_link()
    if ids:
        case.path_parameters["prediction_id"], case.path_parameters["share_id"] = ids


def delete_a_new_review_link(case: schemathesis.Case) -> None:
    """Delete a new review link."""
    case.path_parameters["shooting_id"] = seeded_id(7)
    case.path_parameters["review_link_id"] = client.create_review_link()[0]


def delete_a_new_export(case: schemathesis.Case) -> None:
    """Delete a new export."""
    case.path_parameters["export_id"] = client.new_export_id()


def delete_a_new_look(case: schemathesis.Case) -> None:
    """Delete a new look."""
    body = {"main_product_id": seeded_id(5), "shot_type_ids": [seeded_id(0xE)]}
    case.path_parameters["shooting_id"] = seeded_id(7)
    case.path_parameters["look_id"] = client.create_row(f"/shootings/{seeded_id(7)}/looks", body)


def delete_a_new_model(case: schemathesis.Case) -> None:
    """Delete a new generation model."""
    body = {"name": "Fuzzed", "provider": "LOCAL_STUDIO", "tool_types": ["REFINE"]}
    case.path_parameters["model_id"] = client.create_row("/generation-models/", body, "admin")


# Only for cases outside of walks. A walk deletes the row of an earlier step, and its later steps check that
# the row is not found.
DELETIONS: dict[str, Callable[[schemathesis.Case], None]] = {
    "delete_user": delete_a_new_account,
    "delete_look": delete_a_new_look,
    "delete_prediction": delete_a_new_prediction,
    "delete_prediction_share": delete_a_new_share_link,
    "delete_review_link": delete_a_new_review_link,
    "delete_base_image": delete_a_new_base_image,
    "delete_product_image": delete_a_new_photo,
    "delete_generation_model": delete_a_new_model,
    "delete_export": delete_a_new_export,
    "delete_invitation": accounts.delete_a_new_invitation,
    "delete_api_key": accounts.delete_a_new_key,
    "delete_destination": destinations.delete_a_new_destination,
    **identity_providers.DELETIONS,
    "delete_webhook_endpoint": webhooks.delete_a_new_endpoint,
    **{f"delete_{name}": delete_a_new_row for name in client.DELETABLE},
}
