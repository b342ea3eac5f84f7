"""Placement of the paper's grid on 1 to 1,000 simulated engines, by the real core, in virtual time.

    python -m benchmarks.placement

30 variants of 6 shapes, 69,120 draws with heavy-tailed lengths; engines take 60 s to start, 8 s to swap, patches 90 s.
Means over three sets of lengths, the worst in brackets.

- `bound`: no schedule ends before.
- `foreseeing`: the bound, where decoding is that of a fleet which has every question's mean length from the start,
  takes the longest first, and neither waits nor swaps. What lies between is chance, which no order of work undoes.
- `swaps`: loads of a variant into an engine, the first included, beside two numbers: one for every variant and for
  every engine, the fewest of any schedule that uses all; and the fewest with which equal variants keep all engines busy
  to the end (McNaughton 1959: laid end to end and cut into engines, V + E - gcd(V, E)).
- `decision`: real time of the core per command.
"""

import heapq
import math
import statistics
from collections.abc import Sequence

from benchmarks.fleet import (
    MODELS,
    SHORTENED_VARIANTS,
    WHOLE_VARIANTS,
    Outcome,
    Speeds,
    VirtualFleet,
    lengths,
    lower_bound,
    paper_core,
)

SEEDS = (0, 1, 2)


def main() -> None:
    speeds = Speeds()
    variants = MODELS * (WHOLE_VARIANTS + SHORTENED_VARIANTS)
    print(f"{'engines':>8}{'bound':>9}{'makespan / bound':>18}{'foreseeing':>12}{'swaps':>8}{'(fewest, busy)':>16}"
          f"{'starts':>8}{'decision':>10}{'p99':>9}{'max':>9}  bound by")  # fmt: skip
    for engines in (1, 8, 16, 32, 56, 64, 1000):
        fewest, busy = max(variants, engines), variants + engines - math.gcd(variants, engines)
        ratios, foreseen, outcomes, taken = [], [], [], []
        for seed in SEEDS:
            length_of = lengths(seed)
            outcome: Outcome = VirtualFleet(paper_core(engines), speeds, length_of).run()
            bound, why = lower_bound(engines, speeds, length_of)
            ratios.append(outcome.last_commit / bound)
            foreseen.append(max(1.0, 1 + lost_to_chance(engines, speeds, length_of) / bound) if why == "work" else 1.0)
            outcomes.append(outcome)
            taken += outcome.decisions
        taken.sort()
        swaps = statistics.mean(outcome.swaps for outcome in outcomes)
        print(
            f"{engines:>8}{bound:>7.0f} s{statistics.mean(ratios):>10.3f} ({max(ratios):.3f})"
            f"{statistics.mean(foreseen):>12.3f}{swaps:>8.0f}{f'({fewest}, {busy})':>16}"
            f"{statistics.mean(outcome.starts for outcome in outcomes):>8.0f}{statistics.mean(taken) * 1e6:>7.0f} µs"
            f"{taken[int(len(taken) * 0.99)] * 1e6:>6.0f} µs{taken[-1] * 1e3:>6.2f} ms  {why}",
            flush=True,
        )


def lost_to_chance(engines: int, speeds: Speeds, length_of: Sequence[Sequence[int]]) -> float:
    """Seconds by which longest-mean-first, on all slots at once, ends after slots that are all busy alike would."""
    slots = [0.0] * (engines * speeds.slots)
    for of_question in sorted(length_of, key=lambda lengths: -sum(lengths)):
        for tokens in of_question:
            heapq.heappush(slots, heapq.heappop(slots) + tokens * speeds.step)
    return max(slots) - sum(slots) / len(slots)


if __name__ == "__main__":
    main()
