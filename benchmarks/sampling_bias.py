"""Is sampling unbiased? The mean of negative log-likelihood minus entropy over sampled tokens must be 0.

    python -m eval examples/smollm2/model --benchmark examples/smollm2/problems.jsonl --budget none --limits 128 \
        --temperature 1 --seeds 0,1,2 --output /tmp/drawn
    python -m benchmarks.sampling_bias examples/smollm2/model /tmp/drawn

For tokens drawn from p, E[-log p(token)] is p's entropy, whatever the tokens before it were; so each token's difference
has mean 0, and their sum is a martingale, with the standard error of independent differences. p is what transformers
computes in the checkpoint's dtype. Draws must be made at temperature 1 without filters. A sampler that prefers likely
tokens (top-k left on, a temperature below 1) has a mean below 0. Exit status 1 beyond 2 standard errors.
"""

import argparse
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from orchestrator.store.store import load_draws


@torch.no_grad()
def differences(model: AutoModelForCausalLM, prompt: list[int], trace: list[int]) -> torch.Tensor:
    """Negative log-likelihood minus entropy, in nats, of each token of a trace: float64 [tokens]."""
    ids = torch.tensor([prompt + trace])
    logprobs = model(ids).logits[0, len(prompt) - 1 : -1].double().log_softmax(dim=-1)
    entropy = -(logprobs.exp() * logprobs).sum(dim=-1)
    return -logprobs.gather(1, torch.tensor(trace)[:, None])[:, 0] - entropy


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("store", help="where the draws are")
    options = parser.parse_args()
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype="auto").eval()
    rows = load_draws(options.store, ["prompt_ids", "trace_ids"]).to_pylist()
    got = torch.cat([differences(model, row["prompt_ids"], row["trace_ids"]) for row in rows])
    error = got.std() / len(got) ** 0.5
    print(f"{len(got):,} tokens of {len(rows):,} draws: {got.mean():+.4f} nats, standard error {error:.4f}")
    return int(abs(got.mean()) > 2 * error)


if __name__ == "__main__":
    sys.exit(main())
