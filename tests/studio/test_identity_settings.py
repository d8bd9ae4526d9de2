"""The server does not start with secrets that everybody knows."""

from __future__ import annotations

from pathlib import Path

import pytest

from handlers.server.cli import main
from studio.settings import DEVELOPMENT_SECRET, InvalidSettings, Settings

OWN_SECRET = "0123456789abcdef0123456789abcdef"


def test_development_starts_without_any_setting() -> None:
    settings = Settings.from_environment({})
    assert (settings.environment, settings.secret_key) == ("development", DEVELOPMENT_SECRET)
    assert settings.secret_key not in repr(settings)


@pytest.mark.parametrize("name", ["test", "production"])
@pytest.mark.parametrize("secret", [None, "", DEVELOPMENT_SECRET, "short", OWN_SECRET[:-1]])
def test_a_missing_default_or_short_secret_is_refused_outside_development(
    name: str, secret: str | None
) -> None:
    environment = {"SARTIQ_ENV": name} | ({} if secret is None else {"SECRET_KEY": secret})
    with pytest.raises(InvalidSettings, match="SECRET_KEY"):
        Settings.from_environment(environment)


def test_production_starts_with_a_secret_of_its_own() -> None:
    settings = Settings.from_environment({"SARTIQ_ENV": "production", "SECRET_KEY": OWN_SECRET})
    assert settings.secret_key == OWN_SECRET


def test_an_unknown_environment_is_not_taken_for_development() -> None:
    with pytest.raises(InvalidSettings, match="SARTIQ_ENV"):
        Settings.from_environment({"SARTIQ_ENV": "staging"})


@pytest.mark.parametrize(
    "refused", [{"SARTIQ_ENV": "production", "SECRET_KEY": ""}, {"SMTP_URL": "mail.example.com:25"}]
)
def test_the_command_says_why_it_does_not_start(
    refused: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "data"))
    for name, value in refused.items():
        monkeypatch.setenv(name, value)
    assert main(["--prepare-only"]) == 2
    assert "Not started" in capsys.readouterr().err
    assert not (tmp_path / "data").exists()
