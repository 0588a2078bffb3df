"""Streamed questions: same results as a list, bounded memory, nothing read twice."""

import weakref
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lr_exp.api import compose, read_questions
from lr_exp.config.settings import DataSettings
from lr_exp.data import questions as question_files
from lr_exp.data import streaming
from lr_exp.data.lazy import in_blocks
from lr_exp.data.questions import (
    Question,
    StoredQuestions,
    fingerprint,
    load_questions,
    prompts_fingerprint,
    write_questions,
)
from lr_exp.data.streaming import streamed_questions
from lr_exp.errors import UserError
from lr_exp.inference import generation
from lr_exp.models.prompt_forms import Prompt
from lr_exp.sampler import references, rollout, select
from lr_exp.sampler.supervision import (
    read_answers,
    read_supervision,
)
from lr_exp.store import Store
from lr_exp.store.shards import read_shards, shard_number, shard_path, shard_paths
from tests.support.files import one_line_error, summary_of
from tests.support.hub import mirror
from tests.support.methods import method
from tests.support.sampling import sample, selected, write_answers
from tests.support.tiny import tiny_tokenizer


@pytest.fixture(autouse=True)
def _small_batches(tmp_path, monkeypatch):
    """Small batches; hub data sets are converted in the test's folder."""
    import datasets

    monkeypatch.setattr(question_files, "_BATCH_ROWS", 8)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def make_questions(count: int) -> list[Question]:
    return [
        Question(f"q/{i}", f"{i}?", str(i) if i % 2 else None, None, ("a", "b") if i % 3 else ())
        for i in range(count)
    ]


def stored(folder: Path, source) -> StoredQuestions:
    folder.mkdir(exist_ok=True)
    return StoredQuestions(folder, write_questions(source, folder))


# Sequences


@pytest.mark.parametrize("count", [1, 8, 21])
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


def test_fingerprints_are_the_same_as_in_earlier_versions():
    """They are part of the addresses of everything in a store."""
    questions = [Question("a", "t \u00e9", "1", None, ("x", "y")), Question("b", "u")]
    found = [of(questions)[:8] for of in (fingerprint, prompts_fingerprint)]
    assert found == ["ebaf8471", "7aeaf9e7"]


def test_one_batch_of_questions_is_in_memory(tmp_path):
    alive, highest = weakref.WeakSet(), []

    def watched(questions):
        for question in questions:
            alive.add(question)
            highest.append(len(alive))
            yield question

    found = stored(tmp_path, watched(Question(str(i), "Q") for i in range(80)))
    assert 8 <= max(highest) <= 16  # a batch, while the next one is collected
    highest.clear()
    for _ in watched(found):
        pass
    assert max(highest) <= 2


def test_a_block_is_made_once_while_reads_stay_close():
    made = []

    def block(number):
        made.append(number)
        return range(10 * number, 10 * number + 10)

    found = in_blocks(25, 10, block)
    assert list(found) == list(range(25))
    assert made == [0, 1, 2]
    assert [found[i] for i in (19, 21, 18, 20, -1)] == [19, 21, 18, 20, 24]
    assert made == [0, 1, 2]
    assert found[0] == 0
    assert made == [0, 1, 2, 0]


class Stopped(Exception):  # noqa: N818 - simulates a kill
    pass


def test_a_stopped_reading_leaves_no_artifact_and_a_whole_one_is_read_once(tmp_path, monkeypatch):
    source = micro(30)
    listed = load_questions(source, hub_root=None)
    store = Store(tmp_path / "store")
    read = streaming.iterate_questions

    def stopped(*args, **kwargs):
        yield from [*read(*args, **kwargs)][:20]
        raise Stopped

    monkeypatch.setattr(streaming, "iterate_questions", stopped)
    with pytest.raises(Stopped):
        streamed_questions(source, hub_root=None, store=store)
    assert not [*store.root.rglob("*.arrow"), *store.root.rglob("manifest.json")]
    monkeypatch.setattr(streaming, "iterate_questions", read)
    assert list(streamed_questions(source, hub_root=None, store=store)) == listed
    monkeypatch.delattr(streaming, "iterate_questions")
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


@pytest.mark.parametrize("kind", ["hub", "jsonl", "parquet", "micro"])
@pytest.mark.parametrize("max_questions", [None, 12])
def test_a_streamed_source_equals_the_list(tmp_path, kind, max_questions):
    rows = [{"body": "B.", "question": f"Q{i}\u2028", "answer": str(i)} for i in range(20)]
    rows[5]["answer"] = "1;2"  # which asdiv drops
    mirror(tmp_path / "hub", rows)
    lines = tmp_path / "hub" / "test.jsonl"
    lines.write_text(lines.read_text().replace("\n", "\n\n"))
    table = write_parquet(tmp_path / "x.parquet", question=[row["question"] for row in rows])
    source = {
        "hub": DataSettings(name="asdiv", format="asdiv", path="hub", split="test"),
        "jsonl": DataSettings(name="jsonl", format="jsonl", path=str(lines)),
        "parquet": parquet(table),
        "micro": micro(20),
    }[kind]
    listed = load_questions(source, hub_root=str(tmp_path))[:max_questions]
    source.max_questions = max_questions
    found = streamed_questions(source, hub_root=str(tmp_path), store=Store(tmp_path / "store"))
    assert list(found) == listed
    assert len(listed) == (max_questions or (19 if kind == "hub" else 20))


def names(store: Path, stage: str = "questions") -> list[str]:
    return sorted(path.parent.name for path in store.glob(f"{stage}/*/manifest.json"))


def test_the_address_depends_on_content_not_on_location(tmp_path):
    store = Store(tmp_path / "store")
    one = write_parquet(tmp_path / "a" / "x.parquet", question=["1", "2"])
    same = write_parquet(tmp_path / "b" / "x.parquet", question=["1", "2"])
    other = write_parquet(tmp_path / "c" / "x.parquet", question=["1", "3"])
    counts = []
    for source in (
        *(parquet(one), parquet(same), parquet(one, max_questions=1), parquet(other)),
        *(micro(3), micro(4), micro(3, seed=1)),
    ):
        streamed_questions(source, hub_root=None, store=store)
        counts.append(len(names(store.root)))
    assert counts == [1, 1, 2, 3, 4, 5, 6]


@pytest.fixture
def hub(monkeypatch):
    """A hub with one data set; its commit, or error, and the requests to it."""
    import datasets
    import huggingface_hub

    fake = SimpleNamespace(commit="a" * 40, error=None, requests=[])

    class Api:
        def dataset_info(self, path, revision=None):
            fake.requests.append((path, revision))
            if fake.error is not None:
                raise fake.error
            return SimpleNamespace(sha=fake.commit)

    def load_dataset(path, config, **options):
        fake.requests.append((path, config, options))
        return iter([{"question": "Q", "answer": "#### 1"}])

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return fake


def gsm8k(**settings):
    return DataSettings(
        name="g", format="gsm8k", path="openai/gsm8k", configs=["main"], split="train", **settings
    )


def test_a_hub_data_set_is_addressed_by_its_commit_and_read_once(tmp_path, hub):
    store = Store(tmp_path / "store")
    for _ in range(2):
        (question,) = streamed_questions(gsm8k(), hub_root=None, store=store)
        assert question == Question("g/train/0", "Q", "1", "")
    read = {"split": "train", "revision": hub.commit, "streaming": True}
    asked = ("openai/gsm8k", None)
    assert hub.requests == [asked, ("openai/gsm8k", "main", read), asked]
    # With a commit whose questions are in the store, the hub is not needed.
    assert len(streamed_questions(gsm8k(revision=hub.commit), hub_root=None, store=store)) == 1
    assert len(hub.requests) == 3
    hub.commit = "b" * 40
    streamed_questions(gsm8k(), hub_root=None, store=store)
    assert len(names(store.root)) == 2


def test_an_unreachable_hub_is_one_line(tmp_path, hub):
    hub.error = ConnectionError("no route\nto the hub")
    with one_line_error("openai/gsm8k: ", "no route to the hub", "hub_root"):
        streamed_questions(gsm8k(), hub_root=None, store=Store(tmp_path / "store"))


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
        *((pa.array([5, None]), ["5", None]), (pa.array([12.5, 4.0]), ["12.5", "4.0"])),
        (pa.array([0.1, 12.3], pa.float32()), ["0.1", "12.3"]),
        (pa.array(["1/2", None]), ["1/2", None]),
        (pa.array(["x", "y"]).dictionary_encode(), ["x", "y"]),
    ],
)
def test_answers_may_be_strings_or_numbers(tmp_path, answers, read):
    path = write_parquet(tmp_path / "x.parquet", question=["1", "2"], answer=answers)
    assert [q.answer for q in load_questions(parquet(path), hub_root=None)] == read


BAD_COLUMNS = [  # the others are as in JSON Lines, see test_data
    ({"prompt": ["Q"], "id": [1]}, "no column `question`; the columns are: id, prompt"),
    ({"question": ["Q", None]}, "row 2: `question` must be a non-empty string"),
    ({"question": ["Q"], "answer": [["1"]]}, "row 1: `answer` must be a string or a number"),
    ({"question": ["Q"], "answer": [float("nan")]}, "row 1: `answer` is not a finite number"),
    ({"question": pa.array([], pa.string())}, "no questions in it"),
]


@pytest.mark.parametrize(("columns", "message"), BAD_COLUMNS)
def test_errors_in_rows_are_one_line_that_names_the_row(tmp_path, columns, message):
    path = write_parquet(tmp_path / "mine.parquet", **columns)
    with one_line_error("mine.parquet", message):
        streamed_questions(parquet(path), hub_root=None, store=Store(tmp_path / "store"))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "no such file or folder. Set data.path"),
        (lambda path: (path.unlink(), path.mkdir()), "no file in this folder ends in .parquet"),
        (lambda path: path.write_bytes(b"PAR1 no table PAR1"), "cannot be read as Parquet"),
        (lambda path: path.write_bytes(path.read_bytes()[:-20]), "cannot be read as Parquet"),
        (lambda path: zero_pages(path), "x.parquet"),
    ],
)
def test_unreadable_files_are_one_line_errors(tmp_path, damage, message):
    path = write_parquet(tmp_path / "x.parquet", question=[f"Question {i}?" for i in range(5000)])
    damage(path)
    with one_line_error("x.parquet", message):
        streamed_questions(parquet(path), hub_root=None, store=Store(tmp_path / "store"))


def zero_pages(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[40:4000] = bytes(3960)
    path.write_bytes(content)


# Prompts, selection, supervision


def test_stored_questions_prompts_are_rendered_in_windows(tmp_path, monkeypatch, pair, questions):
    monkeypatch.setattr(rollout, "WINDOW", 4)
    calls = []
    render_prompts = rollout.render_prompts

    def counted(model, ids, texts, system):
        calls.append(list(ids))
        return render_prompts(model, ids, texts, system)

    monkeypatch.setattr(rollout, "render_prompts", counted)
    listed = rollout._prompts(questions, pair[0], Prompt("S"))
    assert len(calls) == 1
    found = rollout._prompts(stored(tmp_path, questions), pair[0], Prompt("S"))
    assert len(calls) == 1  # nothing is rendered before it is needed
    assert (len(found), found[5]) == (12, listed[5])
    assert calls[1:] == [[q.id for q in questions[4:8]]]
    assert list(found) == listed
    assert max(map(len, calls[1:])) == 4


def test_a_prompt_that_is_too_long_stops_the_rollout(tmp_path, monkeypatch, pair, questions):
    """A list stops before the first answer, a stream at the prompt's window."""
    monkeypatch.setattr(rollout, "WINDOW", 4)
    monkeypatch.setattr(generation, "WINDOW", 4)
    long = Question(id="mine/7", text="Tom has 4 pens . " * 5000)
    options = {"prompt": Prompt("S"), "max_new_tokens": 2, "batch_size": 4}
    folder = tmp_path / "out"
    folder.mkdir()
    with pytest.raises(UserError, match="mine/7"):
        rollout.roll_out([*questions, long], pair[0], folder, **options)
    assert shard_paths(folder) == []
    with pytest.raises(UserError, match="mine/7"):
        rollout.roll_out(stored(tmp_path / "q", [*questions, long]), pair[0], folder, **options)
    assert len(shard_paths(folder)) == len(questions) // 4


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


def test_duplicate_answers_are_recognized_across_windows(tmp_path, monkeypatch):
    """Earlier windows are dropped, except for a question that continues in the next one."""
    monkeypatch.setattr(references, "WINDOW", 4)
    source, out = (tmp_path / name for name in ("in", "out"))
    source.mkdir()
    out.mkdir()
    write_answers(source, [(question, "2", True) for question in "aaabbba"])
    facts = references.keep_chosen(source, tiny_tokenizer(), lambda *_: True, out, samples=3)
    # Question 1 has answers 3 to 5, in two windows; question 2 is separate despite its text.
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


# Whole runs

SMALL = (
    "experiment=demo",
    "data.count=16",
    "data.max_questions=null",
    "stages=[sample]",
    "sampler.max_new_tokens=24",
    "sampler.batch_size=8",
)


@pytest.mark.integration
@pytest.mark.parametrize("method", ["lightreasoner", "gt_sft", "rejection_sft"])
def test_a_streamed_run_equals_the_listed_run(tmp_path, program, method):
    words = (*SMALL, f"method={method}", "method.max_new_tokens=24")
    listed = summary_of(program(*words))
    store = tmp_path / "store"
    found = {stage.name: names(store, stage.name) for stage in store.iterdir() if stage.is_dir()}
    streamed = summary_of(program(*words, "data.streaming=true"))
    # Everything was found in the store of the list's run, so every address is the same.
    assert streamed["sample"].pop("reused")
    assert not listed["sample"].pop("reused")
    assert streamed["sample"] == listed["sample"]
    assert {name: names(store, name) for name in found} == found
    assert len(names(store)) == 1
    assert streamed["provenance"] == listed["provenance"]
    # Built from scratch, the results are the same.
    file = tmp_path / "records.jsonl"
    export = [f"sampler.export={file}"] if method == "lightreasoner" else []
    words = (*words, "data.streaming=true", f"store={tmp_path / 'other'}", *export)
    again = summary_of(program(*words))
    assert not again["sample"]["reused"]
    assert again["sample"]["supervision"] == listed["sample"]["supervision"]
    assert again["sample"]["questions"] == 16
    if export:
        assert len(file.read_text("utf-8").splitlines()) == again["sample"]["kept"] > 0


def test_a_stream_takes_the_first_questions_whatever_the_seed(tmp_path):
    def read(*words):
        place = (f"store={tmp_path / 'store'}", "device=cpu", "data.streaming=true")
        return read_questions(compose(*SMALL, *place, *words))

    first = read("data.max_questions=5", "seed=3")
    assert isinstance(first, StoredQuestions)
    assert list(first) == list(read())[:5] == list(read("data.max_questions=5", "seed=4"))


def test_shards_are_sorted_by_number(tmp_path):
    for number in (999_999, 1_000_000, 2):
        shard_path(tmp_path, number).touch()
    assert [shard_number(path) for path in shard_paths(tmp_path)] == [2, 999_999, 1_000_000]
