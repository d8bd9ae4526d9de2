"""The undocumented parts of Connexion, uvicorn and other libraries that we rely on.

The next release may change them. When an upgrade moves one, a test here names it, the module that relies on
it, and the purpose.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from importlib.metadata import version
from typing import Any, NamedTuple

import pytest
from connexion.apps.abstract import AbstractApp
from connexion.apps.flask import FlaskApi, FlaskApp, FlaskASGIApp
from connexion.lifecycle import ConnexionRequest
from connexion.middleware import ConnexionMiddleware, SpecMiddleware
from connexion.middleware.abstract import ROUTING_CONTEXT, RoutedMiddleware
from connexion.middleware.exceptions import ExceptionMiddleware
from connexion.security import AbstractSecurityHandler, SecurityHandlerFactory
from marshmallow.fields import Field
from prometheus_client import Counter
from prometheus_client.metrics import MetricWrapperBase
from sqlalchemy import Connection
from starlette.formparsers import MultiPartException, MultiPartParser
from uvicorn import Server
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from tests.architecture.sources import Module

BRIDGE = "handlers/pipeline/wsgi_bridge.py"
AUTH = "handlers/pipeline/auth.py"
PROTOCOL = "handlers/server/http_protocol.py"
CLI = "handlers/server/cli.py"
SERIALIZER = "handlers/schemas/serializer.py"
DRIVER = "db/fast_path/driver_statement.py"
METRICS = "studio/infrastructure/telemetry/metrics.py"
BODIES = "handlers/contract/request_bodies.py"


class PrivateMethod(NamedTuple):
    """A method that is called or overridden, with its parameters."""

    owner: Any
    name: str
    parameters: tuple[str, ...]
    module: str
    purpose: str


class PrivateAttribute(NamedTuple):
    """An attribute that an instance has."""

    owner: Any
    name: str
    module: str
    purpose: str


METHODS = (
    PrivateMethod(
        ConnexionMiddleware, "_build_middleware_stack", (), "handlers/app.py", "errors appear at start"
    ),
    PrivateMethod(FlaskASGIApp, "__init__", ("import_name", "server_args"), BRIDGE, "replaces the bridge"),
    PrivateMethod(FlaskASGIApp, "add_api", ("specification", "name"), BRIDGE, "registers the endpoints"),
    PrivateMethod(FlaskApi, "make_operation", ("operation",), BRIDGE, "leaves Connexion's decorators out"),
    PrivateMethod(SecurityHandlerFactory, "verify_security", ("auth_funcs",), AUTH, "tries all schemes"),
    PrivateMethod(AbstractSecurityHandler, "get_fn", ("security_scheme", "required_scopes"), AUTH, "checks"),
    PrivateMethod(AbstractSecurityHandler, "get_auth_header_value", ("request",), AUTH, "splits the header"),
    PrivateMethod(Server, "startup", ("sockets",), CLI, "prints the URL once it responds"),
    PrivateMethod(Server, "shutdown", ("sockets",), CLI, "stops workers at once"),
    PrivateMethod(HttpToolsProtocol, "connection_made", ("transport",), PROTOCOL, "starts the timer"),
    PrivateMethod(HttpToolsProtocol, "connection_lost", ("exc",), PROTOCOL, "cancels the timers"),
    PrivateMethod(HttpToolsProtocol, "data_received", ("data",), PROTOCOL, "passes on any method"),
    PrivateMethod(HttpToolsProtocol, "on_message_begin", (), PROTOCOL, "limits the head"),
    PrivateMethod(HttpToolsProtocol, "on_header", ("name", "value"), PROTOCOL, "limits the head"),
    PrivateMethod(HttpToolsProtocol, "on_headers_complete", (), PROTOCOL, "limits the head"),
    PrivateMethod(HttpToolsProtocol, "on_message_complete", (), PROTOCOL, "expects the next request"),
    PrivateMethod(HttpToolsProtocol, "on_response_complete", (), PROTOCOL, "expects the next request"),
    PrivateMethod(HttpToolsProtocol, "send_400_response", ("msg",), PROTOCOL, "sends a problem document"),
    PrivateMethod(HttpToolsProtocol, "pause_writing", (), PROTOCOL, "limits slow readers"),
    PrivateMethod(HttpToolsProtocol, "resume_writing", (), PROTOCOL, "limits slow readers"),
    PrivateMethod(HttpToolsProtocol, "shutdown", (), PROTOCOL, "serves the first request"),
    PrivateMethod(MultiPartParser, "on_headers_finished", (), BODIES, "rejects names that are not UTF-8"),
    PrivateMethod(MultiPartParser, "on_part_end", (), BODIES, "rejects text that is not UTF-8"),
    PrivateMethod(MultiPartParser, "on_end", (), BODIES, "rejects truncated bodies"),
    PrivateMethod(Connection, "_handle_dbapi_exception", ("e", "statement"), DRIVER, "wraps the error"),
    PrivateMethod(Counter, "_metric_init", (), METRICS, "moves the values of a worker to files"),
    PrivateMethod(Field, "_serialize", ("value", "attr", "obj"), SERIALIZER, "converts a value"),
)  # fmt: skip

ATTRIBUTES = (
    PrivateAttribute(ConnexionMiddleware, "middleware_stack", "handlers/app.py", "holds the built stack"),
    PrivateAttribute(ConnexionMiddleware, "app", "handlers/app.py", "is the outermost application"),
    PrivateAttribute(FlaskApp, "_middleware_app", BRIDGE, "is the application inside the middleware"),
    PrivateAttribute(FlaskASGIApp, "app", BRIDGE, "is the Flask application"),
    PrivateAttribute(FlaskASGIApp, "asgi_app", BRIDGE, "is the bridge"),
    PrivateAttribute(FlaskApi, "blueprint", BRIDGE, "has the endpoints"),
    PrivateAttribute(HttpToolsProtocol, "transport", PROTOCOL, "is written to"),
    PrivateAttribute(HttpToolsProtocol, "client", PROTOCOL, "is the peer"),
    PrivateAttribute(HttpToolsProtocol, "loop", PROTOCOL, "starts timers"),
    PrivateAttribute(HttpToolsProtocol, "cycle", PROTOCOL, "tells whether a request runs"),
    PrivateAttribute(HttpToolsProtocol, "scope", PROTOCOL, "receives the client's method"),
    PrivateAttribute(HttpToolsProtocol, "url", PROTOCOL, "counts towards the head"),
    PrivateAttribute(HttpToolsProtocol, "headers", PROTOCOL, "counts towards the head"),
    PrivateAttribute(RequestResponseCycle, "keep_alive", PROTOCOL, "closes rejected connections"),
    PrivateAttribute(RequestResponseCycle, "response_complete", PROTOCOL, "tells whether a request runs"),
    PrivateAttribute(Server, "started", "handlers/server/cli.py", "tells whether the server responds"),
    PrivateAttribute(Server, "server_state", "handlers/server/cli.py", "lists the connections"),
    PrivateAttribute(Server, "should_exit", "handlers/server/cli.py", "ends a worker without supervisor"),
    PrivateAttribute(MetricWrapperBase, "_labelnames", METRICS, "tells metrics with labels from others"),
    PrivateAttribute(MultiPartParser, "_current_part", BODIES, "is the part to check"),
    PrivateAttribute(MultiPartException, "message", BODIES, "tells a limit from a syntax error"),
)


def distribution_of(owner: Any) -> str:
    """Return the name and version of the package that a class comes from."""
    name = owner.__module__.partition(".")[0]
    return f"{name} {version(name)}"


def find_method_error(method: PrivateMethod) -> str | None:
    """Return what changed about a method, or None."""
    owner, name, expected, module, purpose = method
    needed = f"{module} relies on it ({purpose})"
    function = getattr(owner, name, None)
    if function is None:
        return f"{distribution_of(owner)} has no {owner.__name__}.{name} any more: {needed}"
    actual = tuple(name for name in inspect.signature(function).parameters if name != "self")
    if not set(expected) <= set(actual):
        return f"{distribution_of(owner)} changed {owner.__name__}.{name} to {actual}: {needed}"
    return None


def find_attribute_error(attribute: PrivateAttribute) -> str | None:
    """Return what changed about an attribute, or None. Instances have it if a class assigns it to `self`."""
    owner, name, module, purpose = attribute
    sources = [
        inspect.getsource(cls) for cls in owner.__mro__ if cls.__module__.partition(".")[0] != "builtins"
    ]
    if any(f"self.{name}" in source for source in sources):
        return None
    return (
        f"{distribution_of(owner)} has no {owner.__name__}.{name} any more: {module} relies on it ({purpose})"
    )


@pytest.mark.parametrize("method", METHODS, ids=lambda method: f"{method.owner.__name__}.{method.name}")
def test_a_private_method_is_there_with_its_parameters(method: PrivateMethod) -> None:
    assert find_method_error(method) is None


@pytest.mark.parametrize("attribute", ATTRIBUTES, ids=lambda one: f"{one.owner.__name__}.{one.name}")
def test_a_private_attribute_is_there(attribute: PrivateAttribute) -> None:
    assert find_attribute_error(attribute) is None


def test_the_keys_of_connexion_in_the_asgi_scope_are_the_same() -> None:
    """`routing` writes the first one, `request_validation` and `rate_limits` read the second one."""
    assert ROUTING_CONTEXT == "connexion_routing"
    assert 'scope["extensions"][ROUTING_CONTEXT]' in inspect.getsource(RoutedMiddleware)
    scope: dict[str, Any] = {"type": "http", "extensions": {}}
    ConnexionRequest(scope).context["token_info"] = {"sub": "1"}
    assert scope["extensions"] == {"connexion_context": {"token_info": {"sub": "1"}}}
    assert '"token_info": token_info' in inspect.getsource(SecurityHandlerFactory.verify_security)


def test_connexions_flask_app_does_nothing_more_at_start_than_the_bridge_repeats() -> None:
    """`BridgedFlaskApp` skips this constructor: a new line in it has to be repeated there."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(FlaskApp.__init__)))
    constructor = next(node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))
    statements = [ast.unparse(node).partition("(")[0] for node in constructor.body if not is_docstring(node)]
    assert statements == [
        "self._middleware_app = FlaskASGIApp",
        "super",
        "self.app = self._middleware_app.app",
        "self.app.register_error_handler",
    ]
    assert FlaskApp.__mro__[1] is AbstractApp


def is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def test_connexion_hands_the_contract_and_the_error_handlers_to_these_middlewares() -> None:
    source = inspect.getsource(ConnexionMiddleware._build_middleware_stack)
    assert "isinstance(app, SpecMiddleware)" in source
    assert "isinstance(app, ExceptionMiddleware)" in source
    assert SpecMiddleware is not None
    assert ExceptionMiddleware is not None


def test_the_handlers_use_no_other_private_part(modules: list[Module]) -> None:
    """Attributes of other objects that begin with one underscore; a class may use its own."""
    listed = {entry.name for entry in (*METHODS, *ATTRIBUTES)} | {"_asdict", "_exit"}  # documented
    found = [
        f"{module.name}:{node.lineno} {ast.unparse(node)}"
        for module in modules
        if module.name.startswith("handlers/")
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Attribute)
        and node.attr.startswith("_")
        and not node.attr.startswith("__")
        and not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"))
        and node.attr not in listed
    ]
    assert found == []


def test_a_part_that_moved_is_noticed() -> None:
    gone = PrivateMethod(Server, "begin", (), "handlers/server/cli.py", "starts")
    changed = PrivateMethod(Server, "startup", ("addresses",), "handlers/server/cli.py", "starts")
    release = f"uvicorn {version('uvicorn')}"
    assert find_method_error(gone) == (
        f"{release} has no Server.begin any more: handlers/server/cli.py relies on it (starts)"
    )
    assert find_method_error(changed) == (
        f"{release} changed Server.startup to ('sockets',): handlers/server/cli.py relies on it (starts)"
    )
    assert find_attribute_error(PrivateAttribute(Server, "begun", "handlers/server/cli.py", "starts")) == (
        f"{release} has no Server.begun any more: handlers/server/cli.py relies on it (starts)"
    )
