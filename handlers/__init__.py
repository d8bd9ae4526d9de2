"""Everything that knows HTTP: one module per tag of the contract, and the packages that they share."""

import sys
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType


def _is_valid_syntax(term: str, value: str) -> bool:
    return bool(import_module("rfc3987_syntax").is_valid_syntax(term, value))


# Connexion imports these two to load remote `$ref`s and to ask an authorization server about tokens. The
# bundled contract needs neither, and they would take 9 MB of each process. Placeholders stand in while
# Connexion is imported; a later import of either package loads it as usual.
_UNUSED_BY_CONNEXION = [name for name in ("requests", "httpx") if name not in sys.modules]
sys.modules.update((name, ModuleType(name)) for name in _UNUSED_BY_CONNEXION)
# Connexion imports jsonschema, which loads a grammar of IRIs (1 s) if a development tool has installed it.
# With this placeholder, the first check of such a format loads it.
if "rfc3987_syntax" not in sys.modules and find_spec("rfc3987_syntax"):
    _lazy = ModuleType("rfc3987_syntax")
    vars(_lazy)["is_valid_syntax"] = _is_valid_syntax
    sys.modules["rfc3987_syntax"] = _lazy
    _UNUSED_BY_CONNEXION.append("rfc3987_syntax")
import connexion  # noqa: E402, F401 - the placeholders come first

for _name in _UNUSED_BY_CONNEXION:
    del sys.modules[_name]

# PyJWT imports cryptography, 9 MB, for signatures with key pairs, and works without it: this server signs
# with HMAC. The first request with an Idempotency-Key imports the package.
if "cryptography" not in sys.modules:
    sys.modules["cryptography"] = None  # type: ignore[assignment]  # makes its import fail
    import jwt  # noqa: F401 - only its import matters here

    del sys.modules["cryptography"]
