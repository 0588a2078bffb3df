"""Selection and references work window by window, shard by shard."""

import pyarrow.parquet as pq
import pytest

from lr_exp.data.questions import Question
from lr_exp.inference import generation
from lr_exp.models.prompt_forms import Prompt
from lr_exp.sampler import references, select
from lr_exp.sampler.supervision import read_answers, read_supervision
from lr_exp.store.shards import read_shards, shard_number, shard_path, shard_paths
from tests.support.methods import method
from tests.support.sampling import sample, selected, write_answers
from tests.support.tiny import tiny_tokenizer


@pytest.fixture(scope="module")
def sampled(tmp_path_factory, pair, shared, questions):
    """Folders of answers and of their step table, in six shards and windows of four questions."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generation, "WINDOW", 4)
        return sample(tmp_path_factory.mktemp("sampled"), pair, shared, questions, batch_size=2)


@pytest.mark.parametrize(
    "steps", ["kl_above_beta", "all", "first", "random", "entropy_top", "kl_top"]
)
def test_written_supervision_is_the_selected_one(tmp_path, monkeypatch, sampled, questions, steps):
    """Written window by window, in the order of the questions."""
    chosen = method(select=steps, alpha=0.2, beta=0.4, seed=3)
    listed = selected(*sampled, chosen)
    monkeypatch.setattr(select, "WINDOW", 4)
    facts = select.write(*sampled, chosen, tmp_path)
    assert facts == {**listed.profile, "digest": listed.supervision.digest()}
    assert facts["kept"] == listed.supervision.kept > 0
    assert list(read_supervision(tmp_path)) == list(listed.supervision.trajectories)
    assert pq.ParquetFile(tmp_path / "supervision.parquet").num_row_groups == 3
    wanted = {questions[i].id for i in (0, 7)}
    expected = [one for one in listed.supervision.trajectories if one.question_id in wanted]
    assert list(read_answers(tmp_path, [0, 7])) == expected


@pytest.mark.parametrize("is_scored", [True, False])
def test_selection_keeps_one_window_of_rows_in_memory(tmp_path, monkeypatch, sampled, is_scored):
    monkeypatch.setattr(select, "WINDOW", 4)
    parts, read = [], []
    write = select.write_supervision

    def record_parts(tables, folder):
        return write((parts.append((t.num_rows, len(read))) or t for t in tables), folder)

    monkeypatch.setattr(select, "write_supervision", record_parts)
    read_shard = select.read_shard
    monkeypatch.setattr(select, "read_shard", lambda path: (read.append(path), read_shard(path))[1])
    chosen = method(select="all", target="token")
    select.write(sampled[0], sampled[1] if is_scored else None, chosen, tmp_path)
    # Six shards: a window is written once a shard of the next one is read.
    assert parts == [(4, 3), (4, 5), (4, 6)]


def test_duplicate_answers_are_recognized(tmp_path):
    source, out = (tmp_path / name for name in ("in", "out"))
    source.mkdir()
    out.mkdir()
    write_answers(source, [(question, "2", True) for question in "aaabbba"])
    facts = references.keep_chosen(source, tiny_tokenizer(), lambda *_: True, out, samples=3)
    # Question 1 has answers 3 to 5; question 2 is separate despite its text.
    assert [row["index"] for row in read_shards(out)] == [0, 3, 6]
    assert facts == {"answers": 3, "drawn": 7, "right": 7, "solved": 3}


@pytest.mark.parametrize("count", [1, 2, 4, 5])
def test_solutions_are_written_shard_by_shard(tmp_path, monkeypatch, count):
    questions = [Question(f"q/{i}", "Q", solution="abcd"[:i]) for i in range(count)]
    options = {"prompt": Prompt(), "context": None}

    def write(size):
        monkeypatch.setattr(references, "_SHARD", size)
        folder = tmp_path / str(size)
        folder.mkdir()
        given = iter(questions), (question.solution for question in questions), tiny_tokenizer()
        return references.write_solutions(*given, folder, **options), list(read_shards(folder))

    facts, rows = write(2)
    assert write(1024) == (facts, rows)
    assert len(shard_paths(tmp_path / "2")) == (count + 1) // 2
    assert facts["answers"] == len(rows) == count


def test_shards_are_sorted_by_number(tmp_path):
    for number in (999_999, 1_000_000, 2):
        shard_path(tmp_path, number).touch()
    assert [shard_number(path) for path in shard_paths(tmp_path)] == [2, 999_999, 1_000_000]
