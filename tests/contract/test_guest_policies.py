"""The policies limit a guest, beneath the tenant filter that test_guest_access.py tests."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import delete, select

from db.models import Prediction, PredictionComment
from db.session import current_session
from handlers.app import Application
from handlers.common.responses import ApiResponse
from handlers.pipeline.batches import run_batch
from tests.contract.tenant import Tenant
from tests.contract.test_guest_access import make_sibling
from tests.support import factories
from tests.support.guests import guest_headers


def test_s01_policies_limit_a_guest_after_an_item_that_was_rejected_under_the_system_role(
    app: Application,
    tenant: Tenant,
    other_tenant: Tenant,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The batch is followed by queries that lack the tenant filter, as a mistake in a handler would."""
    make_sibling(tenant)
    prediction, found = tenant.rows["prediction"], []
    own_comment = factories.make_prediction_comment(
        prediction, author_id=None, review_link_id=tenant.rows["review_link"].id
    )

    def run_and_query(*arguments: Any) -> ApiResponse:
        response = run_batch(*arguments)
        connection = current_session().connection()
        found.append(connection.scalars(select(Prediction.id)).all())
        found.append(connection.scalars(delete(PredictionComment).returning(PredictionComment.id)).all())
        return response

    monkeypatch.setattr("handlers.predictions.run_batch", run_and_query)
    request = tenant.request_for("batch_predictions")
    # A decision is made under the system role (`acting_for_tenant`). The first one is not possible.
    request.body = {
        "items": [{"action": action, "id": str(prediction.id)} for action in ("reopen", "approve")]
    }
    results = request.send(app, guest_headers(app, tenant.rows["review_link"])).json()["results"]
    assert [result["status"] for result in results] == [409, 200]
    assert found == [[prediction.id], [own_comment.id]]
