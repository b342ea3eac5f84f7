"""What a researcher would write without this project: one fresh vLLM engine per (checkpoint, token limit), two phases.

    python -m benchmarks.baselines.straightforward CHECKPOINT LIMIT ANSWER_TOKENS BENCHMARK.jsonl...

Prints one JSON object: accuracy by benchmark, tokens generated, seconds. `benchmarks/sweep.py` runs it in a loop. It is
vLLM's own offline interface, batched as vLLM likes it; prompts and grading are this project's, so that answers compare.
"""

import json
import os
import sys
import time

os.environ |= {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_LOGGING_LEVEL": "ERROR",
}

from eval.benchmarks import load_benchmark
from eval.grader_pool import GraderPool
from eval.grading import GradeItem
from eval.prompts import ChatTokenizer, prompt_ids
from eval.spec import PromptSpec


def main(checkpoint: str, limit: int, answer_tokens: int, files: list[str]) -> None:
    """Think up to `limit`, force an answer, grade."""
    began = time.monotonic()
    from vllm import LLM, SamplingParams, TokensPrompt

    llm = LLM(
        model=checkpoint, enforce_eager=True, kv_cache_memory_bytes=256 << 20, max_model_len=512, max_num_seqs=64,
        enable_chunked_prefill=False, max_num_batched_tokens=4096, generation_config="vllm",
    )  # fmt: skip
    tokenizer = ChatTokenizer.load(checkpoint)
    end, eos = tokenizer.token_id("</think>"), sorted(tokenizer.eos_ids)
    assert end is not None
    problems = [(load_benchmark(file).name, problem) for file in files for problem in load_benchmark(file).problems]
    prompts = [list(prompt_ids(tokenizer, problem, PromptSpec())) for _, problem in problems]

    def generate(inputs: list[list[int]], tokens: int, stops: list[int]) -> list[list[int]]:
        params = SamplingParams(temperature=0.0, max_tokens=tokens, stop_token_ids=stops, ignore_eos=True)
        outputs = llm.generate([TokensPrompt(prompt_token_ids=ids) for ids in inputs], params, use_tqdm=False)
        return [list(output.outputs[0].token_ids) for output in outputs]

    thinking = generate(prompts, limit, [*eos, end])
    inputs = [
        prompt + trace + ([] if trace[-1] == end else [end]) for prompt, trace in zip(prompts, thinking, strict=True)
    ]
    answers = generate(inputs, answer_tokens, eos)
    with GraderPool(workers=1) as pool:
        items = [
            GradeItem(tokenizer.decode([t for t in ids if t not in eos]), problem.answer, problem.kind)
            for ids, (_, problem) in zip(answers, problems, strict=True)
        ]
        grades = pool.grade_many(items)
    right: dict[str, list[bool]] = {}
    for (name, _), grade in zip(problems, grades, strict=True):
        right.setdefault(name, []).append(grade.verdict == "CORRECT")
    print(
        json.dumps(
            {
                "accuracy": {name: sum(flags) / len(flags) for name, flags in right.items()},
                "tokens": sum(map(len, thinking)) + sum(map(len, answers)),
                "seconds": time.monotonic() - began,
            }
        )
    )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
