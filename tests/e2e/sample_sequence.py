"""The order in which all code samples run on the demo data, so that each finds what it needs."""

from __future__ import annotations

import re

import httpx

from tests.e2e.sample_runs import DEMO, SECOND, SampleRuns, find_url

CATALOG = (
    "brand", "product", "guidelines", "subject", "style", "shot_type", "background_preset",
    "resolution_preset",
)  # fmt: skip
# They end sessions, or change what others need.
LAST = {
    "login", "refresh_token", "revoke_token", "test_token", "logout", "end_session", "recover_password",
    "reset_password", "change_password", "confirm_email_change", "delete_prediction", "transfer_ownership",
    "delete_webhook_endpoint", "delete_destination", "request_account_deletion", "cancel_account_deletion",
}  # fmt: skip
ORGANIZATION = "01990000-5eed-7000-8000-000200000001"
WEBHOOK_ENDPOINT = "/webhook-endpoints/01990000-5eed-7000-8000-001a00000001"
SUBSCRIPTION = "/subscriptions/01990000-5eed-7000-8000-000300000001"
DEMO_ID = "01990000-5eed-7000-8000-000100000001"
PROVIDER = f"/organizations/{ORGANIZATION}/identity-providers/01990000-5eed-7000-8000-003c00000001"
INVITED = "ines@example.com"
REJECTED = {
    "add_identity", "confirm_totp", "register_passkey", "remove_identity", "replace_recovery_codes",
    "verify_identity_provider_domain",
}  # fmt: skip
"""The samples that get 409, because a browser, an authenticator app or the DNS provides their values."""


def run_all(runs: SampleRuns) -> None:
    """Run the sample of every operation, some more than once."""
    run_catalog(runs)
    run_review(runs)
    run_generations(runs)
    run_uploads(runs)
    run_webhooks(runs)
    run_destinations(runs)
    run_organization(runs)
    run_identity_providers(runs)
    run_superuser(runs)
    # What is left reads, or changes nothing that the others need.
    for name in sorted(runs.samples.keys() - runs.outputs.keys() - LAST):
        runs.run(name)
    for name in ("delete_prediction", "delete_webhook_endpoint", "delete_destination"):
        runs.run(name)
    run_account(runs)


def run_catalog(runs: SampleRuns) -> None:
    """Run what creates, changes and deletes products and what they refer to."""
    for kind in CATALOG:
        for verb in ("delete", "update", "create"):
            runs.run(f"{verb}_{kind}")
    for name in ("add_base_image", "delete_base_image", "add_product_image", "add_product_image_from_url"):
        runs.run(name)
    for name in ("delete_product_image", "delete_shooting", "create_shooting", "update_shooting"):
        runs.run(name)
    for name in ("delete_look", "create_look", "update_look", "update_shot"):
        runs.run(name)


def run_review(runs: SampleRuns) -> None:
    """Run what reviews, shares and exports the prediction of the demo data."""
    for name in ("approve_shot", "reopen_shot", "batch_shots", "reopen_shot", "reject_shot", "reopen_shot"):
        runs.run(name)
    for name in ("batch_predictions", "reopen_prediction", "reject_prediction", "reopen_prediction"):
        runs.run(name)
    runs.run("approve_prediction")
    for name in ("create_export", "get_export", "download_export", "delete_export"):
        runs.run(name)
    runs.environment["SHARE_URL"] = find_url(runs.run("share_prediction"), "/shared/predictions/")
    runs.run("get_shared_image")
    runs.run("delete_prediction_share")
    link = find_url(runs.run("create_review_link"), "/review#")
    runs.environment["REVIEW_TOKEN"] = link.partition("#")[2]
    runs.run("exchange_review_link")
    runs.run("delete_review_link")
    runs.environment["PUBLISHED_URL"] = find_url(runs.run("publish_prediction"), "/published/")
    runs.run("get_published_image")
    runs.run("unpublish_prediction")
    runs.run("reopen_prediction")
    # A shot with a request for a revision can only generate.
    runs.run("request_shot_revision")


def run_generations(runs: SampleRuns) -> None:
    """Run what generates, one after the other, because a shot has one open generation."""
    for name in (
        "generate_shot", "create_generation", "cancel_generation", "retry_generation", "generate_shooting",
    ):  # fmt: skip
        runs.run(name)
        wait_for_generations(runs)
    runs.run("stream_generation_events")


def wait_for_generations(runs: SampleRuns) -> None:
    """Wait until no generation is open."""
    for status in ("pending", "running", "canceling"):
        query = {"status": status, "organization_id": ORGANIZATION}
        while found := runs.request("DEMO_TOKEN", "GET", "/generations/", params=query).json()["data"]:
            path = f"/generations/{found[0]['id']}"
            runs.request("DEMO_TOKEN", "GET", path, headers={"Prefer": "wait=20"})


def run_uploads(runs: SampleRuns) -> None:
    """Run what uploads a file."""
    runs.environment["UPLOAD_URL"] = find_url(runs.run("create_presigned_url"), "signature=")
    runs.run("put_upload")


def run_webhooks(runs: SampleRuns) -> None:
    """Run what manages webhook endpoints, and the callback of the Compute API."""
    for name in ("create_webhook_endpoint", "update_webhook_endpoint", "rotate_webhook_secret"):
        runs.run(name)
    runs.request("DEMO_TOKEN", "PATCH", WEBHOOK_ENDPOINT, json={"is_enabled": True})
    for name in ("test_webhook_endpoint", "redeliver_webhooks", "redeliver_webhook", "receive_task_webhook"):
        runs.run(name)
    for name in ("poll_webhook_messages", "acknowledge_webhook_messages"):
        runs.run(name)


def run_destinations(runs: SampleRuns) -> None:
    """Run what manages destinations. The test of one returns what happened, also without credentials."""
    for name in ("create_destination", "update_destination", "test_destination"):
        runs.run(name)


def run_organization(runs: SampleRuns) -> None:
    """Run what manages organizations, members, invitations and API keys."""
    for kind in ("organization", "api_key"):
        for verb in ("delete", "create", "update"):
            runs.run(f"{verb}_{kind}")
    secret = re.search(r"sk_[\w-]{76}", runs.outputs["create_api_key"])
    runs.run("get_current_api_key", secret[0] if secret else None)
    for name in ("add_member", "get_member", "update_member", "remove_member", "add_member"):
        runs.run(name)
    runs.run("create_invitation")
    runs.environment["MAILED_TOKEN"] = runs.wait_for_mailed_token(INVITED, "iv")
    runs.run("accept_invitation")
    runs.delete_account(INVITED)
    # Its sample sends an invitation, too, whose token would be the newest one.
    runs.run("delete_invitation")


def run_identity_providers(runs: SampleRuns) -> None:
    """Run what manages identity providers. Each sample about a domain adds it first."""
    for verb in ("delete", "create", "update"):
        runs.run(f"{verb}_identity_provider")
    # They are about the domain of the demo data, which is deleted below.
    for name in ("get_identity_provider_domain", "verify_identity_provider_domain"):
        runs.run(name)
    for name in ("delete_identity_provider_domain", "add_identity_provider_domain"):
        for domain in runs.request("DEMO_TOKEN", "GET", f"{PROVIDER}/domains").json()["data"]:
            runs.request("DEMO_TOKEN", "DELETE", f"{PROVIDER}/domains/{domain['id']}")
        runs.run(name)


def run_superuser(runs: SampleRuns) -> None:
    """Run what manages accounts, subscriptions and models of the server."""
    for kind in ("user", "generation_model"):
        runs.run(f"delete_{kind}")
    for name in ("create_generation_model", "replace_generation_model", "update_user"):
        runs.run(name)
    runs.delete_account(INVITED)
    for name in ("create_user", "renew_subscription", "replace_subscription"):
        runs.run(name)
    # An account has one active subscription.
    subscription = runs.request("ADMIN_TOKEN", "GET", SUBSCRIPTION).json()
    body = {name: subscription[name] for name in ("service_type", "tier", "payment_id", "payment_status")}
    runs.request("ADMIN_TOKEN", "PUT", SUBSCRIPTION, json={**body, "is_active": False})
    runs.run("create_subscription")


def run_account(runs: SampleRuns) -> None:
    """Run what ends sessions or changes the password of the demo account; it cannot sign in afterwards."""
    runs.run("transfer_ownership")
    for name in ("login", "test_token", "refresh_token"):
        runs.run(name)
    runs.environment["REFRESH_TOKEN"] = runs.sign_in()["refresh_token"]
    runs.run("revoke_token")
    runs.sign_in()
    sessions = runs.request("DEMO_TOKEN", "GET", "/users/me/sessions").json()["data"]
    runs.environment["SESSION_ID"] = sessions[0]["id"]
    runs.run("end_session")
    runs.sign_in()
    runs.run("logout")
    change = {"email": "sascha@example.com", "current_password": "sartiq-second"}
    token = {"Authorization": f"Bearer {runs.sign_in(SECOND, 'sartiq-second')['access_token']}"}
    httpx.patch(f"{runs.server.url}/users/me", json=change, headers=token, timeout=30).raise_for_status()
    runs.environment["MAILED_TOKEN"] = runs.wait_for_mailed_token("sascha@example.com", "ec")
    runs.run("confirm_email_change")
    runs.sign_in()
    for organization in runs.request("DEMO_TOKEN", "GET", "/organizations/").json()["data"]:
        if organization["owner_id"] == DEMO_ID:
            runs.request("DEMO_TOKEN", "DELETE", f"/organizations/{organization['id']}")
    runs.run("request_account_deletion")
    runs.environment["MAILED_TOKEN"] = runs.wait_for_mailed_token(DEMO, "ad")
    runs.run("cancel_account_deletion")
    runs.sign_in()
    runs.run("change_password")
    runs.run("recover_password")
    runs.environment["MAILED_TOKEN"] = runs.wait_for_mailed_token(DEMO, "pr")
    runs.run("reset_password")
