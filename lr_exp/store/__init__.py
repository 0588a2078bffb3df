"""The artifact store: stage results, addressed by what determines them and built only once."""

# ruff: noqa: F401  the names of the package
from lr_exp.store.artifacts import MANIFEST, Artifact, Recipe, Store
from lr_exp.store.files import digest, file_digest, open_atomically, write_atomically
