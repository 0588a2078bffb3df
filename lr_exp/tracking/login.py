"""Whether there is a W&B login. Knows where W&B keeps it, and neither reads nor sends the key."""

import netrc
import os
from pathlib import Path
from urllib.parse import urlsplit


def logged_in(base_url: str) -> bool:
    """Whether a key is at hand. Read where W&B keeps it: its own functions ask for one."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    try:
        path = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
        return netrc.netrc(path).authenticators(urlsplit(base_url).netloc) is not None
    except (OSError, ValueError, RuntimeError, netrc.NetrcParseError):
        return False  # no such file, not text, no home, not in its format
