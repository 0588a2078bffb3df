"""Ten thousand questions: memory and the number of open files stay flat."""

import os
import resource

import pytest

from bench.stream import watch

WORDS = [
    "experiment=demo",
    "data.count=10000",
    "data.max_questions=null",
    "sampler.batch_size=100",
    "stages=[sample]",  # evaluation decodes as the rollout does
]
MAX_OPEN_FILES = 64  # there are a hundred batches


@pytest.fixture
def few_open_files():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (MAX_OPEN_FILES, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="reads Linux's /proc")
def test_ten_thousand_questions(tmp_path, few_open_files):
    moments, _ = watch(WORDS, tmp_path, every=0.5, threads=1)
    for stage in ("rollout", "score"):
        used = [moment.bytes for moment in moments if moment.stage == stage]
        start = max(used[: max(2, len(used) // 10)])
        print(f"{stage}: memory +{max(used) / start - 1:.1%}")
        assert max(used) < 1.1 * start
