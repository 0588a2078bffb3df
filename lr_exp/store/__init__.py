"""The artifact store: stage results, addressed by what determines them and built only once.

`python -m lr_exp.store` lists, verifies and prunes it.
"""

from lr_exp.store.artifacts import MANIFEST as MANIFEST
from lr_exp.store.artifacts import Artifact as Artifact
from lr_exp.store.artifacts import Recipe as Recipe
from lr_exp.store.artifacts import Store as Store
from lr_exp.store.files import digest as digest
from lr_exp.store.files import file_digest as file_digest
from lr_exp.store.files import json_lines as json_lines
from lr_exp.store.files import open_atomically as open_atomically
from lr_exp.store.files import write_atomically as write_atomically
