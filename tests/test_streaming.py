"""Streamed questions: same results as a list, bounded memory, resuming after a stop."""

import gc
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lr_exp.api import compose, read_questions
from lr_exp.config.composition import conf_dir
from lr_exp.config.settings import DataSettings
from lr_exp.data import stored_questions, streaming
from lr_exp.data.lazy import Blocks, Repeated
from lr_exp.data.questions import (
    Question,
    fingerprint,
    load_questions,
    prompts_fingerprint,
    stream_questions,
)
from lr_exp.data.stored_questions import StoredQuestions, write_questions
from lr_exp.data.streaming import streamed_questions
from lr_exp.errors import UserError
from lr_exp.pipeline.identity import cell_of
from lr_exp.pipeline.inputs import Inputs
from lr_exp.pipeline.outcome import choices
from lr_exp.sampler import references, rollout, select
from lr_exp.sampler.supervision import (
    StoredSupervision,
    SupervisedTrajectory,
    Supervision,
    SupervisionWriter,
)
from lr_exp.store import Store
from lr_exp.store.shards import read_shards, shard_number, shard_path, shard_paths
from tests.support.hub import mirror
from tests.support.methods import method
from tests.support.sampling import sample, write_answers
from tests.support.tiny import tiny_tokenizer


@pytest.fixture(autouse=True)
def _small(tmp_path, monkeypatch):
    """Small shards; hub data sets are converted in the test's folder."""
    import datasets

    monkeypatch.setattr(stored_questions, "SHARD_SIZE", 8)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def make_questions(count: int) -> list[Question]:
    return [
        Question(
            f"q/{i}", f"Text {i}?", str(i) if i % 2 else None, None, ("a", "b") if i % 3 else ()
        )
        for i in range(count)
    ]


def stored(folder: Path, source) -> StoredQuestions:
    folder.mkdir(exist_ok=True)
    return StoredQuestions(folder, write_questions(source, folder))


def alive() -> int:
    """Number of questions in memory."""
    gc.collect()
    return sum(type(item) is Question for item in gc.get_objects())


# Sequences


@pytest.mark.parametrize("count", [1, 7, 8, 9, 16, 21])
def test_stored_questions_equal_the_list(tmp_path, count):
    listed = make_questions(count)
    found = stored(tmp_path, iter(listed))
    assert len(found) == count
    assert list(found) == listed
    assert [found[i] for i in range(-count, count)] == [listed[i] for i in range(-count, count)]
    assert found[2:17:3] == listed[2:17:3]
    assert fingerprint(found) == fingerprint(listed)
    assert prompts_fingerprint(found) == prompts_fingerprint(listed)
    # They differ if there is a reference answer, which prompts do not show.
    assert (fingerprint(found) != prompts_fingerprint(found)) == (count > 1)
    for outside in (count, -count - 1):
        with pytest.raises(IndexError):
            found[outside]


def test_at_most_two_shards_are_in_memory(tmp_path):
    found = stored(tmp_path, iter(make_questions(80)))
    gc.collect()
    before = alive()
    highest = 0
    for index in (*range(80), *range(79, -1, -1)):
        _ = found[index]
        if index % 5 == 0:
            highest = max(highest, alive() - before)
    assert highest == 2 * 8


def test_writing_keeps_at_most_two_shards_in_memory(tmp_path):
    before, highest = alive(), 0

    def source():
        nonlocal highest
        for i in range(80):
            highest = max(highest, alive() - before)
            yield Question(str(i), "Q")

    write_questions(source(), tmp_path)
    # The shard being written and the one being collected.
    assert 8 <= highest <= 2 * 8
    assert len(shard_paths(tmp_path)) == 10


def test_a_block_is_made_once_while_reads_stay_close():
    made = []

    def block(number):
        made.append(number)
        return range(10 * number, 10 * number + 10)

    found = Blocks(25, 10, block)
    assert list(found) == list(range(25))
    assert made == [0, 1, 2]
    assert [found[i] for i in (19, 21, 18, 20, -1)] == [19, 21, 18, 20, 24]
    assert made == [0, 1, 2]
    assert found[0] == 0
    assert made == [0, 1, 2, 0]


def test_repeated_items_equal_the_list():
    listed = [item for item in "abc" for _ in range(4)]
    found = Repeated("abc", 4)
    assert (list(found), found[-1], found[3:5], len(found)) == (listed, "c", ["a", "b"], 12)
    with pytest.raises(IndexError):
        found[12]


# Resuming after a stop


class Stopped(Exception):  # noqa: N818 - simulates a kill
    pass


def test_reading_resumes_after_a_stop(tmp_path):
    listed = make_questions(30)

    def until(count):
        yield from listed[:count]
        raise Stopped

    with pytest.raises(Stopped):
        write_questions(until(19), tmp_path)
    assert [path.name for path in shard_paths(tmp_path)] == [
        "shard-000000.parquet",
        "shard-000001.parquet",
    ]
    written = [path.stat().st_mtime_ns for path in shard_paths(tmp_path)]
    found = stored(tmp_path, iter(listed))
    assert [path.stat().st_mtime_ns for path in shard_paths(tmp_path)[:2]] == written
    assert list(found) == listed
    assert fingerprint(found) == fingerprint(listed)
    assert prompts_fingerprint(found) == prompts_fingerprint(listed)


@pytest.mark.parametrize("number", [0, 1, 3])
@pytest.mark.parametrize("damage", ["cut", "zeros", "gone", "short"])
def test_a_damaged_shard_and_those_after_it_are_written_again(tmp_path, number, damage):
    listed = make_questions(30)
    stored(tmp_path, iter(listed))
    path = shard_path(tmp_path, number)
    content = path.read_bytes()
    if damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "zeros":
        path.write_bytes(bytes(len(content)))
    elif damage == "gone":
        path.unlink()
    else:
        pq.write_table(pq.read_table(path).slice(0, 3), path)
    found = stored(tmp_path, iter(listed))
    assert list(found) == listed
    assert fingerprint(found) == fingerprint(listed)


def test_a_stopped_stage_leaves_its_shards_and_no_artifact(tmp_path, monkeypatch):
    source = micro(30)
    listed = load_questions(source, hub_root=None)

    def broken(*args, **kwargs):
        for number, question in enumerate(stream_questions(*args, **kwargs)):
            if number == 20:
                raise Stopped
            yield question

    store = Store(tmp_path / "store")
    monkeypatch.setattr(streaming, "stream_questions", broken)
    with pytest.raises(Stopped):
        streamed_questions(source, hub_root=None, store=store)
    assert [path.name for path in sorted(store.root.rglob("*.parquet"))] == [
        "shard-000000.parquet",
        "shard-000001.parquet",
    ]
    assert list(store.root.rglob("manifest.json")) == []
    monkeypatch.setattr(streaming, "stream_questions", stream_questions)
    assert list(streamed_questions(source, hub_root=None, store=store)) == listed

    def unread(*args, **kwargs):
        raise AssertionError("the source was read again")

    monkeypatch.setattr(streaming, "stream_questions", unread)
    assert list(streamed_questions(source, hub_root=None, store=store)) == listed


# Sources


def micro(count, **settings):
    return DataSettings(
        name="micro", format="micro", configs=["micro_add"], split="train", count=count, **settings
    )


def write_parquet(path: Path, **columns) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return path


def parquet(path: Path, **settings) -> DataSettings:
    return DataSettings(name="parquet", format="parquet", path=str(path), **settings)


def sources(folder: Path):
    """Settings and hub_root of a source of each kind."""
    rows = [
        {"body": "B.", "question": f"Q{i}", "answer": "1;2" if i % 4 == 1 else "3"}
        for i in range(20)
    ]
    mirror(folder / "hub" / "eleuther" / "asdiv", rows, "validation")
    lines = folder / "mine.jsonl"
    lines.write_text(
        "".join(json.dumps({"question": f"Q{i}\u2028", "answer": i}) + "\n\n" for i in range(20))
    )
    table = write_parquet(folder / "mine.parquet", question=[f"Q{i}" for i in range(20)])
    asdiv = {"name": "asdiv", "format": "asdiv", "path": "eleuther/asdiv", "split": "validation"}
    return {
        "hub": (DataSettings(**asdiv), str(folder / "hub")),
        "jsonl": (DataSettings(name="jsonl", format="jsonl", path=str(lines)), None),
        "parquet": (parquet(table), None),
        "micro": (micro(20), None),
    }


@pytest.mark.parametrize("kind", ["hub", "jsonl", "parquet", "micro"])
@pytest.mark.parametrize("max_questions", [None, 5, 12])
def test_a_streamed_source_equals_the_list(tmp_path, kind, max_questions):
    source, hub_root = sources(tmp_path)[kind]
    listed = load_questions(source, hub_root=hub_root)[:max_questions]
    source.max_questions = max_questions
    found = streamed_questions(source, hub_root=hub_root, store=Store(tmp_path / "store"))
    assert list(found) == listed
    assert len(listed) == {"hub": max_questions or 15}.get(kind, max_questions or 20)
    assert fingerprint(found) == fingerprint(listed)
    assert prompts_fingerprint(found) == prompts_fingerprint(listed)


def artifacts(store: Store) -> list[Path]:
    return sorted(path.parent for path in store.root.glob("questions/*/manifest.json"))


def test_the_address_depends_on_content_not_on_location(tmp_path):
    store = Store(tmp_path / "store")
    one, other = tmp_path / "a" / "x.parquet", tmp_path / "b" / "x.parquet"
    write_parquet(one, question=["1", "2"])
    write_parquet(other, question=["1", "2"])
    for path in (one, other):
        streamed_questions(parquet(path), hub_root=None, store=store)
    assert len(artifacts(store)) == 1
    streamed_questions(parquet(one, max_questions=1), hub_root=None, store=store)
    assert len(artifacts(store)) == 2
    write_parquet(other, question=["1", "3"])
    assert [q.text for q in streamed_questions(parquet(other), hub_root=None, store=store)] == [
        "1",
        "3",
    ]
    assert len(artifacts(store)) == 3
    for count, seed in ((3, 0), (4, 0), (3, 1)):
        source = micro(count, seed=seed)
        streamed_questions(source, hub_root=None, store=store)
    assert len(artifacts(store)) == 6


def test_a_hub_data_set_is_addressed_by_its_commit(tmp_path, monkeypatch):
    import datasets
    import huggingface_hub

    commit, calls = "a" * 40, []
    info = type("Info", (), {"sha": commit})

    class Api:
        def dataset_info(self, path, revision=None):
            calls.append((path, revision))
            return info

    def load_dataset(path, config, *, split, revision, streaming):
        calls.append((path, config, split, revision, streaming))
        return iter([{"question": "Q", "answer": "#### 1"}])

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    store = Store(tmp_path / "store")
    source = DataSettings(
        name="g", format="gsm8k", path="openai/gsm8k", configs=["main"], split="train"
    )
    for _ in range(2):
        (question,) = streamed_questions(source, hub_root=None, store=store)
        assert question == Question("g/train/0", "Q", "1", "")
    read = ("openai/gsm8k", "main", "train", commit, True)
    assert calls == [("openai/gsm8k", None), read, ("openai/gsm8k", None)]
    # With a commit whose questions are in the store, the hub is not needed.
    source.revision = commit
    assert len(streamed_questions(source, hub_root=None, store=store)) == 1
    assert len(calls) == 3
    info.sha = "b" * 40
    source.revision = None
    streamed_questions(source, hub_root=None, store=store)
    assert len(artifacts(store)) == 2


def test_an_unreachable_hub_is_one_line(tmp_path, monkeypatch):
    import huggingface_hub

    class Api:
        def dataset_info(self, path, revision=None):
            raise ConnectionError("no route\nto the hub")

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    source = DataSettings(name="g", format="gsm8k", path="openai/gsm8k", split="train")
    with pytest.raises(UserError, match=r"openai/gsm8k: .*no route to the hub.*hub_root") as caught:
        streamed_questions(source, hub_root=None, store=Store(tmp_path / "store"))
    assert "\n" not in str(caught.value)


# Parquet


def test_files_of_a_folder_are_read_in_order_of_their_paths(tmp_path):
    write_parquet(tmp_path / "b.parquet", question=["3"], answer=["c"])
    write_parquet(tmp_path / "a.parquet", question=["1", " 2 "], solution=["s", None], x=[1, 2])
    write_parquet(tmp_path / ".hidden.parquet", question=["no"])
    write_parquet(tmp_path / "below" / "a.parquet", question=["4"])
    write_parquet(tmp_path / ".cache" / "d.parquet", question=["no"])
    (tmp_path / "notes.txt").write_text("no")
    assert load_questions(parquet(tmp_path), hub_root=None) == [
        Question("parquet/1", "1", None, "s"),
        Question("parquet/2", "2", None, None),
        Question("parquet/3", "3", "c", None),
        Question("parquet/4", "4", None, None),
    ]


@pytest.mark.parametrize(
    ("answers", "read"),
    [
        (pa.array([5, None]), ["5", None]),
        (pa.array([12.5, 4.0]), ["12.5", "4.0"]),
        (pa.array([0.1, 12.3], pa.float32()), ["0.1", "12.3"]),
        (pa.array(["1/2", None]), ["1/2", None]),
        (pa.array(["x", "y"]).dictionary_encode(), ["x", "y"]),
    ],
)
def test_answers_may_be_strings_or_numbers(tmp_path, answers, read):
    path = write_parquet(tmp_path / "x.parquet", question=["1", "2"], answer=answers)
    assert [q.answer for q in load_questions(parquet(path), hub_root=None)] == read


BAD_COLUMNS = [
    ({"prompt": ["Q"], "id": [1]}, "no column `question`; the columns are: id, prompt"),
    ({"question": ["Q", None]}, "row 2: `question` must be a non-empty string"),
    ({"question": ["Q", " "]}, "row 2: `question` must be a non-empty string"),
    ({"question": [5]}, "row 1: `question` must be a non-empty string"),
    ({"question": ["Q"], "answer": [True]}, "row 1: `answer` must be a string or a number"),
    ({"question": ["Q"], "answer": [["1"]]}, "row 1: `answer` must be a string or a number"),
    ({"question": ["Q"], "answer": [float("nan")]}, "row 1: nan is not a valid number"),
    ({"question": ["Q"], "solution": [1]}, "row 1: `solution` must be a string"),
    ({"question": pa.array([], pa.string())}, "no questions in it"),
]


@pytest.mark.parametrize(("columns", "message"), BAD_COLUMNS)
def test_errors_in_rows_are_one_line_that_names_the_row(tmp_path, columns, message):
    path = write_parquet(tmp_path / "mine.parquet", **columns)
    with pytest.raises(UserError) as caught:
        streamed_questions(parquet(path), hub_root=None, store=Store(tmp_path / "store"))
    assert message in str(caught.value)
    assert "mine.parquet" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unreadable_files_are_one_line_errors(tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    damaged = tmp_path / "damaged.parquet"
    damaged.write_bytes(b"PAR1 no table PAR1")
    cut = write_parquet(tmp_path / "cut.parquet", question=["Q" * 50] * 1000)
    cut.write_bytes(cut.read_bytes()[:-20])
    for path, message in (
        (tmp_path / "none", "none: no such file or folder. Set data.path"),
        (empty, "no file in this folder ends in .parquet"),
        (damaged, "damaged.parquet: cannot be read as Parquet"),
        (cut, "cut.parquet: cannot be read as Parquet"),
    ):
        with pytest.raises(UserError) as caught:
            streamed_questions(parquet(path), hub_root=None, store=Store(tmp_path / "store"))
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)


def test_the_program_checks_the_path_before_loading_models(tmp_path, program):
    words = ("experiment=demo", "data=parquet", "stages=[sample]")
    assert "data.path is required" in program(*words).error
    outcome = program(*words, f"data.path={tmp_path / 'none'}")
    assert "none: no such file or folder. Set data.path" in outcome.error
    assert not outcome.has_summary


def test_damaged_pages_are_one_line_errors(tmp_path):
    path = write_parquet(tmp_path / "x.parquet", question=[f"Question {i}?" for i in range(5000)])
    content = bytearray(path.read_bytes())
    content[40:4000] = bytes(3960)
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"x\.parquet") as caught:
        load_questions(parquet(path), hub_root=None)
    assert "\n" not in str(caught.value)


def test_lr_samples_cannot_be_streamed(tmp_path, program):
    outcome = program("data=lr_samples", "data.path=x.jsonl", "data.streaming=true")
    assert "data.streaming" in outcome.error
    assert "lr_samples" in outcome.error


# Prompts, selection, supervision


def test_prompts_of_stored_questions_are_rendered_in_windows(
    tmp_path, monkeypatch, pair, questions
):
    monkeypatch.setattr(rollout, "WINDOW", 4)
    calls = []
    render_prompts = rollout.render_prompts

    def counted(model, ids, texts, system):
        calls.append(list(ids))
        return render_prompts(model, ids, texts, system)

    monkeypatch.setattr(rollout, "render_prompts", counted)
    listed = rollout._prompts(questions, pair[0], "S")
    assert len(calls) == 1
    found = rollout._prompts(stored(tmp_path, questions), pair[0], "S")
    assert len(calls) == 1  # nothing is rendered before it is needed
    assert (len(found), found[5]) == (12, listed[5])
    assert calls[1:] == [[q.id for q in questions[4:8]]]
    assert list(found) == listed
    assert max(map(len, calls[1:])) == 4


def test_a_prompt_that_is_too_long_stops_the_rollout(tmp_path, monkeypatch, pair, questions):
    """A list stops before the first answer, a stream at the prompt's window."""
    from lr_exp.inference import generation

    monkeypatch.setattr(rollout, "WINDOW", 4)
    monkeypatch.setattr(generation, "WINDOW", 4)
    long = Question(id="mine/7", text="Tom has 4 pens . " * 5000)
    options = {"system_prompt": "S", "max_new_tokens": 2, "batch_size": 4}
    folder = tmp_path / "out"
    folder.mkdir()
    with pytest.raises(UserError, match="mine/7"):
        rollout.roll_out([*questions, long], pair[0], folder, **options)
    assert shard_paths(folder) == []
    with pytest.raises(UserError, match="mine/7"):
        rollout.roll_out(stored(tmp_path / "q", [*questions, long]), pair[0], folder, **options)
    assert len(shard_paths(folder)) == len(questions) // 4


@pytest.mark.parametrize(
    "steps", ["kl_above_beta", "all", "first", "random", "entropy_top", "kl_top"]
)
def test_written_supervision_equals_the_selected_one(
    tmp_path, monkeypatch, pair, shared, questions, steps
):
    """Written window by window, in the order of the questions."""
    from lr_exp.inference import generation

    monkeypatch.setattr(generation, "WINDOW", 6)
    folders = sample(tmp_path, pair, shared, questions, batch_size=2)
    chosen = method(select=steps, alpha=0.2, beta=0.4, seed=3)
    listed = select.select(*folders, chosen)
    monkeypatch.setattr(select, "WINDOW", 6)
    facts = select.write(*folders, chosen, tmp_path)
    assert facts == {**listed.counts.profile(), "digest": listed.supervision.digest()}
    assert facts["kept"] == listed.supervision.kept > 0
    found = StoredSupervision(tmp_path)
    assert list(found.trajectories) == list(listed.supervision.trajectories)
    assert Supervision.load(tmp_path).digest() == facts["digest"]
    assert pq.ParquetFile(tmp_path / "supervision.parquet").num_row_groups == 2
    wanted = {questions[i].id for i in (0, 7)}
    assert [item.question_id for item in found.for_questions(wanted)] == [
        item.question_id for item in listed.supervision.for_questions(wanted)
    ]


def test_selection_keeps_one_window_of_rows_in_memory(
    tmp_path, monkeypatch, pair, shared, questions
):
    from lr_exp.inference import generation

    monkeypatch.setattr(generation, "WINDOW", 4)
    monkeypatch.setattr(select, "WINDOW", 4)
    folders = sample(tmp_path, pair, shared, questions, batch_size=2)
    parts = []
    add = SupervisionWriter.add
    monkeypatch.setattr(
        SupervisionWriter,
        "add",
        lambda self, part: (parts.append((part.num_rows, len(read))), add(self, part))[1],
    )
    read = []
    read_shard = select.read_shard
    monkeypatch.setattr(select, "read_shard", lambda path: (read.append(path), read_shard(path))[1])
    chosen = method(select="all", target="token")
    select.write(*folders, chosen, tmp_path)
    # Six shards: a window is written once a shard of the next one is read.
    assert parts == [(4, 3), (4, 5), (4, 6)]
    read.clear()
    parts.clear()
    select.write(folders[0], None, chosen, tmp_path)
    assert parts == [(4, 3), (4, 5), (4, 6)]


def test_duplicate_answers_are_recognized_across_windows(tmp_path, monkeypatch):
    """Earlier windows are dropped, except for a question that continues in the next one."""
    monkeypatch.setattr(references, "WINDOW", 4)
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    one, other = ("a", "2", True), ("b", "2", True)
    write_answers(tmp_path / "in", [one, one, one, other, other, other, one])
    facts = references.keep_verified(
        tmp_path / "in", tiny_tokenizer(), lambda *_: True, tmp_path / "out", samples=3
    )
    # Question 1 has answers 3 to 5, in two windows; question 2 is separate despite its text.
    assert [row["index"] for row in read_shards(tmp_path / "out")] == [0, 3, 6]
    assert facts == {"answers": 3, "drawn": 7, "right": 7, "solved": 3}


@pytest.mark.parametrize("count", [1, 2, 4, 5])
def test_solutions_are_written_shard_by_shard(tmp_path, monkeypatch, count):
    questions = [Question(f"q/{i}", "Q", solution="abcd"[:i]) for i in range(count)]
    options = {"system_prompt": "", "context": None}
    facts, rows = [], []
    for size in (2, 1024):
        monkeypatch.setattr(references, "_SHARD", size)
        folder = tmp_path / str(size)
        folder.mkdir()
        texts = (question.solution for question in questions)
        facts.append(
            references.write_solutions(iter(questions), texts, tiny_tokenizer(), folder, **options)
        )
        rows.append(list(read_shards(folder)))
    assert len(shard_paths(tmp_path / "2")) == (count + 1) // 2
    assert facts[0] == facts[1]
    assert facts[0]["answers"] == len(rows[0]) == count
    assert rows[0] == rows[1]


def test_shards_out_of_order_are_rejected(tmp_path):
    kept = select._InOrder()
    one = select.SupervisedTrajectory("a", "q", [1, 2], 1, [0], [0.5], [[4]], [[1.0]])
    assert list(kept.add([(3000, one)])) == []
    assert [part.num_rows for part in kept.add([(5000, one)])] == [1]
    with pytest.raises(ValueError, match="3000"):
        list(kept.add([(3000, one)]))


def test_nothing_kept_is_an_empty_file(tmp_path):
    with SupervisionWriter(tmp_path) as writer:
        pass
    assert writer.digest() == Supervision([]).digest()
    assert list(StoredSupervision(tmp_path).trajectories) == []
    assert Supervision.load(tmp_path).kept == 0


# Whole runs


SMALL = (
    "experiment=demo",
    "data.count=30",
    "data.max_questions=null",
    "stages=[sample]",
    "sampler.max_new_tokens=24",
    "sampler.batch_size=8",
)


def summary(outcome) -> dict:
    assert outcome.status == 0, outcome.err
    return json.loads((outcome.folder / "summary.json").read_text("utf-8"))


def names(store: Path, stage: str) -> list[str]:
    return sorted(path.parent.name for path in store.glob(f"{stage}/*/manifest.json"))


@pytest.mark.parametrize("method", ["lightreasoner", "gt_sft", "rejection_sft"])
def test_a_streamed_run_equals_the_listed_run(tmp_path, program, method):
    words = (*SMALL, f"method={method}", "method.max_new_tokens=24")
    listed = summary(program(*words))
    store = tmp_path / "store"
    found = {stage.name: names(store, stage.name) for stage in store.iterdir() if stage.is_dir()}
    streamed = summary(program(*words, "data.streaming=true"))
    # Everything was found in the store of the list's run, so every address is the same.
    assert streamed["sample"].pop("reused")
    assert not listed["sample"].pop("reused")
    assert streamed["sample"] == listed["sample"]
    assert {name: names(store, name) for name in found} == found
    assert len(names(store, "questions")) == 1
    assert streamed["provenance"] == listed["provenance"]
    # Built from scratch, the results are the same.
    again = summary(program(*words, "data.streaming=true", f"store={tmp_path / 'other'}"))
    assert not again["sample"]["reused"]
    assert again["sample"]["supervision"] == listed["sample"]["supervision"]
    assert again["sample"]["questions"] == 30


def test_streaming_does_not_change_the_cell(tmp_path):
    """So a tracker resumes a stopped run that now reads the same questions as a list."""
    words = ("experiment=demo", f"store={tmp_path / 'store'}", "data.count=30")
    words = (*words, "data.max_questions=null", "stages=[sample]", "device=cpu")
    ids = set()
    for word in ("data.streaming=false", "data.streaming=true"):
        settings = compose(*words, word)
        ids.add(cell_of(settings, Inputs(settings, [conf_dir()]), choices(settings)).id)
    assert len(ids) == 1
    assert isinstance(read_questions(settings), StoredQuestions)
    fewer = compose(*words, "data.streaming=true", "data.max_questions=29")
    assert cell_of(fewer, Inputs(fewer, [conf_dir()]), choices(fewer)).id not in ids


def test_a_stream_takes_the_first_questions(program):
    streamed = summary(program(*SMALL, "data.max_questions=5", "data.streaming=true", "seed=3"))
    assert streamed["sample"]["questions"] == 5
    other = summary(program(*SMALL, "data.max_questions=5", "data.streaming=true", "seed=4"))
    assert other["sample"]["supervision"] == streamed["sample"]["supervision"]
    assert other["provenance"]["data"] == other["provenance"]["questions"]


def test_all_records_of_a_stream_are_exported(tmp_path, program):
    file = tmp_path / "records.jsonl"
    result = summary(program(*SMALL, "data.streaming=true", f"sampler.export={file}"))
    assert len(file.read_text("utf-8").splitlines()) == result["sample"]["kept"] > 0


def test_shards_are_sorted_by_number(tmp_path):
    for number in (999_999, 1_000_000, 2):
        shard_path(tmp_path, number).touch()
    assert [shard_number(path) for path in shard_paths(tmp_path)] == [2, 999_999, 1_000_000]


def test_supervision_may_have_lists_with_64_bit_offsets():
    """Needed beyond 2**31 ids, too many for a test."""
    from lr_exp.sampler import supervision

    narrow = Supervision([trajectory()])
    fields = [field.with_type(supervision._large(field.type)) for field in supervision.SCHEMA]
    wide = Supervision(narrow._table.cast(pa.schema(fields)))
    assert wide.kept == narrow.kept == 1
    assert wide.digest() == narrow.digest()
    assert wide.trajectories[0] == narrow.trajectories[0]
    assert [one.question_id for one in wide.for_questions(["q"])] == ["q"]


def trajectory() -> SupervisedTrajectory:
    return SupervisedTrajectory("q", "1 + 1", [1, 2, 3], 2, [1], [0.5], [[7, 8]], [[0.25, 0.75]])
