"""A deterministic stand-in for an engine, for tests of everything around it: no device, no weights.

A completion is a pure function of the variant (the patch folder's name), the prompt, the seed and the stops; a larger
`max_tokens` only cuts later. So shared and independent decoding agree token for token, and a disturbed sweep can be
compared with an undisturbed one. Trace lengths have a heavy tail, as in reasoning; an answer is a boxed digit.

Time is virtual unless `Latency.real`. What was generated, and which faults have happened, is recorded in files of the
`ledger` folder, over all engines of a sweep and all their processes.
"""

import hashlib
import json
import math
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Literal

from eval.draws import Ask, Completion
from eval.prompts import ChatTokenizer
from eval.spec import SamplingSpec
from workers.engines.engine import Capacity, EngineFault, EngineSettings, Finished, Proof, VariantFault
from workers.failure import Failure, FailureKind

SEQUENCES = 128
"""Decoded at once where the settings leave it open."""
THOUGHTS = "0123456789+-*=;"
STALLED_STEP_SECONDS = 0.02
"""How long a step of a stalled engine takes."""


@dataclass(frozen=True)
class Latency:
    """Durations in seconds. Added up in `ScriptedEngine.seconds`; slept only if `real`."""

    start: float = 0.0
    swap: float = 0.0
    step: float = 0.0
    tokens_per_step: int = 32
    real: bool = False


@dataclass(frozen=True)
class Die:
    """The engine is lost at its `at_ask`-th ask (from 1), or at any ask whose prompt begins with `prompt`."""

    at_ask: int | None = None
    prompt: tuple[int, ...] = ()
    times: int | None = None
    """How often in the whole sweep, over all engines; None for always."""

    def is_due(self, asks: int, ask: Ask) -> bool:
        """Whether this fault happens at `ask`, the `asks`-th of an engine."""
        begins = bool(self.prompt) and ask.prompt_ids[: len(self.prompt)] == self.prompt
        return begins or self.at_ask == asks


@dataclass(frozen=True)
class SpoilSwap:
    """A swap to `patch` fails: its weights produce NaN ("nan"), its canary differs though its weights are in place
    ("canary"), or the swap cannot be proved ("proof")."""

    patch: str
    kind: Literal["nan", "canary", "proof"]
    times: int | None = None


@dataclass(frozen=True)
class Stall:
    """From its `at_ask`-th ask on (from 1) the engine steps without an error but generates nothing."""

    at_ask: int
    times: int | None = None


Fault = Die | SpoilSwap | Stall


@dataclass(frozen=True)
class Generated:
    """A completion that an engine has made."""

    variant: str
    ask: str
    prompt_ids: tuple[int, ...]
    seed: int
    tokens: int


@dataclass(frozen=True)
class ScriptedEngines:
    """Starts scripted engines, in the place of `start_vllm`. It pickles."""

    ledger: str
    """A folder for this sweep only; see the module's docstring."""
    faults: tuple[Fault, ...] = ()
    latency: Latency = Latency()
    typical_length: int = 12
    """About the median length of a trace that is not cut, in tokens."""
    tail: float = 1.2
    """The exponent of the Pareto distribution of lengths: smaller has a heavier tail."""
    cache_tokens: int = 10**6
    """For how many tokens an engine says that its cache has room."""
    answers: tuple[str, ...] = ()
    """What an answer is, by chance one of these, instead of a few random tokens and a boxed digit."""

    def __call__(self, base: Path, layers: int, settings: EngineSettings) -> "ScriptedEngine":
        return ScriptedEngine(base, settings, self)

    def generated(self) -> list[Generated]:
        """Every completion of this ledger's engines so far, in no particular order.

        A line without an end is still being written, or its engine was killed meanwhile: not a completion yet.
        """
        lines = [line for file in Path(self.ledger).glob("*.jsonl") for line in file.open() if line.endswith("\n")]
        return [Generated(**(one | {"prompt_ids": tuple(one["prompt_ids"])})) for one in map(json.loads, lines)]

    def happens(self, fault: Fault) -> bool:
        """Whether a fault that is due happens: False once it has happened `times` times. Counts this time."""
        if fault.times is None:
            return True
        name = hashlib.sha256(repr(fault).encode()).hexdigest()[:16]
        return any(_created(Path(self.ledger, f"{name}-{number}.happened")) for number in range(fault.times))


class ScriptedEngine:
    """One engine. See `workers.engines.engine.Engine`."""

    def __init__(self, base: Path, settings: EngineSettings, script: ScriptedEngines) -> None:
        self._script, self._settings = script, settings
        self._codec = ChatTokenizer.load(base)
        self._thoughts = [self._codec.encode(character)[0] for character in THOUGHTS]
        self._variant = ""
        self._active: dict[str, tuple[Ask, Completion, int]] = {}
        """Name -> (ask, its completion, the steps until that comes out)."""
        self._death: Failure | None = None
        self._stalled = False
        self._asks = self._generated = 0
        self.seconds = 0.0
        Path(script.ledger).mkdir(parents=True, exist_ok=True)
        self._file = Path(script.ledger, f"{uuid.uuid4().hex}.jsonl")
        self._spend(script.latency.start)

    def load(self, base: Path, patch: Path) -> Proof:
        """Become the variant that the patch folder is named after. See `workers.engines.engine.Engine.load`."""
        assert not self._active, "weights were to be swapped while asks were in flight"
        self._spend(self._script.latency.swap)
        for fault in self._script.faults:
            if isinstance(fault, SpoilSwap) and fault.patch == patch.name and self._script.happens(fault):
                failure = Failure(FailureKind(fault.kind), f"the swap to {patch.name} fails, as scripted")
                raise EngineFault(failure) if fault.kind == "proof" else VariantFault(failure)
        self._variant = patch.name
        return Proof(hashlib.sha256(patch.name.encode()).hexdigest(), 0.0)

    def submit(self, name: str, ask: Ask, sampling: SamplingSpec, rank: int = 0) -> None:
        """Begin one ask; a fault that it triggers shows in the next step."""
        assert name not in self._active, f"ask {name} is in flight already"
        if len(ask.prompt_ids) >= (context := self._settings.context_length):
            raise ValueError(f"a prompt of {len(ask.prompt_ids)} tokens fills the context of {context}")
        self._asks += 1
        for fault in self._script.faults:
            if isinstance(fault, Die) and fault.is_due(self._asks, ask) and self._script.happens(fault):
                self._death = Failure(FailureKind.ENGINE_LOST, f"died at ask {self._asks}, as scripted")
            elif isinstance(fault, Stall) and fault.at_ask == self._asks and self._script.happens(fault):
                self._stalled = True
        seed = ask.seed if sampling.temperature > 0 else 0
        completion = self._complete(ask, seed)
        steps = math.ceil(len(completion.token_ids) / self._script.latency.tokens_per_step)
        self._active[name] = (ask, completion, steps)

    def step(self) -> Sequence[Finished]:
        """Advance every ask in flight by `tokens_per_step`; return those that are complete."""
        self._spend(self._script.latency.step)
        if self._death is not None:
            raise EngineFault(self._death)
        if self._stalled:
            time.sleep(STALLED_STEP_SECONDS)
            return []
        self._generated += len(self._active) * self._script.latency.tokens_per_step
        self._active = {name: (ask, made, left - 1) for name, (ask, made, left) in self._active.items()}
        finished = {name: (ask, made) for name, (ask, made, left) in self._active.items() if left <= 0}
        self.cancel(list(finished))
        self._record(finished.values())
        return [Finished(name, made, len(ask.prompt_ids), 0) for name, (ask, made) in finished.items()]

    def cancel(self, names: Sequence[str]) -> None:
        for name in names:
            self._active.pop(name, None)

    def capacity(self) -> Capacity:
        return Capacity(self._settings.max_sequences or SEQUENCES, self._script.cache_tokens)

    def progress(self) -> Mapping[str, int]:
        pace = self._script.latency.tokens_per_step
        return {name: max(0, len(made.token_ids) - left * pace) for name, (_, made, left) in self._active.items()}

    def tokens_generated(self) -> int:
        return self._generated

    def settings(self) -> Mapping[str, str]:
        return {
            "engine": "scripted",
            "dtype": self._settings.dtype,
            "cache_tokens": str(self._script.cache_tokens),
        }

    def close(self) -> None:
        self._active.clear()

    def _complete(self, ask: Ask, seed: int) -> Completion:
        """Random thought tokens, then the requested stop; or a boxed digit and EOS if EOS is the only stop."""
        tail = self._script.tail
        random = Random(repr((self._variant, ask.prompt_ids, seed)))
        tags = [token for token in ask.stop_token_ids if token not in self._codec.eos_ids]
        end = tags[:1] or (self._codec.encode(ask.stop_texts[0]) if ask.stop_texts else [])
        natural = ask.min_tokens + random.randrange(3)
        if end:
            natural += int(self._script.typical_length * random.paretovariate(tail) / 2 ** (1 / tail))
        else:
            text = f"\\boxed{{{random.randrange(10)}}}"
            if self._script.answers:
                natural, text = 0, random.choice(self._script.answers)
            end = [*self._codec.encode(text), min(self._codec.eos_ids)]
        room = min(ask.max_tokens, self._settings.context_length - len(ask.prompt_ids))
        written = (*random.choices(self._thoughts, k=min(natural, room)), *end)
        whole = len(written) <= room and natural <= room
        return Completion(tuple(written[:room]), "stop" if whole else "length")

    def _record(self, made: Iterable[tuple[Ask, Completion]]) -> None:
        with self._file.open("a") as file:
            for ask, done in made:
                one = Generated(self._variant, ask.name, ask.prompt_ids, ask.seed, len(done.token_ids))
                file.write(json.dumps(asdict(one)) + "\n")

    def _spend(self, seconds: float) -> None:
        self.seconds += seconds
        if self._script.latency.real and seconds:
            time.sleep(seconds)


def _created(file: Path) -> bool:
    """Whether this call created `file`: exactly one of several concurrent callers gets True."""
    try:
        file.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True
