"""Hooks that lead deletions to rows which were made for that: later steps need the seeded ones."""

from __future__ import annotations

from collections.abc import Callable

import schemathesis

from tests.contract.fuzzing import accounts, client, webhooks
from tests.contract.fuzzing.cases import seeded_id


def target_new_row(case: schemathesis.Case, name: str) -> None:
    """Let the first parameter of the path, of this name, be a row that was made for this."""
    collection = case.operation.path.split("{")[0]
    body = client.MINIMAL_BODIES[collection]
    case.path_parameters[name] = client.create_row(collection, {"name": "Fuzzed", **body})


def delete_a_new_row(case: schemathesis.Case) -> None:
    """Delete a row that was made for this, where nothing refers to it."""
    (name,) = case.path_parameters
    target_new_row(case, name)


def delete_a_new_account(case: schemathesis.Case) -> None:
    """Delete an account that was made for this."""
    case.path_parameters["user_id"] = client.new_account_id()


def delete_a_new_base_image(case: schemathesis.Case) -> None:
    """Delete a base image that was made for this."""
    made = client.create_image("/subjects/", "base-images", {"shot_type_id": seeded_id(0x0E)})
    case.path_parameters["subject_id"], case.path_parameters["base_image_id"] = made


def delete_a_new_photo(case: schemathesis.Case) -> None:
    """Delete a photograph that was made for this."""
    made = client.create_image("/products/", "images", {"type": "back"})
    case.path_parameters["product_id"], case.path_parameters["image_id"] = made


def delete_a_new_prediction(case: schemathesis.Case) -> None:
    """Delete a picture that was generated for this."""
    case.path_parameters["prediction_id"] = client.new_prediction_id()


def delete_a_new_export(case: schemathesis.Case) -> None:
    """Delete an export that was ordered for this."""
    case.path_parameters["export_id"] = client.new_export_id()


def delete_a_new_look(case: schemathesis.Case) -> None:
    """Delete a look that was made for this."""
    body = {"main_product_id": seeded_id(5), "shot_type_ids": [seeded_id(0xE)]}
    case.path_parameters["shooting_id"] = seeded_id(7)
    case.path_parameters["look_id"] = client.create_row(f"/shootings/{seeded_id(7)}/looks", body)


def delete_a_new_model(case: schemathesis.Case) -> None:
    """Delete a model that was made for this."""
    body = {"name": "Fuzzed", "provider": "LOCAL_STUDIO", "tool_types": ["REFINE"]}
    case.path_parameters["model_id"] = client.create_row("/generation-models/", body, "admin")


# For cases that stand alone; in a walk the row of an earlier step goes, and later steps look
# whether it is gone.
DELETIONS: dict[str, Callable[[schemathesis.Case], None]] = {
    "delete_user": delete_a_new_account,
    "delete_look": delete_a_new_look,
    "delete_prediction": delete_a_new_prediction,
    "delete_base_image": delete_a_new_base_image,
    "delete_product_image": delete_a_new_photo,
    "delete_generation_model": delete_a_new_model,
    "delete_export": delete_a_new_export,
    "delete_invitation": accounts.delete_a_new_invitation,
    "delete_api_key": accounts.delete_a_new_key,
    "delete_webhook_endpoint": webhooks.delete_a_new_endpoint,
    **{f"delete_{name}": delete_a_new_row for name in client.DELETABLE},
}
