"""The benchmark's arithmetic and output, at sizes that take seconds. No time is asserted."""

import json
import statistics
import subprocess

import pytest
import torch

from bench import child, cost, machine, measure, pairs, parts, stages, stream, tables
from bench.__main__ import main
from lr_exp import progress
from lr_exp.errors import UserError
from lr_exp.models import early_exit
from tests.support.files import replaced_text, write_marked_document
from tests.support.sampling import load_micro


def test_sides_alternate_and_ratios_compare_the_same_repeat():
    calls = []

    def side(name):
        return lambda repeat: calls.append((name, repeat)) or len(calls)

    ours, plain = measure.alternate(side("a"), side("b"), 3)
    assert calls == [("a", 0), ("b", 0), ("b", 1), ("a", 1), ("a", 2), ("b", 2)]
    assert (ours, plain) == ([1, 4, 5], [2, 3, 6])
    compared = measure.comparison([1.0, 2.0, 4.0], [10.0, 30.0, 20.0], "s")
    assert compared["ratio"] == {"min": 5.0, "median": 10.0, "max": 15.0}
    assert compared["ours"] == {"min": 1.0, "median": 2.0, "max": 4.0}
    assert compared["repeats"] == 3


def test_a_failing_child_process_reports_its_error(monkeypatch):
    failed = subprocess.CompletedProcess([], 1, "", "Traceback ...\nKeyError: 'task'")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(RuntimeError, match="KeyError"):
        measure.run_in_child("task", threads=1)


def test_shapes_count_the_matrices_of_a_model():
    model = load_micro("expert")
    shape = cost.shape_of(model)
    matrices = sum(p.numel() for p in model.model.get_decoder().layers.parameters() if p.dim() > 1)
    assert shape.layers * shape.layer_weights == matrices
    assert shape.head_weights == model.model.lm_head.weight.numel()
    config = model.model.config
    width = config.hidden_size // config.num_attention_heads
    assert shape.cache_width == 2 * config.num_key_value_heads * width


def test_cost_of_forward_passes_and_decoding_by_hand():
    shape = cost.Shape(
        layers=2, layer_weights=100, head_weights=50, attention_width=4, cache_width=6, item_bytes=4
    )
    read = cost.forward(shape, [3, 5], reads=2, passes=1)
    attention = 2 * 4 * 4 * (9 / 2 + 25 / 2)
    assert read.flops == 2 * 200 * 8 + attention + 2 * 50 * 2
    assert read.bytes == 4 * 250
    # Two batches of 2 new tokens each read the weights; each token reads the cache of its row.
    decoded = cost.decoding(shape, [[(3, 2)], [(5, 2)]])
    assert decoded.bytes == 4 * 4 * 250 + 2 * 6 * 4 * ((3 * 2 + 2) + (5 * 2 + 2))
    # A batch lasts as long as its longest row; a finished row costs nothing.
    uneven = cost.decoding(shape, [[(3, 2), (5, 4)]])
    assert uneven.bytes == 4 * 4 * 250 + 2 * 6 * 4 * ((3 * 2 + 2) + (5 * 4 + 8))
    assert uneven.flops == cost.forward(shape, [5, 9], reads=6, passes=0).flops
    assert cost.training(shape, [3], 1, 1).flops == 2 * cost.forward(shape, [3], 1, 1).flops
    # The minimum time is the slower of computation and memory.
    work, limits = cost.Cost(100.0, 10.0), machine.Peaks(10.0, 5.0, "measured")
    assert work.floor_seconds(limits) == 10
    assert (work / 100).floor_seconds(machine.Peaks(10.0, 0.01, "measured")) == 10


def test_shared_layers_cost_once():
    pair = pairs.load_pair("micro", 1, None)
    separate = cost.scoring(pair.expert, pair.amateur, [10], 5, 1)
    expert, amateur = (
        cost.forward(cost.shape_of(m), [10], 5, 1) for m in (pair.expert, pair.amateur)
    )
    assert separate == expert + amateur
    early = early_exit.early_exit(pair.expert, (2,), "early")
    rest = cost.Shape(**{**vars(cost.shape_of(early)), "layers": 1})
    expected = expert + cost.forward(rest, [10], 5, 1)
    assert cost.scoring(pair.expert, early, [10], 5, 1).flops == pytest.approx(expected.flops)


def test_peaks_come_from_data_sheets_or_measurements(monkeypatch):
    measured = machine.peaks("cpu", "float32", size=64)
    assert measured.source == "measured"
    assert measured.flops > 0 < measured.bytes
    faster = machine.Peaks(2 * measured.flops, measured.bytes / 2, "measured")
    assert machine.highest(measured, faster) == machine.Peaks(
        2 * measured.flops, measured.bytes, "measured"
    )
    for name, flops, rate in (
        ("NVIDIA H200", 989e12, 4.8e12),
        ("NVIDIA H100 80GB HBM3", 989e12, 3.35e12),
        ("NVIDIA H100 PCIe", 756e12, 2.0e12),
        ("NVIDIA A100-SXM4-80GB", 312e12, 2.04e12),
    ):
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_, name=name: name)
        assert machine.peaks("cuda", "bfloat16") == machine.Peaks(flops, rate, "data sheet")


def test_synthetic_supervision_and_typical_questions_have_the_requested_sizes():
    pair = pairs.load_pair("micro", 9, None)
    supervision = stages.synthetic(pair, new_tokens=64, kept=20)
    for prompt, trajectory in zip(pair.prompts(), supervision.trajectories, strict=True):
        assert (len(trajectory.steps), trajectory.steps[0], trajectory.steps[-1]) == (20, 0, 63)
        assert len(trajectory.input_ids) == len(prompt) + 63
    lengths = sorted(len(prompt) for prompt in pair.prompts())
    (index,) = pair.typical(1)
    assert len(pair.prompts()[index]) == statistics.median(lengths)
    assert len(set(pair.typical(20))) == 9


# The program -------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def restored(monkeypatch):
    """Restores the threads and progress bars that the program changes."""
    monkeypatch.setattr(progress, "_chosen", None)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.integration
def test_a_quick_run_measures_every_comparison_and_updates_the_document(tmp_path):
    document = write_marked_document(tmp_path / "README.md")
    words = ["--quick", "--pairs", "micro", "--out", str(tmp_path), "--readme", str(document)]
    assert main([*words, "--only", "sampling", "training", "evaluation", "precision"]) == 0
    results = json.loads((tmp_path / "bench.json").read_text("utf-8"))
    assert results["sizes"]["repeats"] == 2
    assert {"cpu", "cores", "ram_gib", "torch", "threads", "date"} <= results["machine"].keys()
    for part in ("sampling", "training", "evaluation"):
        figures = results["parts"][part]["micro"]
        assert figures["repeats"] == 2
        for side in ("ours", "plain", "ratio"):
            spread = figures[side]
            assert 0 < spread["min"] <= spread["median"] <= spread["max"]
    for part in ("sampling", "training", "training_whole", "training_order"):
        for floor in results["parts"][part]["micro"]["work"].values():
            assert floor["share"] == pytest.approx(floor["floor_seconds"] / floor["seconds"])
    sizes = [
        results["parts"][p]["micro"]["train_batch_size"] for p in ("training", "training_whole")
    ]
    assert sizes == [4, 3]
    precision = results["parts"]["precision"]["micro"]
    assert precision["steps"] > 0 < precision["kl_error_median"] <= precision["kl_error_p99"] < 0.5
    assert 0 <= precision["kept_otherwise"] < 0.1
    text = replaced_text(document)
    assert "| sampling, time per question | micro |" in text
    assert "| training, time per kept step, 3 per optimizer step | micro |" in text
    assert "in the published order (`distiller.order=steps`) | micro |" in text
    work = [results["parts"][p]["micro"]["work"] for p in ("training_order", "training")]
    again, once = (one["training"]["gflop"] for one in work)
    assert again > 1.5 * once  # prefixes are read again
    assert "bf16 weights on this CPU (micro" in text
    assert (tmp_path / "bench.md").read_text("utf-8") in text


def test_a_document_without_markers_is_rejected(tmp_path):
    document = tmp_path / "README.md"
    document.write_text("nothing here", "utf-8")
    with pytest.raises(UserError, match="no place for the table"):
        tables.insert_into_document(document, "table")
    document.write_text("a <!-- bench --> old <!-- bench --> b", "utf-8")
    tables.insert_into_document(document, "new")
    assert document.read_text("utf-8") == "a <!-- bench -->\n\nnew\n<!-- bench --> b"


@pytest.mark.integration
def test_evaluation_is_compared_with_the_harness_on_the_same_answers():
    pytest.importorskip("lm_eval")
    bench = parts.Bench(parts.QUICK, None, None)
    pair = pairs.load_pair("micro", 5, None)
    figures = parts.harness(bench, pair)
    assert figures["questions"] == 5
    assert 0 < figures["equal"] <= 5  # of six tokens each
    table = tables._compared({"parts": {"harness": {"micro": figures}}})
    assert f"in batches of 2 ({figures['equal']} of 5 answers are identical) | micro |" in table


@pytest.mark.integration
def test_memory_and_scaling_are_measured_in_children():
    sizes = parts.Sizes(**{**vars(parts.QUICK), "scaling": (2,), "repeats": 1})
    bench = parts.Bench(sizes, None, 1)
    (row,) = parts.scaling(bench, "micro")
    assert row["questions"] == 2
    assert row["seconds"] > 0
    options = {"pair": "micro", "data": None, "new_tokens": 4}
    # The process can also give some pages back.
    assert child.sampling(**options, side="plain", rows=2)["bytes"] > -(2**20)
    assert child.training(**options, side="ours", batch_size=2, kept=2)["bytes"] > -(2**20)


@pytest.mark.integration
def test_the_papers_run_with_random_weights_of_a_tiny_geometry(tmp_path, capsys):
    words = ["--geometry", "tiny", "--device", "cpu", "--questions", "6", "--steps", "3"]
    more = ["--new-tokens", "24", "--batch-size", "3", "--answer-tokens", "8", "--out"]
    more += [str(tmp_path), "--evaluated", "4"]
    assert main([*words, *more]) == 0
    results = json.loads((tmp_path / "tiny.json").read_text("utf-8"))
    assert [*results["stages"]] == ["rollout", "score", "training", "evaluate"]
    tokens = [stage["tokens_per_second"] * stage["seconds"] for stage in results["stages"].values()]
    assert (tokens[0], tokens[3]) == pytest.approx((6 * 24, 4 * 8))
    assert results["kept_per_answer"] == pytest.approx(20, abs=1)
    for stage in results["stages"].values():
        assert stage["seconds"] > 0 < stage["tokens_per_second"]
        assert stage["share_of_flops"] > 0 < stage["share_of_bandwidth"]
        assert stage["peak_memory_bytes"] > 0
    out = capsys.readouterr().out
    assert "tiny on" in out
    assert "extrapolated, not measured" in out


@pytest.mark.integration
def test_progress_and_memory_of_a_long_run(tmp_path, capsys):
    words = ["--questions", "24", "--max-new-tokens", "4", "--batch-size", "4", "--threads", "1"]
    out = tmp_path / "tables" / "stream.md"
    assert (
        stream.main([*words, "--every", "0.1", "--folder", str(tmp_path), "--out", str(out)]) == 0
    )
    text = out.read_text("utf-8")
    assert capsys.readouterr().out.strip() == text.strip()
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    for stage in stream.STAGES:
        reached = [row for row in rows if row[0] == stage and len(row) == 5]
        assert [row[1] for row in reached] == ["3", "6", "12", "24"]
        seconds = [float(row[2]) for row in reached]
        assert seconds == sorted(seconds)
        assert all(int(row[4].removesuffix(" MiB")) > 10 for row in reached)
        ((_, size, files, _),) = (row for row in rows if row[0] == stage and len(row) == 4)
        assert int(size.replace(",", "")) > 0
        assert int(files) >= (6 if stage in ("rollout", "score") else 1)
    assert [path.name for path in tmp_path.iterdir()] == ["tables"]  # temporary files are deleted
