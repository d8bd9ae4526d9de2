"""Settings from environment variables."""

from pydantic_settings import BaseSettings


class Settings(BaseSettings):
    secret_key: str
    database_url: str
    public_url: str


settings = Settings()
