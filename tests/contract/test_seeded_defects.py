"""Every seeded defect replaces an attribute that exists. After a rename, the server would have no defect."""

from __future__ import annotations

from typing import Any

import pytest

import handlers.app
from handlers.app import Application
from tests.contract import seeded_defects
from tests.contract.seeded_defects import AUTHENTICATION_DEFECTS, DEFECTS
from tests.contract.selftest import RUNS
from tests.support.app import create_test_app

SECRETS = ("a secret that is long enough for signatures",)


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Application:
    """Return an application that all tests change and restore."""
    return create_test_app(tmp_path_factory.mktemp("defects"))


@pytest.fixture
def replaced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Undo all replacements after the test, and return the names of the replaced attributes."""
    names: list[str] = []

    def replace(target: Any, name: str, replacement: Any) -> None:
        monkeypatch.setattr(target, name, replacement)
        names.append(name)

    monkeypatch.setattr(seeded_defects, "replace", replace)
    return names


@pytest.mark.parametrize("name", sorted(DEFECTS))
def test_a_defect_replaces_an_existing_attribute(name: str, replaced: list[str], app: Application) -> None:
    DEFECTS[name](app)
    assert replaced


@pytest.mark.parametrize("name", sorted(AUTHENTICATION_DEFECTS))
def test_a_defect_of_the_authentication_replaces_the_check_of_every_scheme(
    name: str, replaced: list[str]
) -> None:
    intact = handlers.app.build_security_map(SECRETS)
    AUTHENTICATION_DEFECTS[name]()
    assert replaced == ["read_caller", "build_security_map", "create_app"]
    defective = handlers.app.build_security_map(SECRETS)
    assert defective.keys() == intact.keys()
    for scheme, secure in defective.items():
        assert secure._check_credential is not intact[scheme]._check_credential


def test_an_attribute_that_does_not_exist_is_not_replaced() -> None:
    with pytest.raises(AttributeError):
        seeded_defects.replace(handlers.app, "security_map", None)
    assert not hasattr(handlers.app, "security_map")


def test_the_selftest_seeds_only_known_defects() -> None:
    assert set(RUNS) <= set(DEFECTS | AUTHENTICATION_DEFECTS)
