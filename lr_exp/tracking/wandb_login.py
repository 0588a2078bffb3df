"""Detects a W&B login without reading or sending the key."""

import netrc
import os
from pathlib import Path
from urllib.parse import urlsplit


def logged_in(base_url: str) -> bool:
    """Whether there is a W&B key for this server.

    W&B's own functions prompt for a missing key, so this checks the places where W&B stores it.
    """
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    try:
        path = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
        return netrc.netrc(path).authenticators(urlsplit(base_url).netloc) is not None
    except (OSError, ValueError, RuntimeError, netrc.NetrcParseError):
        return False  # no such file, not text, no home directory, not in netrc format
