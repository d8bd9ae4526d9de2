"""Test settings: defaults, errors, secrets from files, `.env`, and values that production rejects."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from handlers.server.cli import main
from studio.infrastructure.mask_models import MaskModel
from studio.infrastructure.settings import (
    DEVELOPMENT_SECRET,
    InvalidSettings,
    Settings,
    list_settings,
    load_env_file,
)
from tests.support.app import reject_settings

OWN_SECRET = "0123456789abcdef0123456789abcdef"
PRODUCTION = {"SARTIQ_ENV": "production", "SECRET_KEY": OWN_SECRET, "MAIL": "off"}
SECRETS = [variable.name for _, variable in list_settings() if variable.secret]


def test_development_starts_without_any_setting() -> None:
    settings = Settings.from_environment({})
    assert (settings.environment, settings.secret_key) == ("development", DEVELOPMENT_SECRET)
    assert settings.secret_key not in repr(settings)


def test_an_empty_variable_counts_as_missing() -> None:
    names = [variable.name for _, variable in list_settings()]
    assert Settings.from_environment(dict.fromkeys(names, "")) == Settings.from_environment({})


@pytest.mark.parametrize("value", ["color", "colour"])
def test_the_mask_model_of_older_releases_is_read_as_color(value: str) -> None:
    settings = Settings.from_environment({"MASK_MODEL": value})
    assert MaskModel.from_settings(settings) == MaskModel("color")


def test_defaults_depend_on_other_settings() -> None:
    settings = Settings.from_environment({"PORT": "9000", "DATA_DIR": "/srv/sartiq"})
    assert settings.public_url == "http://localhost:9000"
    assert settings.database_url == ""  # the embedded database
    assert (settings.media_dir, settings.outbox_dir) == (
        Path("/srv/sartiq/media"),
        Path("/srv/sartiq/outbox"),
    )


def test_the_name_of_the_process_is_the_default_of_its_setting() -> None:
    assert Settings.from_environment({}, "sartiq-worker").service_name == "sartiq-worker"
    named = {"OTEL_SERVICE_NAME": "my-service"}
    assert Settings.from_environment(named, "sartiq-worker").service_name == "my-service"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("PORT", "65536", "PORT must be a whole number from 1 to 65535, not '65536'"),
        ("PORT", "+80", "PORT must be a whole number from 1 to 65535, not '+80'"),
        ("PORT", "٣", "PORT must be a whole number from 1 to 65535, not '٣'"),
        ("SARTIQ_SEED", "none", "SARTIQ_SEED must be one of demo, contract, not 'none'"),
        ("MEDIA_URL", "s3://B", "MEDIA_URL must be s3://bucket or s3://bucket/folder, not 's3://B'"),
        ("CORS_ORIGINS", "*", "CORS_ORIGINS must be a list of https://host, separated by commas, not '*'"),
        (
            "TRUSTED_PROXIES",
            "::1, *",
            "TRUSTED_PROXIES must be a list of addresses or networks, separated by commas, not '*'",
        ),
    ],
)
def test_one_error_is_one_sentence(name: str, value: str, message: str) -> None:
    assert reject_settings({name: value}) == message


def test_all_errors_are_in_one_message() -> None:
    wrong = {
        "SARTIQ_ENV": "production",
        "PORT": "http",
        "LOG_LEVEL": "loud",
        "LIMIT_MAILS": "0",
        "SMTP_URL": "mail.example.com",
        "DATABASE_URL_FILE": "/none/at/all",
    }
    lines = reject_settings(wrong).splitlines()
    assert lines[0] == "6 settings are invalid:"
    assert {line.split()[1] for line in lines[1:]} == {
        "SECRET_KEY",
        "PORT",
        "LOG_LEVEL",
        "LIMIT_MAILS",
        "SMTP_URL",
        "DATABASE_URL_FILE",
    }


@pytest.mark.parametrize("name", SECRETS)
def test_no_error_shows_the_value_of_a_secret(name: str) -> None:
    secret = "hunter2-hunter2"
    environment = PRODUCTION | {name: secret}
    try:
        shown = repr(Settings.from_environment(environment))
    except InvalidSettings as error:
        shown = str(error)
    assert secret not in shown


def test_the_secret_settings_are_those_that_may_hold_a_password_or_a_key() -> None:
    assert set(SECRETS) == {
        "SECRET_KEY",
        "SECRET_KEY_PREVIOUS",
        "DATABASE_URL",
        "MIGRATION_DATABASE_URL",
        "CELERY_BROKER_URL",
        "COMPUTE_WEBHOOK_SECRET",
        "C2PA_CERTIFICATE",
        "C2PA_PRIVATE_KEY",
        "OPENAI_IMAGES_API_KEY",
        "SMTP_URL",
        "OTEL_EXPORTER_OTLP_ENDPOINT",
    }
    assert {item.name.upper() for item in fields(Settings) if not item.repr} == {
        name.removeprefix("OTEL_EXPORTER_") for name in SECRETS
    }


@pytest.mark.parametrize(
    "url", ["gpu:8000", "ftp://gpu", "http://user:pw@gpu:8000", "http://gpu:x", "http://"]
)
def test_the_server_of_generative_images_has_a_url_without_credentials(url: str) -> None:
    with pytest.raises(InvalidSettings, match="OPENAI_IMAGES_URL must be") as error:
        Settings.from_environment({"OPENAI_IMAGES_URL": url})
    assert "pw" not in str(error.value)
    settings = Settings.from_environment({"OPENAI_IMAGES_URL": "http://gpu-1.internal:8000/"})
    assert settings.openai_images_url == "http://gpu-1.internal:8000"


@pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
def test_a_secret_can_be_read_from_a_file(tmp_path: Path, ending: str) -> None:
    file = tmp_path / "secret"
    file.write_bytes(f"{OWN_SECRET} {ending}".encode())
    from_file = PRODUCTION | {"SECRET_KEY": "", "SECRET_KEY_FILE": str(file)}
    settings = Settings.from_environment(from_file)
    assert settings.secret_key == f"{OWN_SECRET} "


@pytest.mark.parametrize("name", SECRETS)
def test_every_secret_has_a_file_variable(tmp_path: Path, name: str) -> None:
    file = tmp_path / "secret"
    values = {"CELERY_BROKER_URL": "redis://:pw@host/0", "SMTP_URL": "smtp://u:pw@host"}
    values["DATABASE_URL"] = "postgresql://login:pw@host/sartiq"
    values["COMPUTE_WEBHOOK_SECRET"] = "whsec_c2VjcmV0IG9mIHNlcnZlcnMgdW5kZXIgdGVzdA=="
    value = values.get(name, OWN_SECRET)
    file.write_text(f"{value}\n")
    assert Settings.from_environment({f"{name}_FILE": str(file)}) == Settings.from_environment({name: value})


def test_a_secret_and_its_file_must_not_both_be_set(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(OWN_SECRET)
    both = {"SECRET_KEY": OWN_SECRET, "SECRET_KEY_FILE": str(tmp_path / "secret")}
    assert reject_settings(both) == "SECRET_KEY_FILE and SECRET_KEY must not both be set"


def test_a_secret_file_that_cannot_be_read_stops_the_start(tmp_path: Path) -> None:
    missing = {"SARTIQ_ENV": "test", "SECRET_KEY_FILE": str(tmp_path / "none")}
    assert reject_settings(missing).startswith("SECRET_KEY_FILE names a file that cannot be read: ")
    (tmp_path / "bytes").write_bytes(b"\xff" * 40)
    assert reject_settings({"SMTP_URL_FILE": str(tmp_path / "bytes")}).startswith(
        "SMTP_URL_FILE names a file"
    )


def test_only_secrets_are_read_from_files(tmp_path: Path) -> None:
    (tmp_path / "port").write_text("9000")
    assert Settings.from_environment({"PORT_FILE": str(tmp_path / "port")}).port == 8000


def test_an_env_file_is_read_in_development(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("# comment\nPORT=9000\nLOG_LEVEL='DEBUG'\nexport HOST=::1\nEMPTY\n")
    environment = {"LOG_LEVEL": "ERROR"}
    load_env_file(environment)
    assert environment == {"LOG_LEVEL": "ERROR", "PORT": "9000", "HOST": "::1"}


@pytest.mark.parametrize("name", ["SARTIQ_ENV=production", "SARTIQ_ENV=test", "SARTIQ_MODE=mock"])
def test_an_env_file_is_ignored_outside_development_and_by_a_mock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("PORT=9000\n")
    environment = dict([name.split("=")])
    load_env_file(environment)
    assert "PORT" not in environment


def test_an_env_file_cannot_choose_the_environment(tmp_path: Path) -> None:
    (tmp_path / "own.env").write_text("SARTIQ_ENV=production\n")
    with pytest.raises(InvalidSettings, match="must not set SARTIQ_ENV"):
        load_env_file({"ENV_FILE": str(tmp_path / "own.env")})


def test_an_env_file_that_is_not_utf_8_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"PORT=\xff\n")
    with pytest.raises(InvalidSettings, match="cannot be read"):
        load_env_file({"ENV_FILE": str(tmp_path / ".env")})


@pytest.mark.parametrize("name", ["test", "production"])
@pytest.mark.parametrize("secret", [None, "", DEVELOPMENT_SECRET, "short", OWN_SECRET[:-1]])
def test_a_missing_default_or_short_secret_is_rejected_outside_development(
    name: str, secret: str | None
) -> None:
    environment = {"SARTIQ_ENV": name} | ({} if secret is None else {"SECRET_KEY": secret})
    assert reject_settings(environment | {"MAIL": "off"}).startswith(
        "SECRET_KEY must be set to at least 32 bytes"
    )


def test_production_starts_with_its_own_secret() -> None:
    settings = Settings.from_environment(PRODUCTION)
    assert settings.secret_key == OWN_SECRET


def test_an_unknown_environment_is_rejected() -> None:
    assert reject_settings({"SARTIQ_ENV": "staging"}).startswith("SARTIQ_ENV must be one of")


@pytest.mark.parametrize(
    "invalid", [{"SARTIQ_ENV": "production", "SECRET_KEY": ""}, {"SMTP_URL": "mail.example.com:25"}]
)
def test_the_command_prints_why_it_does_not_start(
    invalid: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "data"))
    for name, value in invalid.items():
        monkeypatch.setenv(name, value)
    assert main(["--prepare-only"]) == 2
    assert "Not started" in capsys.readouterr().err
    assert not (tmp_path / "data").exists()


def test_the_command_reads_the_env_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text("PORT=none\nLOG_FORMAT=xml\n")
    # The command adds both variables to the environment; `monkeypatch` removes them after the test.
    for name in ("PORT", "LOG_FORMAT"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("ENV_FILE", str(tmp_path / ".env"))
    assert main(["--prepare-only"]) == 2
    printed = capsys.readouterr().err
    assert "PORT must be" in printed
    assert "LOG_FORMAT must be" in printed
