"""The artifact store: what a stage has made is found again, and never made twice.

Knows files, hashes and locks; knows nothing of models or methods. `python -m lr_exp.store` shows
what is in it.
"""

from lr_exp.store.artifacts import MANIFEST, Artifact, Recipe, Store
from lr_exp.store.files import digest, file_digest, open_atomically, write_atomically

__all__ = [
    "MANIFEST",
    "Artifact",
    "Recipe",
    "Store",
    "digest",
    "file_digest",
    "open_atomically",
    "write_atomically",
]
