"""Where results come from, and `--from-run`, which repeats a run."""

import json
import subprocess
from pathlib import Path

import pytest

from lr_exp.errors import UserError
from lr_exp.pipeline.origin import _revision, arguments_of, origin
from tests.support.files import summary_of

RECORDED = ["experiment=demo", "method=no_contrast", "seed=3"]


def write_summary(folder: Path, **settings: object) -> Path:
    folder.mkdir(parents=True)
    head = {"method": None, "expert": "x", "amateur": None, "alpha": None, "beta": None, "seed": 0}
    (folder / "summary.json").write_text(json.dumps({**head, "settings": settings}))
    return folder


@pytest.mark.integration
def test_the_commit_is_of_the_repository_that_tracks_the_package(tmp_path):
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")

    def git(*words):
        author = ("-c", "user.name=A", "-c", "user.email=a@b")
        done = subprocess.run(  # noqa: S603
            ["git", "-C", tmp_path, *author, *words],  # noqa: S607
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout.strip()

    assert _revision.__wrapped__(package) == (None, None)  # no repository
    git("init")
    git("commit", "--allow-empty", "-m", "another project")
    assert _revision.__wrapped__(package) == (None, None)  # installed inside another project
    git("add", ".")
    git("commit", "-m", "the package")
    assert _revision.__wrapped__(package) == (git("rev-parse", "HEAD"), False)
    (package / "__init__.py").write_text("changed = True")
    assert _revision.__wrapped__(package) == (git("rev-parse", "HEAD"), True)


def test_a_run_records_its_origin_and_is_repeated_from_it(program, tmp_path):
    words = ("experiment=micro_tables", "stages=[sample]", "data.count=6")
    first = summary_of(program(*words, "seed=3"))
    assert first["provenance"].keys() >= origin().keys()
    assert first["provenance"]["started"].endswith("+00:00")
    saved = tmp_path / "saved.json"
    saved.write_text(json.dumps(first))
    again = summary_of(program("seed=4", flags=("--from-run", str(saved))))
    assert again["settings"]["overrides"][:3] == list(words)
    assert (first["seed"], again["seed"]) == (3, 4)
    assert (first["sample"]["questions"], again["sample"]["questions"]) == (6, 6)


def test_given_arguments_replace_recorded_ones(tmp_path):
    run = write_summary(tmp_path / "run", overrides=RECORDED, config_dirs=["/own options"])
    found = arguments_of(run, ["method=lightreasoner", "beta=0.1"])
    searched = "hydra.searchpath=['file:///own options']"
    assert found == [*("experiment=demo", "seed=3", searched, "method=lightreasoner", "beta=0.1")]


def test_a_cell_of_a_sweep_is_repeated_as_a_sweep(tmp_path):
    run = write_summary(tmp_path / "run", overrides=["+sweep=controls", "seed=1"])
    assert arguments_of(run, []) == ["-m", "+sweep=controls", "seed=1"]


def test_a_run_without_a_recorded_command_is_an_error(program, tmp_path):
    for folder, message in (
        (write_summary(tmp_path / "old"), "records no command"),
        (tmp_path / "missing", "there is no folder .*missing: give the folder of one finished run"),
        (tmp_path, "has no summary.json: give the folder of one finished run"),
    ):
        with pytest.raises(UserError, match=message):
            arguments_of(folder, [])
    assert "needs the folder of a run" in program("--from-run").error
