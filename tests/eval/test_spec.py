"""Settings: every rule is enforced with the setting's name and a remedy."""

import pytest

from eval.spec import (
    PromptSpec,
    SamplingSpec,
    check_limits,
    check_prompt,
    check_sampling,
    nearest,
)


def test_the_papers_settings_pass():
    check_sampling(SamplingSpec(1.0, seeds=(7, 11, 42)))
    check_sampling(SamplingSpec(0.0))
    check_prompt(PromptSpec())
    check_prompt(PromptSpec("boxed", system="Be brief."))
    check_limits((0, 512, 8192))


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [
        (SamplingSpec(-0.1), "sampling.temperature is -0.1"),
        (SamplingSpec(float("nan")), "sampling.temperature is nan"),
        (SamplingSpec(1.0, top_p=0.0), "sampling.top_p"),
        (SamplingSpec(1.0, top_k=-1), r"sampling.top_k is -1.*Use 0"),
        (SamplingSpec(1.0, min_p=1.0), "sampling.min_p"),
        (SamplingSpec(1.0, seeds=()), "a draw needs a seed"),
        (SamplingSpec(1.0, seeds=(True,)), "sampling.seeds is True"),
        (SamplingSpec(1.0, seeds=(2**32,)), "whole numbers from 0 to 4294967295"),
        (SamplingSpec(1.0, seeds=(7, 7)), "same draw twice"),
        (SamplingSpec(0.0, seeds=(7, 11)), "greedy decoding gives the same draw for every seed"),
    ],
)
def test_sampling_rules(spec, complaint):
    with pytest.raises(ValueError, match=complaint):
        check_sampling(spec)


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [
        (PromptSpec("boxd"), "Did you mean 'boxed'"),
        (PromptSpec("bare", "{problem}"), "Keep one of the two"),
        (PromptSpec(template="Solve it"), r"does not contain \{problem\}"),
    ],
)
def test_prompt_rules(spec, complaint):
    with pytest.raises(ValueError, match=complaint):
        check_prompt(spec)


@pytest.mark.parametrize(("limits", "complaint"), [((), "at least one"), ((-1,), "counts tokens"), ((8, 8), "twice")])
def test_limit_rules(limits, complaint):
    with pytest.raises(ValueError, match=complaint):
        check_limits(limits)


def test_nearest_is_silent_when_nothing_is_near():
    assert nearest("zzz", ["abc"]) == ""
    assert nearest("ABX", ["abc"]) == " Did you mean 'abc'?"
