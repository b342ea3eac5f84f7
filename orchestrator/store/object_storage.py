"""Opens S3 and compatible services with retries and timeouts: a passing fault is survived, any other raised in time.

Credentials come from where every AWS tool looks (environment, ~/.aws, the machine's role); the endpoint of another
service from AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL, or from `?endpoint_override=` in the address; the region from
`?region=`, AWS_REGION or AWS_DEFAULT_REGION. The bucket must exist.
"""

import os
import random
import time
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlsplit

import pyarrow as pa
from pyarrow import fs

from workers.store import StoreError, unavailable

T = TypeVar("T")

ATTEMPTS = 6
"""Attempts per request, with pauses that double up to 20 s: about 15 s in all, 31 s at most. AWS_MAX_ATTEMPTS
overrides it."""
CONNECT_SECONDS = 5.0
SILENT_SECONDS = 20.0
"""A connection that is silent for this long is dropped, and the request retried."""


def open_object_storage(uri: str) -> tuple[Any, str]:
    """(pyarrow file system, root within it). Raises StoreError for an address that cannot be used."""
    if uri.startswith("s3://"):
        return _open_s3(uri)
    try:
        filesystem, root = fs.FileSystem.from_uri(uri)
    except (pa.ArrowInvalid, OSError) as error:
        raise StoreError(f"store {uri}: {error}; use a local path or s3://bucket/prefix") from error
    return filesystem, root


def _open_s3(uri: str) -> tuple[Any, str]:
    parts = urlsplit(uri)
    if "@" in parts.netloc:
        raise StoreError(
            f"store s3://...@{parts.hostname}{parts.path}: the address holds credentials, and addresses are printed; "
            "put them into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    options = dict(parse_qsl(parts.query))
    endpoint = options.pop("endpoint_override", "") or _environment("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
    region = options.pop("region", "") or _environment("AWS_REGION", "AWS_DEFAULT_REGION")
    scheme = options.pop("scheme", "https")
    if options or not parts.hostname:
        unknown = f"it does not know {', '.join(sorted(options))}" if options else "it names no bucket"
        raise StoreError(f"store {uri}: {unknown}; use s3://bucket/prefix?region=...&endpoint_override=...")
    try:
        filesystem = fs.S3FileSystem(
            region=region or (None if endpoint else fs.resolve_s3_region(parts.netloc)),
            endpoint_override=endpoint or None,
            scheme=scheme,
            connect_timeout=CONNECT_SECONDS,
            request_timeout=SILENT_SECONDS,
            retry_strategy=fs.AwsStandardS3RetryStrategy(int(_environment("AWS_MAX_ATTEMPTS") or ATTEMPTS)),
            # With background writes, a failed part fails the whole upload. Without, closing the stream publishes the
            # parts that arrived: half a file.
            background_writes=True,
            # What fits into one request is sent in one: all or nothing, and nothing to clean up.
            allow_delayed_open=True,
            allow_bucket_creation=False,
        )
    except OSError as error:
        raise unavailable(uri, "the bucket's region cannot be determined", error) from error
    return filesystem, f"{parts.netloc}{parts.path}".rstrip("/")


def retry_read(request: Callable[[], T]) -> T:
    """The answer to a read request, retried where pyarrow does not.

    pyarrow reads the body of a refusal ("503 SlowDown") into the buffer of the requested bytes. If that is smaller, as
    for a small file, the body does not fit, and pyarrow reports a stream error instead of retrying.
    """
    for attempt in range(ATTEMPTS - 1):
        try:
            return request()
        except OSError as error:
            if "flush response stream" not in str(error):
                raise
        time.sleep(random.uniform(0.5, 1.0) * 0.5 * 2**attempt)
    return request()


def _environment(*names: str) -> str:
    return next((os.environ[name] for name in names if os.environ.get(name)), "")
