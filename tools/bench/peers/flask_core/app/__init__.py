"""The product operations of the contract in plain Flask: SQLAlchemy Core, orjson and manual validation."""

from __future__ import annotations

import os
from typing import Any

import orjson
from flask import Flask
from flask.json.provider import JSONProvider


class OrjsonProvider(JSONProvider):
    """A JSON provider of Flask that uses orjson."""

    def dumps(self, obj: Any, **_: Any) -> str:
        return orjson.dumps(obj, option=orjson.OPT_UTC_Z).decode()

    def loads(self, s: str | bytes, **_: Any) -> Any:
        return orjson.loads(s)

    def response(self, *args: Any, **kwargs: Any) -> Any:
        body = orjson.dumps(self._prepare_response_obj(args, kwargs), option=orjson.OPT_UTC_Z)
        return self._app.response_class(body, mimetype="application/json")


class JsonFlask(Flask):
    json_provider_class = OrjsonProvider


def create_app() -> Flask:
    from app import problems, products

    app = JsonFlask(__name__)
    app.config.from_mapping({name: os.environ[name] for name in ("SECRET_KEY", "PUBLIC_URL")})
    problems.init_app(app)
    app.register_blueprint(products.blueprint)
    return app
