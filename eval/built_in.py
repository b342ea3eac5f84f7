"""The built-in benchmarks: where on the Hugging Face hub each is, at which commit, and what its columns mean."""

from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass

from eval.benchmark_files import FILE_FORMATS, Row
from eval.hub import cached_only, unreachable
from eval.kinds import Kind

USUAL_TOKENS = 4_000
"""Typical thinking tokens of a benchmark of which nothing is known."""


@dataclass(frozen=True)
class HubDataset:
    """Where a built-in benchmark is on the hub, and what its columns are called.

    `count` is the number of rows of the pinned revision; another number means other data. `id` None numbers the rows.
    `incorrect` names the columns of wrong choices. `answer_after`: the gold is what follows the last of this mark in
    the answer, a worked solution; empty where the answer is the gold itself. `typical_tokens` are the thinking tokens
    of 7–8 B reasoning models, roughly: only their order is relied on.
    """

    hub_id: str
    revision: str
    split: str
    count: int
    kind: Kind
    problem: str
    answer: str
    id: str | None
    config: str | None = None
    incorrect: tuple[str, ...] = ()
    answer_after: str = ""
    gated: bool = False
    typical_tokens: int = USUAL_TOKENS


# Revisions are full commit ids, each cross-checked against at least two public projects that pin the same data. GSM8K:
# UK AISI's inspect_evals pins this commit, and a public report of lm-evaluation-harness counts 1,319 rows of it. SVAMP:
# Marin's task curation pins this commit, and a public training script expects 300 test rows of it. In the authors' own
# repositories all 1,319 answers of GSM8K's test split and all 1,000 of SVAMP are whole numbers, and SVAMP's ids differ.
BUILT_IN: dict[str, HubDataset] = {
    "MATH-500": HubDataset(
        hub_id="HuggingFaceH4/MATH-500", revision="6e4ed1a2a79af7d8630a6b768ec859cb5af4d3be", split="test",
        count=500, kind="math", problem="problem", answer="answer", id="unique_id",
        typical_tokens=3_500,
    ),
    "AIME24": HubDataset(
        hub_id="HuggingFaceH4/aime_2024", revision="2fe88a2f1091d5048c0f36abc874fb997b3dd99a", split="train",
        count=30, kind="integer", problem="problem", answer="answer", id="id", typical_tokens=10_000,
    ),
    "AIME25": HubDataset(
        hub_id="math-ai/aime25", revision="563bb8404243c5f09de6ec262f2db674fe5bce9b", split="test",
        count=30, kind="integer", problem="problem", answer="answer", id="id", typical_tokens=10_000,
    ),
    "AMC23": HubDataset(
        hub_id="math-ai/amc23", revision="80815d37005feb82cd7f8fbc6901d5d3eff43057", split="test",
        count=40, kind="integer", problem="question", answer="answer", id="id", typical_tokens=6_000,
    ),
    "GPQA-Diamond": HubDataset(
        hub_id="Idavidrein/gpqa", revision="633f5ee89ab8ad4522a9f850766b73f62147ffdd", split="train",
        config="gpqa_diamond", count=198, kind="choice", problem="Question", answer="Correct Answer",
        incorrect=("Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3"),
        id="Record ID", gated=True, typical_tokens=6_000,
    ),
    "GSM8K": HubDataset(
        hub_id="openai/gsm8k", revision="cc7b047b6e5bb11b4f1af84efc572db110a51b3c", split="test", config="main",
        count=1319, kind="integer", problem="question", answer="answer", answer_after="####", id=None,
        typical_tokens=1_500,
    ),
    "SVAMP": HubDataset(
        hub_id="ChilleD/SVAMP", revision="5e0bf1e5e7c0e9c4bc39180d224f41f3f801b7ef", split="test",
        count=300, kind="integer", problem="question_concat", answer="Answer", id="ID", typical_tokens=800,
    ),
}  # fmt: skip


def built_in_name(name: str) -> str | None:
    """The name of a built-in benchmark, however it is capitalized; None if there is none of this name."""
    return next((known for known in BUILT_IN if known.lower() == name.lower()), None)


def read_hub(name: str, dataset: HubDataset) -> Iterable[Row]:
    """The rows of a built-in benchmark, from the hub or its local cache. Raises `ValueError` that says how to go on."""
    from datasets import DownloadConfig, load_dataset
    from datasets.exceptions import DatasetNotFoundError

    offline = unreachable()
    try:
        with cached_only() if offline else nullcontext():
            data = load_dataset(
                dataset.hub_id, dataset.config, split=dataset.split, revision=dataset.revision,
                download_config=DownloadConfig(max_retries=2),
            )  # fmt: skip
    except (OSError, DatasetNotFoundError, ValueError) as error:  # no network, no access, no such cached copy
        cause = f"it is not in the local Hugging Face cache, and {offline}" if offline else str(error).splitlines()[0]
        access = (
            f" {dataset.hub_id} is gated: accept its terms on its page while logged in, and set HF_TOKEN."
            if dataset.gated
            else ""
        )
        raise ValueError(
            f"benchmark {name}: {dataset.hub_id} (revision {dataset.revision[:8]}, split {dataset.split}) "
            f"could not be loaded: {cause}.{access} Without the hub, write "
            f"{name}=PATH with a local copy ({', '.join(FILE_FORMATS)}) that has its columns: "
            f"{', '.join(filter(None, (dataset.id, dataset.problem, dataset.answer, *dataset.incorrect)))}."
        ) from error
    return list(data)
