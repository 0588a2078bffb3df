"""Runs tasks of lm-evaluation-harness as benchmarks: it prompts and grades, the model is ours.

Before any model is loaded, a stand-in gives the same answer to all requests of a task. So errors in
its files and data appear early, and the requests are known, which address the model's answers.
"""

import contextlib
import copy
import io
import logging
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from accelerate.utils import find_executable_batch_size
from lm_eval.api.model import CachingLM
from lm_eval.evaluator import evaluate
from lm_eval.models.dummy import DummyLM
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from lm_eval.tasks._factory import TaskFactory

from lr_exp.config.settings import LM_EVAL, EvaluatorSettings, PromptSettings
from lr_exp.data.questions import Question
from lr_exp.errors import UserError, did_you_mean, first_line
from lr_exp.inference.cpu_linear import prepacked_linear
from lr_exp.models.loading import LanguageModel
from lr_exp.models.prompt_forms import Prompt
from lr_exp.models.prompts import has_chat_template
from lr_exp.progress import Progress
from lr_exp.store import digest, file_digest

VERSION = 1  # of the graded answers: raise it when this module changes them

_SEED = 1234  # the library's default, so that its program draws the same few-shot examples
_ANSWER = "The answer is a 1."  # of the stand-in; metrics of partial overlap give a fraction
_untyped: Any = HFLM  # its decorator hides its arguments
_library = cache(TaskManager)  # reads 14,000 files in 20 s
logging.getLogger("lm_eval").setLevel(logging.ERROR)


@dataclass(frozen=True)
class TaskPrompt(Prompt):
    """How the tasks of a benchmark ask their questions."""

    questions: tuple[Question, ...] = ()
    requests: str = ""  # digest of what the model reads, the rows behind it and the tasks' files
    metric: str = ""  # which says whether an answer is correct; of several tasks, all of them

    @property
    def identity(self) -> dict[str, Any]:
        return {"requests": self.requests, "metric": self.metric, "lm_eval": version("lm_eval")}


class TaskBenchmark:
    """A task, or the tasks of a group or tag, as one benchmark."""

    def __init__(self, name: str, settings: EvaluatorSettings, hub_root: str | None) -> None:
        """Raises UserError: no such task, it runs code, or its files or data cannot be read."""
        self.name, self._settings, folder = name, settings, settings.lm_eval_tasks
        self._prompts: dict[bool, TaskPrompt] = {}
        task = name.removeprefix(LM_EVAL)
        manager = own = TaskManager(include_path=folder, include_defaults=False)
        if task not in own.all_tasks:
            manager, folder = _library(), None
        if task not in manager.all_tasks:
            known = did_you_mean(task, [*own.all_tasks, *manager.all_tasks])
            raise UserError(f"benchmarks: lm-evaluation-harness has no task {task!r}.{known}")
        files = sorted(Path(folder).rglob("*.*")) if folder else []
        self._code = [file_digest(one) for one in files if one.suffix in (".py", ".yaml")]
        root = Path(hub_root).expanduser() if hub_root else None
        manager._factory = _Factory(settings.run_code, root)
        if settings.run_code:
            os.environ["HF_ALLOW_CODE_EVAL"] = "1"  # another library's switch
        with self._preparing():
            self._tasks: dict[str, Any] = manager.load(task)["tasks"]
        for one in self._tasks.values():
            if (shots := one.get_config("num_fewshot")) != 0:  # the library keeps 0, too
                one.set_config("num_fewshot", settings.num_fewshot or shots or 0)

    def prompt(self, form: PromptSettings, tokenizer: Any) -> TaskPrompt:
        """The questions as the tasks ask them, in the chat template if the form is one.

        Raises UserError: a task fails, or has no metric that is 0 or 1 for each question.
        """
        if (chat := form.chat and has_chat_template(tokenizer)) not in self._prompts:
            with self._preparing():
                records, metric, requests = self._run(_stand_in(tokenizer), chat)
            asked = tuple(
                Question(one["id"], one["question"], one["reference"], choices=one["choices"])
                for one in records
            )
            known = digest([requests, self._code])
            self._prompts[chat] = TaskPrompt("", form, (), asked, known, metric)
        return self._prompts[chat]

    def answer(
        self, model: LanguageModel, form: PromptSettings, folder: Path, title: str, batch_size: int
    ) -> list[dict[str, Any]]:
        """Graded answers, as from `grade.grade_all`. The folder keeps those of interrupted calls.

        Batches that do not fit in memory are halved. Raises UserError: a metric is not 0 or 1, or
        the task does not fit in the model's context.
        """
        responses = folder / "responses.db"

        def run(batch_size: int) -> list[dict[str, Any]]:
            random.seed(0)
            np.random.seed(_SEED)
            torch.manual_seed(_SEED)
            tokenizer = copy.deepcopy(model.tokenizer)  # it may get a padding token
            wrapped = _untyped(model.model, tokenizer=tokenizer, batch_size=batch_size)
            cached = CachingLM(wrapped, str(responses))
            hook: Any = wrapped.cache_hook
            total, add = sum(len(one.instances) for one in self._tasks.values()), hook.add_partial
            with (
                contextlib.closing(cached.dbdict),
                Progress(title, total, "request", found=len(cached.dbdict)) as progress,
                prepacked_linear(model.model, copy_shared=True),
                contextlib.redirect_stderr(io.StringIO()),  # the library's progress bars
            ):
                hook.add_partial = lambda *response: (add(*response), progress.add())
                return self._run(cached, form.chat and has_chat_template(model.tokenizer))[0]

        # Also where the chat template ends a turn.
        model.model.generation_config.eos_token_id = list(model.stop_ids)
        try:
            records = find_executable_batch_size(run, starting_batch_size=batch_size)()
        except AssertionError as error:  # the task generates more than fits in the context
            raise UserError(f"benchmarks: {self.name}: {first_line(error)}") from error
        responses.unlink()
        return records

    @contextlib.contextmanager
    def _preparing(self) -> Iterator[None]:
        try:
            with contextlib.redirect_stderr(io.StringIO()):
                yield
        except UserError:
            raise
        except Exception as error:  # tasks are code, and data sets have exceptions of their own
            raise UserError(
                f"benchmarks: {self.name} cannot be prepared ({type(error).__name__}: "
                f"{first_line(error)}). Check the task's YAML and the connection to the hub, or "
                "set hub_root to a folder with its data set."
            ) from error

    def _run(self, model: Any, chat: bool) -> tuple[list[dict[str, Any]], str, list[str]]:
        """Graded answers, read by the first filter of each task; its metric; all requests."""
        for task in self._tasks.values():
            task.set_fewshot_seed(_SEED)
        found: Any = evaluate(
            model,
            {"tasks": self._tasks},
            limit=self._settings.max_examples,
            bootstrap_iters=0,
            apply_chat_template=chat,
            fewshot_as_multiturn=chat,
            confirm_run_unsafe_code=self._settings.run_code,
        )
        records, metrics, requests = [], {}, []
        for name, task in self._tasks.items():
            lines = found["samples"][name]
            lines = [one for one in lines if one["filter"] == lines[0]["filter"]]
            metrics[metric := _metric(name, task, lines)] = None
            records += [_record(name, task, one, metric) for one in lines]
            requests += [repr([one[key] for key in _REQUEST_KEYS]) for one in lines]
        return records, ", ".join(metrics), requests


_REQUEST_KEYS = ("doc_hash", "arguments", "target")


def _metric(name: str, task: Any, lines: list[dict[str, Any]]) -> str:
    """`acc_norm` or else the first metric that is 0 or 1 for each question, where 1 is better."""
    better, names = task.higher_is_better(), lines[0]["metrics"]
    for metric in sorted(names, key=lambda metric: metric != "acc_norm"):
        values = [one[metric] for one in lines]
        if better.get(metric, True) and all(np.ndim(x) == 0 and x in (0, 1) for x in values):
            return metric
    raise UserError(
        f"benchmarks: no metric of the task {name} ({', '.join(names)}) says of each question "
        "whether it is answered correctly: remove the task."
    )


def _record(name: str, task: Any, one: dict[str, Any], metric: str) -> dict[str, Any]:
    """A graded answer; of scored options, the log-likelihood of each is the output."""
    text, target, options = task.doc_to_text(one["doc"]), one["target"], []
    output, extracted = one["resps"][0][0], str(one["filtered_resps"][0])
    if isinstance(output, tuple):
        options = [str(request[1]).strip() for request in one["arguments"]]
        pairs = zip(one["resps"], options, strict=True)
        output, extracted = "\n".join(f"{r[0][0]:.3f} nats: {option}" for r, option in pairs), None
    return {
        "id": f"{name}/{one['doc_id']}",
        "question": text if isinstance(text, str) else str(one["arguments"][0][0]),
        "choices": tuple(options),
        "reference": options[target] if options and isinstance(target, int) else str(target),
        "kind": "lm_eval",
        "output": str(output),
        "extracted": extracted,
        "correct": bool(one[metric]),
        "rule": metric,
    }


class _Factory(TaskFactory):
    """Reads data sets from `hub_root`, if it has them, and stops before code is imported."""

    def __init__(self, run_code: bool, hub_root: Path | None) -> None:
        super().__init__()
        self._run_code, self._root = run_code, hub_root

    def _load_full_config(self, entry: Any, overrides: Any = None) -> dict[str, Any]:
        if (entry.cfg or {}).get("unsafe_code") and not self._run_code:
            raise UserError(
                f"benchmarks: {entry.name} runs the code that the model writes, as your user and "
                "without a sandbox. If this machine may run it, set evaluator.run_code=true."
            )
        config = super()._load_full_config(entry, overrides)
        local = self._root and self._root / str(config.get("dataset_path"))
        if local and local.is_dir():
            config["dataset_path"] = str(local)
        return config


def _stand_in(tokenizer: Any) -> Any:
    """A model without weights that gives the same answer to every request."""
    model: Any = DummyLM()
    model.generate_until = lambda requests: [_ANSWER] * len(requests)
    known: Any = SimpleNamespace(tokenizer=tokenizer, chat_template_args={})
    model.apply_chat_template = partial(HFLM.apply_chat_template, known)
    return model
