"""The catalog of problem codes (RFC 9457): what each one means for a client, and what to do about it.

The `type` URL of a problem opens its entry. A test keeps the catalog equal to the codes that can be raised.
"""

from __future__ import annotations

from typing import NamedTuple


class ProblemType(NamedTuple):
    """One entry: the HTTP status, when it occurs, and what to do."""

    status: int
    meaning: str
    advice: str


PROBLEMS: dict[str, ProblemType] = {
    "malformed_request": ProblemType(
        400,
        "The request cannot be parsed: it is not JSON or not UTF-8, it repeats a key, it is nested too "
        "deeply, or a number is not valid JSON.",
        "Send the output of a JSON encoder in UTF-8, or multipart/form-data with its boundary.",
    ),
    "unknown_preference": ProblemType(
        400,
        "Mock server only: Prefer: code= or example= selects a response that the operation does not have.",
        "Select one of the responses that the detail lists.",
    ),
    "not_authenticated": ProblemType(
        401,
        "The operation needs an access token or, where the contract says so, an API key, and none was sent.",
        "Sign in at /api/v1/login/access-token and send the access token as Authorization: Bearer.",
    ),
    "invalid_token": ProblemType(
        401,
        "The token or API key was not issued by this server, has expired, or was revoked or deleted, or its "
        "account is locked; or the operation does not accept API keys.",
        "Renew the token with the refresh token, sign in again, or create another API key.",
    ),
    "incorrect_credentials": ProblemType(
        401,
        "The e-mail address or the password is wrong, or the code of an identity provider does not work.",
        "Check both, or start the sign-in again. To reset a forgotten password, use "
        "/api/v1/password-recovery/{email}.",
    ),
    "second_factor_required": ProblemType(
        401,
        "The password is right, and the account has a second factor.",
        "Send a second request to /api/v1/login/access-token with challenge and otp, or with challenge and "
        "webauthn, within five minutes.",
    ),
    "incorrect_second_factor": ProblemType(
        401,
        "The code or the passkey is not one of the account, has expired or was used before. Each code works "
        "once.",
        "Send the next code of the app, or another recovery code, with the same challenge. Check the clock "
        "of the device.",
    ),
    "challenge_ended": ProblemType(
        401,
        "The challenge is unknown, is older than five minutes, was answered, or had five wrong answers; or "
        "the password has changed since.",
        "Send the e-mail address and the password again.",
    ),
    "invalid_webhook_signature": ProblemType(
        401,
        "The message is not signed with the shared secret, or its timestamp differs by more than five "
        "minutes.",
        "Sign webhook-id, webhook-timestamp and the body as Standard Webhooks defines, with the current "
        "time.",
    ),
    "not_enough_permissions": ProblemType(
        403,
        "You can read the resource, but your role does not allow the action. For an API key: its scopes do "
        "not allow the action, or the request has no organization_id.",
        "Ask an admin or the owner of the organization.",
    ),
    "guest_not_allowed": ProblemType(
        403,
        "You are a guest with a review link. Guests review the predictions of one shooting and can call no "
        "other operations.",
        "Ask the person who gave you the link, or sign in with an account.",
    ),
    "api_key_not_allowed": ProblemType(
        403,
        "The operation is about an account, or administers an organization. API keys cannot call it.",
        "Sign in with an account and send its access token.",
    ),
    "second_factor_enrollment_required": ProblemType(
        403,
        "The organization requires a second factor for sign-ins, and your account has none.",
        "Add an authenticator app or a passkey to your account, at /review#/security or with POST "
        "/api/v1/users/me/second-factors/totp. The next request with the same token then succeeds.",
    ),
    "provider_session_not_allowed": ProblemType(
        403,
        "The session is from an identity provider and acts in one organization only. The operation is about "
        "the whole account.",
        "Sign in with the password of the account; a recovery e-mail sets one.",
    ),
    "provider_sign_in_required": ProblemType(
        403,
        "The organization accepts only sessions from its identity provider, and those of its owner.",
        "Sign in with the company account, as the review board offers it.",
    ),
    "organization_suspended": ProblemType(
        403,
        "The operator of the server has suspended the organization. Its members and API keys cannot use it; "
        "nothing was deleted, and your account and your other organizations work.",
        "The owner of the organization can ask the operator to resume it. The request then succeeds.",
    ),
    "invalid_signature": ProblemType(
        403,
        "The signed URL was changed or has expired.",
        "Request a new URL and use it unchanged.",
    ),
    "not_found": ProblemType(
        404,
        "The resource, path or cursor does not exist, or it belongs to another organization.",
        "Check the identifier and the organization_id of the request.",
    ),
    "method_not_allowed": ProblemType(
        405, "The path exists, but not with this method.", "Use one of the methods in the Allow header."
    ),
    "not_acceptable": ProblemType(
        406,
        "The operation has none of the media types in the Accept header.",
        "Accept a media type that the contract lists for the operation, or */*.",
    ),
    "request_timeout": ProblemType(
        408,
        "The request did not arrive, or arrived at less than 32 kB per second. Nothing was changed.",
        "Send the request again without pauses; over a slow connection, send a smaller file.",
    ),
    "sunset": ProblemType(
        410,
        "The operation was deprecated and has ended. `sunset` is the date, and `replacement` the operation "
        "to use, or a sentence.",
        "Use the replacement, or a release of your client that does.",
    ),
    "conflict": ProblemType(
        409,
        "The resource conflicts with another resource that was saved first.",
        "Read the resources again and repeat the request with other values.",
    ),
    "in_use": ProblemType(409, "Other resources refer to the resource.", "Delete or change them first."),
    "cursor_expired": ProblemType(
        409,
        "The feed does not have all changes after the cursor: the cursor is older than 30 days, or the "
        "database was restored since.",
        "Request /api/v1/changes/?start=latest, read all resources, then continue from next_cursor.",
    ),
    "scope_mismatch": ProblemType(
        409,
        "The request combines resources of different tenants, for example a personal product and a shooting "
        "of an organization.",
        "Use resources of one organization, or public resources.",
    ),
    "slug_taken": ProblemType(
        409,
        "Another resource of the organization or account has this slug.",
        "Choose another slug, or omit it to have one generated.",
    ),
    "sku_taken": ProblemType(
        409, "Another product of the organization or account has this SKU.", "Choose another SKU."
    ),
    "external_id_taken": ProblemType(
        409,
        "Another resource of the same type in the organization or account has this `external_id`.",
        "Choose another `external_id`, or change the resource that has it.",
    ),
    "too_many_metadata_keys": ProblemType(
        409,
        "The `metadata` of the resource would have more than 50 keys.",
        "Delete keys by setting them to null, or store the values in your own system.",
    ),
    "email_taken": ProblemType(409, "Another account has this e-mail address.", "Use another address."),
    "incorrect_password": ProblemType(
        409, "The current password is wrong.", "Repeat the request with the current password."
    ),
    "incorrect_otp": ProblemType(
        409,
        "The code is not the current one of the authenticator app, or was used before. Each code works once.",
        "Repeat the request with the next code. Check the clock of the device.",
    ),
    "totp_not_started": ProblemType(
        409,
        "No authenticator app waits for its first code, or its secret is older than one hour.",
        "Create a new secret with POST /api/v1/users/me/second-factors/totp, and add it to the app.",
    ),
    "passkey_rejected": ProblemType(
        409,
        "The passkey cannot be verified: its options are older than five minutes or were used, it was "
        "created on another website, or it is registered already.",
        "Request new options and create the passkey again, on the website of this server.",
    ),
    "too_many_passkeys": ProblemType(
        409, "The account has 10 passkeys, the maximum.", "Remove a passkey that you no longer use."
    ),
    "no_second_factor": ProblemType(
        409,
        "The account has neither an authenticator app nor a passkey, so it needs no recovery codes.",
        "Add an authenticator app or a passkey first.",
    ),
    "password_too_common": ProblemType(
        409,
        "The new password is in the list of common passwords; letter case makes no difference.",
        "Choose another password, for example several unrelated words.",
    ),
    "own_account": ProblemType(
        409,
        "Superusers cannot delete, lock or demote their own account, or reset its second factors.",
        "Ask another superuser to do it.",
    ),
    "owns_organization": ProblemType(
        409, "The account owns an organization.", "Transfer or delete the organization first."
    ),
    "account_exists": ProblemType(
        409,
        "The e-mail address that an identity provider has verified has an account, which is not linked.",
        "Sign in with the password of the account, and link it: POST /users/me/identities.",
    ),
    "email_not_accepted": ProblemType(
        409,
        "The identity provider has not verified the e-mail address, or its domain is not verified for the "
        "provider.",
        "Ask an admin of the organization for an invitation, or to add and verify the domain.",
    ),
    "membership_required": ProblemType(
        409,
        "The account is not a member of the organization of the identity provider, and the sign-in does not "
        "make it one.",
        "Ask an admin of the organization for an invitation.",
    ),
    "invalid_code": ProblemType(
        409,
        "The code of a sign-in is unknown, used or older than 60 seconds, or its verifier is another one.",
        "Start the sign-in again.",
    ),
    "identity_taken": ProblemType(
        409,
        "The user of the identity provider is linked to an account already, perhaps to yours.",
        "Remove the link from the other account, or sign in at the provider as another user.",
    ),
    "too_many_identities": ProblemType(
        409, "The account has the maximum number of identities.", "Remove one that is not used."
    ),
    "too_many_identity_providers": ProblemType(
        409,
        "The organization has the maximum number of identity providers.",
        "Delete one that is not used.",
    ),
    "provider_session_required": ProblemType(
        409,
        "A provider can be required only in a session from it, which shows that it works.",
        "Sign in through the provider, and repeat the request in that session.",
    ),
    "domain_taken": ProblemType(
        409,
        "The domain is verified for another identity provider, or this one has it already.",
        "Delete the domain there first, or ask the operator of this server.",
    ),
    "domain_not_verified": ProblemType(
        409,
        "The TXT record of the domain is missing, has another value, or cannot be read.",
        "Create the record that the domain names, and repeat the request when it is visible.",
    ),
    "too_many_domains": ProblemType(
        409, "The identity provider has the maximum number of domains.", "Delete one that is not used."
    ),
    "deletion_scheduled": ProblemType(
        409,
        "The user has requested the deletion of the account, so it cannot be used.",
        "Cancel the deletion with the token from the e-mail, or by a password recovery.",
    ),
    "owner_required": ProblemType(
        409, "An organization has exactly one owner.", "Change or remove another member."
    ),
    "already_owner": ProblemType(
        409, "The account already owns the organization.", "Name another member as the new owner."
    ),
    "account_locked": ProblemType(
        409, "The account of the new owner is locked.", "Name a member whose account is active."
    ),
    "already_member": ProblemType(
        409, "The account is already a member of the organization.", "Change the member's role instead."
    ),
    "password_required": ProblemType(
        409,
        "The request needs a password: the account's current one, or one for the account to be created.",
        "Send the request again with the password.",
    ),
    "invitation_void": ProblemType(
        409,
        "The member that sent the invitation has left the organization, is locked, or can no longer grant "
        "the role.",
        "Ask for another invitation.",
    ),
    "too_many_invitations": ProblemType(
        409,
        "The organization has 50 open invitations.",
        "Withdraw some, or wait until they are accepted.",
    ),
    "too_many_api_keys": ProblemType(
        409, "The organization has 50 API keys, including expired ones.", "Delete keys that are not used."
    ),
    "too_many_organizations": ProblemType(
        409,
        "The account, or the account of the new owner, owns 20 organizations.",
        "Delete an organization or transfer its ownership.",
    ),
    "too_many_uploads": ProblemType(
        409,
        "The account, with its API keys, has 100 uploads whose bytes have not arrived.",
        "Send the bytes of the uploads first, or wait half an hour until their URLs have expired.",
    ),
    "too_many_upload_bytes": ProblemType(
        409,
        "The uploads of the account that are not used yet have 1 GB.",
        "Use the uploads first, or wait: an upload that is not used is deleted after 24 hours.",
    ),
    "too_many_links": ProblemType(
        409,
        "The shooting or the prediction has 50 links that have not expired, or the account has 1,000.",
        "Delete links that are not used, or wait until they expire.",
    ),
    "permission_lost": ProblemType(
        409,
        "An import stopped, because the account or API key that requested it may not write products any "
        "more. Rows before that were imported.",
        "Request the import again with an account that may write products.",
    ),
    "storage_full": ProblemType(
        409,
        "The storage of the plan is used up. All resources can still be read and deleted.",
        "Delete resources, or change to a larger plan. The usage of the organization has the numbers.",
    ),
    "scopes_not_granted": ProblemType(
        409,
        "The key would have scopes that your role in the organization does not allow.",
        "Omit those scopes, or ask a member with all of them to create the key.",
    ),
    "not_empty": ProblemType(409, "The organization still has resources.", "Delete them first."),
    "subscription_exists": ProblemType(
        409, "The account already has an active subscription.", "Change or renew that subscription."
    ),
    "range_not_satisfiable": ProblemType(
        416, "The requested range starts after the end of the file.", "Request the file without `Range`."
    ),
    "range_reversed": ProblemType(
        409, "The first day of the report is after its last day.", "Exchange `from` and `to`."
    ),
    "range_too_long": ProblemType(
        409, "The period of the report has too many days.", "Send a shorter period, or several requests."
    ),
    "public_requires_superuser": ProblemType(
        409, "Only superusers can make resources public.", "Omit the property public, or send false."
    ),
    "invalid_transition": ProblemType(
        409,
        "The current status of the resource does not allow the action.",
        "Read the resource; the contract lists the transitions of each state.",
    ),
    "shooting_too_large": ProblemType(
        409,
        "The shooting has more shots than one request can copy; the problem has the limit and the value.",
        "Create a shooting and add its looks in several requests.",
    ),
    "shot_busy": ProblemType(
        409, "The shot has an open generation.", "Wait until the generation ends, or cancel it."
    ),
    "shot_has_predictions": ProblemType(
        409,
        "The shot type cannot be removed from the look: its shot has predictions.",
        "Keep the shot type, or delete the predictions first.",
    ),
    "generation_running": ProblemType(
        409,
        "The resource, or one that it contains, has an open generation.",
        "Wait until the generation ends, or cancel it.",
    ),
    "prediction_ambiguous": ProblemType(
        409,
        "Without prediction_id, exactly one prediction of the shot must be in review.",
        "Send the prediction_id.",
    ),
    "not_available": ProblemType(
        409,
        "The look, the product or the guidelines use a resource or an image of another organization "
        "that is archived or no longer public.",
        "Choose another subject, style, shot type, preset or image.",
    ),
    "nothing_to_generate": ProblemType(
        409,
        "The generation has no input: no shot, product or source prediction, or the product has no image.",
        "Send one of them, or add an image to the product.",
    ),
    "strategy_not_supported": ProblemType(
        409,
        "The model lacks the tool that the strategy needs.",
        "Choose a model with that tool in its tool_types.",
    ),
    "resolution_not_supported": ProblemType(
        409,
        "The image would be larger than the model supports.",
        "Request a smaller size, or choose another model.",
    ),
    "out_of_credits": ProblemType(
        409,
        "The paying account has no active subscription, or too few credits.",
        "Renew the subscription of the organization's owner.",
    ),
    "queue_full": ProblemType(
        409,
        "The organization or account has as many open generations as its plan allows (START 200, GROW 1,000, "
        "SCALE 5,000, ENTERPRISE 20,000), or the webhook endpoint has 50 pending test events.",
        "Wait until some of them end, cancel some, or choose a larger plan.",
    ),
    "not_attempted": ProblemType(
        409,
        "The batch reached its time limit before this item, so the item changed nothing.",
        "Send the items that were not attempted again.",
    ),
    "too_many_comments": ProblemType(
        409,
        "The prediction has the maximum number of comments.",
        "Delete comments that are not needed any more.",
    ),
    "too_many_destinations": ProblemType(
        409,
        "The organization or account has 20 destinations.",
        "Change one of them, or delete one that is not used.",
    ),
    "other_kind_of_destination": ProblemType(
        409,
        "The request has properties of a bucket for a destination with a URL, or the reverse.",
        "Create another destination, and delete the present one.",
    ),
    "secret_required": ProblemType(
        409,
        "The URL of the destination changes, and its secret would be sent to another server.",
        "Send header_value again, or null to send no header.",
    ),
    "too_many_endpoints": ProblemType(
        409,
        "The organization or account has 20 webhook endpoints.",
        "Change one of them, or delete one that is not used.",
    ),
    "endpoint_disabled": ProblemType(
        409,
        "The webhook endpoint is disabled and receives no events.",
        "Enable it first: send PATCH with is_enabled true.",
    ),
    "wrong_delivery_mode": ProblemType(
        409,
        "A push endpoint has a URL and no messages to poll; a pull endpoint has no URL.",
        "Use another endpoint, or create one with the other delivery.",
    ),
    "nothing_to_export": ProblemType(
        409,
        "The shooting has no approved prediction that has not been exported yet.",
        "Approve predictions, or name those to export again.",
    ),
    "not_approved": ProblemType(
        409,
        "The prediction, or one in prediction_ids, is pending review or rejected.",
        "Approve the prediction first, or omit it.",
    ),
    "export_too_large": ProblemType(
        409, "More than 500 predictions are approved.", "Name at most 500 of them in prediction_ids."
    ),
    "too_many_exports": ProblemType(
        409,
        "The organization or account has ten open exports.",
        "Wait until some are completed, or delete one.",
    ),
    "file_not_importable": ProblemType(
        409,
        "The media type of the upload does not match the format of the import.",
        "Create the upload with the media type text/csv or application/x-ndjson, for images application/zip.",
    ),
    "too_many_imports": ProblemType(
        409,
        "Ten product imports of the organization or account are pending or running.",
        "Wait until some are completed, or cancel one.",
    ),
    "import_not_finished": ProblemType(
        409,
        "The import is pending or running, so its results are not complete.",
        "Poll the import until its status is terminal; the list of results has the entries processed so far.",
    ),
    "export_in_progress": ProblemType(
        409,
        "Another copy of the account's data waits or is being written.",
        "Wait until its status is completed or failed; conflicts_with has its id.",
    ),
    "export_not_ready": ProblemType(
        409,
        "The archive has not been written yet, or writing it failed.",
        "Read the export until its status is completed; its error says why it failed.",
    ),
    "too_many_images": ProblemType(
        409,
        "The product or subject has the maximum number of images.",
        "Delete images that are not needed.",
    ),
    "target_not_allowed": ProblemType(
        409,
        "This server connects only to https URLs on the public internet; the URL is another one or "
        "redirects to another one.",
        "Send a public https URL without a port, or upload the image and use the file_url of the response.",
    ),
    "image_not_fetched": ProblemType(
        409,
        "The URL returned no image: its server was not reached, took too long, or responded with a status "
        "other than 200.",
        "Check that the URL opens without signing in, and send the request again.",
    ),
    "image_not_usable": ProblemType(
        409,
        "The file at the URL is not a supported image, cannot be decoded, or is too large.",
        "Send the URL of a JPEG, PNG, WebP, AVIF, HEIC or GIF image of at most 50 MB and 64 megapixels.",
    ),
    "image_not_uploaded": ProblemType(
        409,
        "An item of a batch has an image that is not a URL of this API.",
        "Upload the image first, use an import, or send the item as a request of its own.",
    ),
    "region_outside_image": ProblemType(
        409,
        "The region is not inside the image.",
        "Send x, y, width and height as shares of the image: x + width and y + height are at most 1.",
    ),
    "cutout_pending": ProblemType(
        409,
        "The cut-out of the image is being made.",
        "Send the request again after the seconds in Retry-After.",
    ),
    "cutout_failed": ProblemType(
        409,
        "The cut-out could not be made from the image, its region and its mask.",
        "Change the region or the mask of the image, or upload another image.",
    ),
    "upload_consumed": ProblemType(
        409, "The uploaded file is in use and cannot be replaced.", "Request a new upload URL."
    ),
    "idempotency_key_in_progress": ProblemType(
        409,
        "The first request with this Idempotency-Key is still running.",
        "Send the request again with the same key after the seconds in Retry-After.",
    ),
    "precondition_failed": ProblemType(
        412,
        "The resource has changed since you read it.",
        "Read the resource again and repeat the change on its current state.",
    ),
    "too_large": ProblemType(
        413,
        "The body has too many bytes or items, or the image has too many pixels.",
        "Send at most 1 MB and 1,500 items of JSON (15 MB for a new product), a form of 64 kB, an image of "
        "50 MB and 64 megapixels.",
    ),
    "unsupported_media_type": ProblemType(
        415,
        "The body has no Content-Type, or one that the operation does not accept.",
        "Send a Content-Type that the contract lists, in UTF-8.",
    ),
    "not_an_image": ProblemType(
        415, "The file is not a supported image.", "Send a JPEG, PNG, WebP, AVIF, HEIC or GIF image."
    ),
    "invalid_request": ProblemType(
        422,
        "The request violates the contract. detail lists every violation with its location.",
        "Correct the listed values; pointer is the JSON Pointer of each.",
    ),
    "idempotency_key_reused": ProblemType(
        422,
        "The Idempotency-Key was already used for a request with other content.",
        "Repeat the first request unchanged, or use a new key for the new request.",
    ),
    "unreadable_image": ProblemType(
        422,
        "The file has the format of an image but cannot be decoded.",
        "Send the file again; it may be truncated.",
    ),
    "rate_limited": ProblemType(
        429,
        "The request exceeds a rate limit, named in policy. Nothing was changed.",
        "Wait for the seconds in Retry-After. RateLimit-Policy and RateLimit say how many requests remain.",
    ),
    "too_many_concurrent_requests": ProblemType(
        429,
        "Your account, counting its API keys, has too many requests in progress at the same time; without a "
        "credential, your address has. Nothing was changed.",
        "Send the request again when another one has ended. Long polling and event streams do not count.",
    ),
    "internal_error": ProblemType(
        500,
        "The server failed. The error is logged under the request_id, and the changes of the request were "
        "rolled back.",
        "Try again later; if the error remains, report the request_id.",
    ),
    "unavailable": ProblemType(
        503,
        "The server is temporarily unavailable, for example because its database does not respond or its "
        "disk is full. Nothing was changed.",
        "Try again after the seconds in Retry-After.",
    ),
    "mail_disabled": ProblemType(
        503,
        "The operation sends an e-mail, and the operator of this server has turned e-mail off.",
        "Ask the operator of the server. Owners and admins can add members without an invitation.",
    ),
    "too_many_body_bytes": ProblemType(
        503,
        "The requests that are being received hold too many bytes: 250 MB for one account or address, or "
        "1 GB for all clients, by default. Nothing was changed.",
        "Wait for the seconds in Retry-After, and send fewer large files at the same time.",
    ),
    "took_too_long": ProblemType(
        503,
        "The request was not completed within a minute and was aborted. Its changes were rolled back.",
        "Try again after the seconds in Retry-After; request less at once.",
    ),
}
