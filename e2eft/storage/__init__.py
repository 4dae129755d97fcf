"""One URI interface over a local disk and S3.

A *store* is a folder at a URI: a plain path, `file://` or `s3://bucket/prefix`. S3 credentials,
region, endpoint, certificates and addressing style are what boto3's own chain says (environment,
`~/.aws`, AWS_PROFILE, roles), never a configuration; everything, Parquet and checkpoints too, goes
through that one client. Every write is whole or absent: locally a temporary file that is renamed,
on S3 one request or one completed multipart upload. `create` is exclusive on both, which is what a
claim and a commit need.

A store that has answered once may be away for E2EFT_STORE_PATIENCE_S seconds (see `patience`); one
that never answered is given up within ten.
"""

from e2eft.errors import (
    ConflictError,
    DamagedError,
    DeniedError,
    MissingError,
    StorageError,
    UnreachableError,
)
from e2eft.storage.base import (
    Store,
    Stored,
    check_name,
    check_relative,
    inside,
    join,
    resolved,
)
from e2eft.storage.folders import download_folder, upload_folder
from e2eft.storage.local import LocalStore
from e2eft.storage.opening import absolute, on_this_disk, open_store
from e2eft.storage.patience import be_patient
from e2eft.storage.s3 import S3Store

__all__ = [
    "ConflictError",
    "DamagedError",
    "DeniedError",
    "LocalStore",
    "MissingError",
    "S3Store",
    "StorageError",
    "Store",
    "Stored",
    "UnreachableError",
    "absolute",
    "be_patient",
    "check_name",
    "check_relative",
    "download_folder",
    "inside",
    "join",
    "on_this_disk",
    "open_store",
    "resolved",
    "upload_folder",
]
