"""obstore's store for a bucket: address, keys, patience. Used by `objects.region`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from obstore.store import S3Store


@dataclass(frozen=True)
class S3Config:
    """endpoint: with scheme, without the bucket; None is Amazon's. Keys None: the environment's (AWS_*, instance role).

    retry_s: how long a storage that does not answer, or answers 5xx, is tried before StorageUnavailable is raised.
    """

    bucket: str
    endpoint: str | None = None
    access_key: str | None = None
    secret_key: str | None = None
    region: str | None = None
    path_style: bool = True
    retry_s: float = 10.0


def open_store(config: S3Config) -> S3Store:
    """obstore's store for a bucket. Connects to nothing yet."""
    endpoint = config.endpoint or f"https://s3.{config.region or 'us-east-1'}.amazonaws.com"
    if not config.path_style:  # then obstore takes the endpoint as the bucket's own
        scheme, _, host = endpoint.partition("://")
        if not host.startswith(f"{config.bucket}."):
            endpoint = f"{scheme}://{config.bucket}.{host}"
    settings = {
        "endpoint": endpoint.rstrip("/"),
        "region": config.region or "us-east-1",
        "virtual_hosted_style_request": not config.path_style,
        "copy_if_not_exists": "multipart",
    }
    keys = None
    if config.access_key is not None and config.secret_key is not None:
        # By a provider, not by settings: a session token in the environment would be sent with these keys.
        keys = {"access_key_id": config.access_key, "secret_access_key": config.secret_key, "expires_at": None}
    return S3Store(
        config.bucket,
        config=settings,  # type: ignore[arg-type]
        client_options={"allow_http": endpoint.startswith("http://"), "timeout": timedelta(seconds=120)},
        retry_config={
            "max_retries": 1000,
            "retry_timeout": timedelta(seconds=config.retry_s),
            "backoff": {"max_backoff": timedelta(seconds=2)},
        },
        credential_provider=None if keys is None else lambda: keys,  # type: ignore[arg-type]
    )
