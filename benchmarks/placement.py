"""Placement of the paper's grid on 1, 8, 64 and 1,000 simulated engines, by the real core, in virtual time.

    python -m benchmarks.placement

30 variants of 6 shapes, 69,120 draws with heavy-tailed lengths; engines take 60 s to start, 8 s to swap, patches 90 s.
`fewest`: the fewest loads with which equal variants can keep all engines busy to the end (McNaughton 1959: they are laid
end to end and cut into engines, V + E - gcd(V, E)), or one per engine where engines are more: there each loads once.
`decision`: real time of the core per command, whatever event it follows.
"""

import math
import statistics

from benchmarks.fleet import (
    MODELS,
    SHORTENED_VARIANTS,
    WHOLE_VARIANTS,
    Speeds,
    VirtualFleet,
    lengths,
    lower_bound,
    paper_core,
)


def main() -> None:
    speeds, length_of = Speeds(), lengths()
    variants = MODELS * (WHOLE_VARIANTS + SHORTENED_VARIANTS)
    print(f"{'engines':>8}{'makespan':>12}{'bound':>12}{'ratio':>8}{'swaps':>7}{'fewest':>8}{'ratio':>7}{'starts':>8}"
          f"{'decision':>11}{'p99':>9}{'max':>9}  bound by")  # fmt: skip
    for engines in (1, 8, 64, 1000):
        outcome = VirtualFleet(paper_core(engines), speeds, length_of).run()
        bound, why = lower_bound(engines, speeds, length_of)
        fewest = variants + engines - math.gcd(variants, engines) if variants > engines else engines
        taken = sorted(outcome.decisions)
        print(
            f"{engines:>8}{outcome.last_commit:>10.0f} s{bound:>10.0f} s{outcome.last_commit / bound:>8.3f}"
            f"{outcome.swaps:>7}{fewest:>8}{outcome.swaps / fewest:>7.2f}{outcome.starts:>8}"
            f"{statistics.mean(taken) * 1e6:>8.0f} µs{taken[int(len(taken) * 0.99)] * 1e6:>6.0f} µs"
            f"{taken[-1] * 1e3:>6.1f} ms  {why}"
        )


if __name__ == "__main__":
    main()
