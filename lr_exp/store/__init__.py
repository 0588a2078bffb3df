"""The artifact store: stage results, addressed by what determines them and built only once.

`python -m lr_exp.store` lists, verifies and prunes it.
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
