"""No stage mixes tensors of two devices, and no inner loop waits for the GPU more than it must.

Each wait leaves the GPU without work until the host has launched more. Here a pretended GPU runs
the micro pair.
"""

from dataclasses import replace

import pytest
import torch

from lr_exp.distiller import distill, losses
from lr_exp.evaluator.answer import Contrast, answer
from lr_exp.models import loading
from lr_exp.models.loading import ModelPair
from lr_exp.models.prompt_forms import Prompt
from lr_exp.models.vocabulary import SharedVocabulary
from lr_exp.sampler import rollout, score
from tests.support.distilling import SETTINGS, a_supervision
from tests.support.other_device import GPU, MixedDevicesError, OtherDevice
from tests.support.sampling import SYSTEM, micro_source, shared_ids

PROMPT = Prompt(SYSTEM)
LOADING = {"device": str(GPU), "dtype": "float32"}


@pytest.fixture(scope="module")
def gpu():
    return OtherDevice()


@pytest.fixture(scope="module")
def on_gpu(gpu):
    """The micro pair on the pretended GPU."""
    with gpu:
        pair = [loading.load(micro_source(name), **LOADING) for name in ("expert", "micro")]
    return ModelPair(*pair, shared_ids(pair))


@pytest.fixture
def passes(gpu, on_gpu):
    """An entry for each forward pass of the expert; the GPU's waits are counted from here on."""
    done = []
    handle = on_gpu.expert.model.register_forward_hook(lambda *_: done.append(1))
    gpu.waits.clear()
    yield done
    handle.remove()


def waits(gpu, package):
    """The waits in functions of a module, or in all of a package's."""
    return {where: count for where, count in gpu.waits.items() if f" in {package}." in where}


def test_the_pretended_gpu_notices_mixed_devices_and_waits(gpu):
    gpu.waits.clear()
    with gpu:
        there, here = torch.arange(4.0, device=GPU), torch.ones(4)
        assert (there.device, here.device.type) == (GPU, "cpu")
        assert {(there[1:] + 1).device, torch.zeros_like(there).device} == {GPU}
        for mix in (
            lambda: there + here,
            lambda: torch.cat([there, here]),
            lambda: here.gather(0, there.long()),
            lambda: torch.zeros(()).add_(there.sum()),
            lambda: there.multinomial(1, generator=torch.Generator()),
            lambda: there.numpy(),
        ):
            with pytest.raises(MixedDevicesError):
                mix()
        assert (there * torch.tensor(2.0) + here.to(GPU, non_blocking=True)).device == GPU
        with torch.inference_mode():
            assert there.sum() == 6
        assert there.sum().item() == 6
        assert there.tolist() == [0, 1, 2, 3]
        assert there[there > 2].cpu().device.type == "cpu"
    kinds = ("is_nonzero", "_local_scalar_dense", "tolist", "index", "to host")
    assert sorted(where.split(" in ")[0] for where in gpu.waits.elements()) == sorted(kinds)


@torch.no_grad()
def test_the_pretended_gpu_computes_as_the_cpu_does(gpu, on_gpu, pair):
    ids = torch.tensor([[5, 9, 3, 12, 30]])
    with gpu:
        logits = on_gpu.expert.model(ids.to(GPU)).logits.cpu()
    assert torch.equal(logits, pair[0].model(ids).logits)


@pytest.mark.integration
@pytest.mark.parametrize("sampling", [{}, {"samples": 2, "temperature": 1.0, "top_p": 0.9}])
def test_decoding_waits_once_for_each_token(gpu, on_gpu, passes, questions, tmp_path, sampling):
    sizes = {"max_new_tokens": 64, "batch_size": 16}
    with gpu:
        rollout.roll_out(questions[:4], on_gpu.expert, tmp_path, prompt=PROMPT, **sizes, **sampling)
    assert "tensor in lr_exp.inference.decoding.decode" in gpu.waits  # finished rows were removed
    check_decoding(gpu, len(passes), models=1)


@pytest.mark.integration
@pytest.mark.parametrize("excluded", [(), (7, 9)])
def test_contrastive_decoding_waits_once_for_each_token(
    gpu, on_gpu, passes, questions, tmp_path, excluded
):
    contrast = Contrast(on_gpu.amateur, SharedVocabulary(on_gpu.shared.size, excluded), 0.1)
    given = {"name": "e", "prompt": PROMPT, "max_new_tokens": 32, "batch_size": 16}
    with gpu:
        answer(questions[:4], on_gpu.expert, tmp_path, contrast=contrast, **given)
    assert waits(gpu, "lr_exp.models") == {}
    check_decoding(gpu, len(passes), models=2)


def check_decoding(gpu, tokens, *, models):
    """One batch was decoded in so many forward passes of each model."""
    found = waits(gpu, "lr_exp.inference.decoding")
    assert found.pop("tolist in lr_exp.inference.decoding.decode") == tokens > 30
    # Prompts and masks, removals of finished rows, and ids that the amateur skips.
    assert sum(found.values()) < 12
    # transformers waits to build a mask; its caches begin as `torch.tensor([])`, without a wait.
    masks = waits(gpu, "transformers.masking_utils")
    assert sum(masks.values()) <= models * tokens


@pytest.mark.integration
def test_scoring_waits_for_each_pass_and_chunk_not_for_each_position(
    gpu, on_gpu, passes, questions, tmp_path
):
    trajectories, steps = tmp_path / "trajectories", tmp_path / "steps"
    trajectories.mkdir()
    steps.mkdir()
    with gpu:
        sizes = {"max_new_tokens": 48, "batch_size": 4}
        rollout.roll_out(questions[:4], on_gpu.expert, trajectories, prompt=PROMPT, **sizes)
        passes.clear()
        gpu.waits.clear()
        sizes = {"support_floor": 1e-3, "tokens_per_pass": 4096}
        facts = score.score(trajectories, on_gpu, steps, prompt=PROMPT, **sizes)
    assert (len(passes), facts["steps"]) == (1, 4 * 48)
    assert gpu.waits.total() <= 32  # 8 for the pass; the table's columns, one by one


@pytest.mark.integration
def test_training_waits_only_to_log(gpu, on_gpu, passes, tmp_path):
    """And transformers once a pass, to find packed sequences."""
    training = distill.Training(
        replace(SETTINGS, batch_size=16, tokens_per_pass=24, log_every=SETTINGS.steps),
        loss=losses.kl,
        seed=0,
        device=str(GPU),
        base_location=micro_source().location,
        base_revision=None,
        on_log=lambda *_: None,
    )
    with gpu:
        distill.distill(a_supervision(), on_gpu.expert, tmp_path, training)
    log = "in lr_exp.distiller.trainer.log"  # after the first and the last optimizer step
    assert waits(gpu, "lr_exp") == {f"tolist {log}": 2, f"_local_scalar_dense {log}": 2 * 2}
    assert sum(waits(gpu, "transformers").values()) <= len(passes)
    assert len(passes) > 2 * SETTINGS.steps
