"""What each credential counts for and may do, and what ends it: the table of `docs/security.md`.

`test_ended_rights.py` goes through `EXPECTED`. `python -m tests.security.credentials` writes the tables.
"""

from __future__ import annotations

from tools.servers.server import ROOT

PAGE = ROOT / "docs" / "security.md"
START, END = "<!-- credentials: python -m tests.security.credentials -->\n", "<!-- end of credentials -->"

WAYS = ("demoted", "removed", "deactivated", "deleted", "key deleted", "organization suspended", "plan ended")
"""The account becomes a viewer, leaves the organization, is deactivated or deleted; the key is deleted; the
organization is suspended; or the plan of its owner ends."""
WORKS, READS, ENDS = "works", "reads", "ends"

_OF_THE_ACCOUNT = {"key deleted": WORKS, "plan ended": WORKS}
_OF_A_KEY = {"plan ended": WORKS}

EXPECTED: dict[str, dict[str, str]] = {
    "session": dict.fromkeys(WAYS, ENDS) | _OF_THE_ACCOUNT | {"demoted": READS},
    "session of a provider": dict.fromkeys(WAYS, ENDS) | _OF_THE_ACCOUNT | {"demoted": READS},
    "API key": dict.fromkeys(WAYS, ENDS) | _OF_A_KEY | {"demoted": READS},
    "review link": dict.fromkeys(WAYS, ENDS) | _OF_THE_ACCOUNT,
    "review link of a key": dict.fromkeys(WAYS, ENDS) | _OF_A_KEY,
    "share link": dict.fromkeys(WAYS, ENDS) | _OF_THE_ACCOUNT,
    "share link of a key": dict.fromkeys(WAYS, ENDS) | _OF_A_KEY,
    # It belongs to the account, not to an organization.
    "upload URL": dict.fromkeys(WAYS, WORKS) | {"deactivated": ENDS, "deleted": ENDS},
    "upload URL of a key": dict.fromkeys(WAYS, ENDS) | _OF_A_KEY | {"demoted": WORKS},
    "pending generation": dict.fromkeys(WAYS, ENDS) | {"key deleted": WORKS},
    "pending generation of a key": dict.fromkeys(WAYS, ENDS),
    "import": dict.fromkeys(WAYS, ENDS) | _OF_THE_ACCOUNT,
    "import of a key": dict.fromkeys(WAYS, ENDS) | _OF_A_KEY,
    "webhook endpoint": dict.fromkeys(WAYS, WORKS),
    "published image": dict.fromkeys(WAYS, WORKS) | {"organization suspended": ENDS},
}

CREDENTIALS = {
    "session": (
        "what the roles of the account allow",
        "the account",
        "sign-out, a new password, 30 days",
    ),
    "session of an identity provider": (
        "what the role of the account allows in the organization of the provider",
        "the account",
        "sign-out, 12 hours, the link, the end or the deactivation of the provider",
    ),
    "API key": (
        "what its scopes and the present role of its creator have in common, in one organization",
        "the account that created it; requests per minute for itself",
        "its deletion or expiry",
    ),
    "guest of a review link": (
        "review one shooting, as far as the creator of the link, and the key that made it, may",
        "the account that created the link; requests per minute for itself, at most half for all guests",
        "an hour; the deletion or expiry of the link",
    ),
    "share link": (
        "read one image, while its creator, and the key that made it, may share",
        "the address of the client; `public-images` of the organization",
        "its deletion or expiry, 30 days at most",
    ),
    "URL of a published image": (
        "read one image and its variants",
        "the address of the client; `public-images` of the organization",
        "the end of the publication, or of the organization or personal account",
    ),
    "upload URL": (
        "send one file, while the account or key that created it may upload",
        "the account that created it",
        "15 to 85 minutes; the use of the file",
    ),
    "pull delivery of webhooks, MCP server, export": (
        "what the token or key that is sent allows: they have no credential of their own",
        "that token or key",
        "the end of that token or key",
    ),
    "challenge of a sign-in": (
        "start one session, together with a second factor",
        "the account (`sign-in-account`) and the address of the client (`sign-in-address`)",
        "its use, five minutes, five attempts, a new password",
    ),
    "token in an e-mail": (
        "one action of one account: join, set a password, confirm an address, keep the account",
        "the address of the client (`sign-in-address`)",
        "its use, its expiry, a new password",
    ),
}
_NAMES = {WORKS: "goes on", READS: "reads only", ENDS: "ends"}


def render_page(text: str) -> str:
    """Return the page with the present tables."""
    before, _, rest = text.partition(START)
    _, _, after = rest.partition(END)
    lines = ["| Credential | May | Counts for | Ends with |", "|---|---|---|---|"]
    lines += [f"| {name} | {' | '.join(cells)} |" for name, cells in CREDENTIALS.items()]
    lines += [
        "",
        f"| What happens to the account, its key, its organization or the plan | {' | '.join(WAYS)} |",
        "|---|" + "---|" * len(WAYS),
    ]
    lines += [
        f"| {name} | {' | '.join(_NAMES[ends[way]] for way in WAYS)} |" for name, ends in EXPECTED.items()
    ]
    return f"{before}{START}\n" + "\n".join(lines) + f"\n\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(render_page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
