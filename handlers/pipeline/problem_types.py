"""The catalogue of problem codes: what each means to a caller and what to do about it.

It is what a problem's `type` opens. A test keeps it equal to the codes that the house can raise.
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
        "The request cannot be read: it is not JSON, not UTF-8, repeats a key, nests too deep or holds a "
        "number that is none.",
        "Send what a JSON encoder makes, in UTF-8, or multipart with its boundary.",
    ),
    "not_authenticated": ProblemType(
        401,
        "The operation needs a token or, where the contract says so, an API key, and none was sent.",
        "Sign in at /api/v1/login/access-token and send Authorization: Bearer with the access token.",
    ),
    "invalid_token": ProblemType(
        401,
        "The token or API key is not one of ours, has expired, was revoked or deleted, or its account is "
        "locked; or the operation takes no API keys.",
        "Renew the token with the refresh token, or sign in again; make another API key.",
    ),
    "incorrect_credentials": ProblemType(
        401,
        "Address and password do not belong together.",
        "Check both; a forgotten password is recovered at /api/v1/password-recovery/{email}.",
    ),
    "invalid_webhook_signature": ProblemType(
        401,
        "The message is not signed with the secret that was agreed on, or not within the last five minutes.",
        "Sign webhook-id, webhook-timestamp and the body as Standard Webhooks says, with the current time.",
    ),
    "not_enough_permissions": ProblemType(
        403,
        "You may see this row, but your role does not allow the action. Of an API key: its scopes do not, or "
        "the request named no organization_id.",
        "Ask an admin or the owner of the organization.",
    ),
    "invalid_signature": ProblemType(
        403,
        "The signed address was altered or has expired.",
        "Ask for a new one and use it as it is.",
    ),
    "not_found": ProblemType(
        404,
        "There is no such row, path or cursor for you. Rows of other organizations look the same.",
        "Check the identifier and the organization_id of the request.",
    ),
    "method_not_allowed": ProblemType(
        405, "The path exists, this method does not.", "The Allow header lists the methods."
    ),
    "not_acceptable": ProblemType(
        406,
        "None of the media types in Accept can be answered.",
        "Accept what the operation lists in the contract, or */*.",
    ),
    "request_timeout": ProblemType(
        408,
        "The request did not come, or came more slowly than 32 kB a second. Nothing was done.",
        "Send the request again, in one go; over a slow line send a smaller file.",
    ),
    "conflict": ProblemType(
        409,
        "The row collides with another one that came first.",
        "Read the rows again and repeat the request with other values.",
    ),
    "in_use": ProblemType(
        409, "Something still refers to the row.", "Remove or change what refers to it first."
    ),
    "scope_mismatch": ProblemType(
        409,
        "Two rows of different scopes were brought together, for instance a personal product and a shooting "
        "of an organization.",
        "Use rows of one organization, or public ones.",
    ),
    "slug_taken": ProblemType(
        409, "Another row of this scope has the slug.", "Choose another slug, or leave it out."
    ),
    "sku_taken": ProblemType(409, "Another product of this scope has the SKU.", "Choose another SKU."),
    "email_taken": ProblemType(409, "Another account has the address.", "Use another address."),
    "incorrect_password": ProblemType(
        409, "The current password is wrong.", "Repeat the request with the password as it is now."
    ),
    "password_too_common": ProblemType(
        409,
        "The new password is one of those that everybody tries first, in whatever letter case.",
        "Choose another one; several words in a row do.",
    ),
    "own_account": ProblemType(
        409,
        "One cannot delete, lock or demote the own account.",
        "Let another superuser do it.",
    ),
    "owns_organization": ProblemType(
        409, "The account owns an organization.", "Hand the organization over, or delete it, first."
    ),
    "owner_required": ProblemType(
        409, "An organization has exactly one owner.", "Change or remove another member."
    ),
    "already_owner": ProblemType(
        409, "The account owns the organization already.", "Name another member as the new owner."
    ),
    "account_locked": ProblemType(
        409, "The account that was to become the owner is locked.", "Name a member who can sign in."
    ),
    "already_member": ProblemType(
        409, "The account is a member of the organization.", "Change the member's role instead."
    ),
    "password_required": ProblemType(
        409,
        "The request needs a password: that of the account, or the one that a new account shall have.",
        "Send the request again with the password.",
    ),
    "invitation_void": ProblemType(
        409,
        "Whoever sent the invitation left the organization, is locked or may no longer give the role.",
        "Ask for another invitation.",
    ),
    "too_many_invitations": ProblemType(
        409,
        "Fifty invitations of the organization are open.",
        "Withdraw some, or wait until they are accepted.",
    ),
    "too_many_api_keys": ProblemType(
        409, "The organization has 50 API keys, expired ones included.", "Delete those that nobody needs."
    ),
    "scopes_not_granted": ProblemType(
        409,
        "The key was to be allowed what your role in the organization, that of a member, does not allow you.",
        "Leave those scopes out, or let somebody make the key who may do it all.",
    ),
    "not_empty": ProblemType(409, "The organization still has rows.", "Delete its rows first."),
    "subscription_exists": ProblemType(
        409, "The account has an active subscription.", "Change or renew that one."
    ),
    "public_requires_superuser": ProblemType(
        409, "Only superusers make rows public.", "Leave public out, or false."
    ),
    "invalid_transition": ProblemType(
        409,
        "The row's state does not allow the step.",
        "Read the row; the contract lists the steps of each state.",
    ),
    "shot_busy": ProblemType(
        409, "A generation of the shot is open.", "Wait until it is over, or cancel it."
    ),
    "shot_has_predictions": ProblemType(
        409,
        "A shot type cannot be taken from the look: pictures were made for its shot.",
        "Keep the shot type, or delete the pictures first.",
    ),
    "generation_running": ProblemType(
        409, "A generation is open for something below.", "Wait until it is over, or cancel it."
    ),
    "prediction_ambiguous": ProblemType(
        409,
        "Without prediction_id exactly one picture of the shot must be in review.",
        "Name the picture that is meant.",
    ),
    "nothing_to_generate": ProblemType(
        409,
        "There is nothing to start from: no shot, product or source picture, or no photograph of it.",
        "Name one of them, or upload a photograph of the product.",
    ),
    "strategy_not_supported": ProblemType(
        409,
        "The model lacks the tool that the strategy needs.",
        "Choose a model whose tool_types have it.",
    ),
    "resolution_not_supported": ProblemType(
        409,
        "The picture would be larger than the model can make.",
        "Ask for a smaller size, or choose another model.",
    ),
    "out_of_credits": ProblemType(
        409,
        "Whoever pays has no active subscription, or too few credits left.",
        "Renew the subscription of the organization's owner.",
    ),
    "queue_full": ProblemType(
        409,
        "Fifty generations of this scope are open, or fifty test events of this webhook endpoint wait.",
        "Wait until some are over, or cancel some.",
    ),
    "too_many_endpoints": ProblemType(
        409, "The scope has 20 webhook endpoints.", "Change one of them, or delete one that is not needed."
    ),
    "endpoint_disabled": ProblemType(
        409,
        "The webhook endpoint is disabled and gets nothing.",
        "Enable it first: PATCH with is_enabled true.",
    ),
    "nothing_to_export": ProblemType(
        409,
        "The shooting has no approved picture that was not exported yet.",
        "Approve pictures, or name those that are to be exported again.",
    ),
    "not_approved": ProblemType(
        409, "A picture that was named is in review or rejected.", "Approve it first, or leave it out."
    ),
    "export_too_large": ProblemType(
        409, "More than 500 pictures are approved.", "Name up to 500 of them in prediction_ids."
    ),
    "too_many_exports": ProblemType(
        409, "Ten exports of this scope are open.", "Wait until some are completed, or delete one."
    ),
    "export_not_ready": ProblemType(
        409,
        "The archive is not written yet, or could not be.",
        "Read the export until its status is completed; error says why it failed.",
    ),
    "too_many_images": ProblemType(
        409, "The product or subject has as many images as it can.", "Delete images that are not needed."
    ),
    "target_not_allowed": ProblemType(
        409,
        "This server goes to https on the public internet, and the address is not there or leads elsewhere.",
        "Name a public https address without port, or upload the image and use the file_url of the answer.",
    ),
    "image_not_fetched": ProblemType(
        409,
        "No image came from the address: the server was not reached, took too long, or answered with another "
        "status than 200.",
        "Look whether anybody can open the address without signing in, and send the request again.",
    ),
    "image_not_usable": ProblemType(
        409,
        "What came from the address is no image that we read, cannot be opened or is too large.",
        "Name an address of a JPEG, PNG, WebP, AVIF or GIF of at most 50 MB and 64 megapixels.",
    ),
    "upload_consumed": ProblemType(
        409, "The uploaded file is in use and cannot be replaced.", "Ask for a new upload address."
    ),
    "idempotency_key_in_progress": ProblemType(
        409,
        "The first request with this Idempotency-Key has not been answered yet.",
        "Send the request again, with the same key, after the seconds that Retry-After names.",
    ),
    "precondition_failed": ProblemType(
        412,
        "Somebody changed the row since you read it.",
        "Read it again and repeat the change on what you find.",
    ),
    "too_large": ProblemType(
        413,
        "The body has too many bytes or items, or the image too many pixels.",
        "Send at most 1 MB and 1,500 items of JSON, a form of 64 kB, an image of 50 MB and 64 megapixels.",
    ),
    "unsupported_media_type": ProblemType(
        415,
        "The body has no media type, or one that the operation does not take.",
        "Send a Content-Type that the contract lists, in UTF-8.",
    ),
    "not_an_image": ProblemType(
        415, "The file is no image that we read.", "Send JPEG, PNG, WebP, AVIF or GIF."
    ),
    "invalid_request": ProblemType(
        422,
        "The request breaks the contract. detail lists every violation with its place.",
        "Mend what is listed; pointer leads to each value.",
    ),
    "idempotency_key_reused": ProblemType(
        422,
        "The Idempotency-Key came with a request of other content before.",
        "Send the first request unchanged, or give the new one a key of its own.",
    ),
    "unreadable_image": ProblemType(
        422, "The file looks like an image but cannot be opened.", "Send the file again; it may be cut short."
    ),
    "rate_limited": ProblemType(
        429,
        "More was asked than a limit allows; policy names it. Nothing was done.",
        "Wait as long as Retry-After says. RateLimit-Policy and RateLimit tell beforehand what is left.",
    ),
    "internal_error": ProblemType(
        500,
        "The server failed. The failure is logged under the request_id; nothing of the request was kept.",
        "Try again later; if it stays, report the request_id.",
    ),
    "unavailable": ProblemType(
        503,
        "The server cannot work at the moment, for instance because its database does not answer.",
        "Try again after the seconds that Retry-After names.",
    ),
    "took_too_long": ProblemType(
        503,
        "For a minute the server was at work on the request, or had no thread for it, and gave it up. "
        "Nothing of it was kept.",
        "Try again after the seconds that Retry-After names; ask for less at once.",
    ),
}
