"""The loop: what becomes of faulty steps and of what does not fit."""

from __future__ import annotations

import dataclasses

import pytest

from cai.backends import scripted
from cai.engine import Completion, Request, Sampling
from cai.errors import ContextOverflow, PromptRefused
from tests.stages.loop import PROMPTS, Model, go, plan, text_of


def test_a_faulty_step_is_drawn_again_with_another_seed_and_kept() -> None:
    broken = "Revised answer: cut off in the middle of"
    seen: list[int] = []

    def answer(request: Request) -> str | None:
        if request.model != "reviser":
            return None
        seen.append(request.seed)
        return broken if len(seen) == 1 else None

    model = Model(answer)
    chain = go(plan(rounds=1), PROMPTS[0], model)
    revision = chain.responses[1]
    assert len(set(seen)) == 2
    assert revision.flags == ()
    assert revision.sampling["seed"] == seen[1]
    (attempt,) = revision.attempts
    assert (attempt["step"], attempt["text"], attempt["finish_reason"]) == ("revision", broken, "length")
    assert "truncated" in attempt["flags"]
    said = [*model.of("critic"), *model.of("reviser")]
    assert len(said) == 3
    assert revision.tokens > len(broken.split())
    assert chain.quarantined is None


def test_a_faulty_revision_is_kept_but_not_passed_on() -> None:
    def answer(request: Request) -> str | None:
        first = request.model == "reviser" and len([r for r in model.asked if r.model == "critic"]) == 1
        return "cut in the middle of" if first else None

    model = Model(answer)
    chain = go(plan(rounds=3), PROMPTS[0], model)
    draft, faulty, second, third = chain.responses
    assert "truncated" in faulty.flags
    assert (faulty.parent_id, second.parent_id, third.parent_id) == (draft.id, draft.id, second.id)
    assert draft.text in text_of(model.of("critic")[1])
    assert faulty.text not in text_of(model.of("critic")[1])
    assert chain.quarantined is None


def test_no_clean_revision_is_quarantined_with_everything_that_was_tried() -> None:
    chain = go(plan(retries=2), PROMPTS[0], Model(lambda r: "cut off in" if r.model == "reviser" else None))
    assert chain.quarantined is not None
    assert (chain.quarantined.id, chain.quarantined.reason) == (PROMPTS[0].id, "no_clean_revision")
    assert "truncated" in chain.quarantined.detail
    assert chain.quarantined.input == PROMPTS[0].row()
    assert [len(response.attempts) for response in chain.responses] == [0, 2, 2]  # the last try is the response itself


def test_an_empty_draft_is_quarantined_and_a_cut_one_is_revised() -> None:
    empty = go(plan(), PROMPTS[0], Model(lambda request: ""))
    assert empty.quarantined is not None
    assert empty.quarantined.reason == "faulty_draft"
    assert [response.round for response in empty.responses] == [0]
    model = Model(lambda request: "The draft was cut in" if request.model == "policy" else None)
    cut = go(plan(), PROMPTS[0], model)
    assert cut.quarantined is None
    assert cut.responses[0].flags == ("truncated",)
    assert len(model.of("policy")) == 1
    helpful = go(plan(), dataclasses.replace(PROMPTS[0], tags=("helpful",)), model)
    assert helpful.quarantined is not None
    assert len(helpful.responses[0].attempts) == 1


def test_a_clumsy_critique_is_used_and_an_empty_one_asked_again() -> None:
    cut = Model(lambda request: "The answer is cut" if request.model == "critic" else None)
    chain = go(plan(rounds=1), PROMPTS[0], cut)
    assert chain.quarantined is None
    assert chain.responses[1].critique_flags == ("truncated",)
    assert len(cut.of("critic")) == 1
    empty = Model(lambda request: "" if request.model == "critic" else None)
    chain = go(plan(rounds=1), PROMPTS[0], empty)
    assert len(empty.of("critic")) == 2
    assert [attempt["step"] for attempt in chain.responses[1].attempts] == ["critique"]
    assert chain.responses[1].flags == ("no_critique",)


SAYS_NOTHING = {"empty": "", "bare_refusal": "I'm sorry, but I can't help with that.", "response_copied": "COPY"}


@pytest.mark.parametrize("flag", SAYS_NOTHING)
def test_a_critique_that_says_nothing_skips_its_round(flag: str) -> None:
    draft = " ".join(f"Look after part {n} of the boat with great care." for n in "abcdefgh")

    def answer(request: Request) -> str | None:
        if request.model == "policy":
            return draft
        first = len(model.of("reviser")) == 0 and len(model.of("critic")) <= 2
        return SAYS_NOTHING[flag].replace("COPY", draft) if request.model == "critic" and first else None

    model = Model(answer)
    chain = go(plan(rounds=2), PROMPTS[0], model)
    assert [request.model for request in model.asked] == ["policy", "critic", "critic", "critic", "reviser"]
    start, skipped, revision = chain.responses
    assert (skipped.round, skipped.text, skipped.flags, skipped.model) == (1, "", ("no_critique",), "")
    assert flag in skipped.critique_flags
    assert [attempt["step"] for attempt in skipped.attempts] == ["critique"]
    assert skipped.tokens == 2 * len((skipped.critique or "").split())
    assert (skipped.parent_id, revision.parent_id) == (start.id, start.id)
    assert revision.flags == ()
    assert chain.quarantined is None


def test_without_any_critique_there_is_no_revision() -> None:
    chain = go(plan(rounds=2), PROMPTS[0], Model(lambda request: "" if request.model == "critic" else None))
    assert [response.flags for response in chain.responses] == [(), ("no_critique",), ("no_critique",)]
    assert chain.quarantined is not None
    assert (chain.quarantined.reason, "no_critique" in chain.quarantined.detail) == ("no_clean_revision", True)


def test_a_bare_refusal_is_drawn_again_and_not_passed_on() -> None:
    model = Model(lambda request: "I can't help with that." if request.model == "reviser" else None)
    chain = go(plan(rounds=1), PROMPTS[0], model)
    assert chain.responses[1].flags == ("bare_refusal", "refusal")
    assert len(model.of("reviser")) == 2
    assert chain.quarantined is not None
    refusing = Model(lambda request: "I can't help with that." if request.model == "policy" else None)
    assert go(plan(rounds=1), PROMPTS[0], refusing).quarantined is None  # a draft that refuses is revised


class Narrow(Model):
    """Does not take the `full`th request, nor any after it."""

    def __init__(self, full: int) -> None:
        super().__init__()
        self._full = full

    async def generate(self, request: Request) -> Completion:
        if len(self.asked) >= self._full:
            raise ContextOverflow("9 prompt tokens and 1 new ones do not fit in 9")
        return await super().generate(request)


@pytest.mark.parametrize(("full", "critique"), [(3, False), (4, True)])
def test_what_does_not_fit_in_a_later_round_leaves_the_rounds_before(full: int, critique: bool) -> None:
    model = Narrow(full)
    chain = go(plan(rounds=4), PROMPTS[0], model)
    draft, revision, skipped = chain.responses
    assert (revision.flags, revision.parent_id) == ((), draft.id)
    assert (skipped.round, skipped.text, skipped.flags, skipped.parent_id) == (2, "", ("too_long",), revision.id)
    assert (skipped.critique is not None) is critique
    assert (skipped.tokens > 0) is critique
    assert chain.quarantined is None


def test_what_does_not_fit_before_any_revision_is_quarantined_with_what_there_is() -> None:
    chain = go(plan(), PROMPTS[0], Narrow(2))
    assert [response.flags for response in chain.responses] == [(), ("too_long",)]
    assert chain.responses[1].critique
    assert chain.quarantined is not None
    assert (chain.quarantined.reason, "do not fit in 9" in chain.quarantined.detail) == ("too_long", True)


class Filtered(Model):
    """Refuses its requests of these numbers, from 1."""

    def __init__(self, *refused: int) -> None:
        super().__init__()
        self._refused, self._number = refused, 0

    async def generate(self, request: Request) -> Completion:
        self._number += 1
        if self._number in self._refused:
            raise PromptRefused("a filter does not like it")
        return await super().generate(request)


def test_a_refused_round_is_skipped_and_those_around_it_stay() -> None:
    chain = go(plan(rounds=3, critique=False), PROMPTS[0], Filtered(3))
    draft, first, skipped, last = chain.responses
    assert (skipped.text, skipped.flags, skipped.parent_id) == ("", ("refused",), first.id)
    assert (first.parent_id, last.parent_id, last.flags) == (draft.id, first.id, ())
    assert chain.quarantined is None


def test_a_row_without_a_revision_whose_last_round_was_refused_can_be_asked_again() -> None:
    chain = go(plan(rounds=1), PROMPTS[0], Filtered(2))
    assert [response.flags for response in chain.responses] == [(), ("refused",)]
    assert chain.quarantined is not None
    assert (chain.quarantined.reason, "round 1 was refused" in chain.quarantined.detail) == ("backend", True)


def test_a_refused_draft_leaves_the_other_drafts_of_a_prompt_that_is_only_answered() -> None:
    chain = go(plan(rounds=0, unrevised_samples=3), PROMPTS[0], Filtered(2))
    assert [response.flags for response in chain.responses] == [(), ("refused",), ()]
    assert chain.quarantined is None
    with pytest.raises(PromptRefused):
        go(plan(rounds=0, unrevised_samples=2), PROMPTS[0], Filtered(1, 2))


def test_at_temperature_0_nothing_is_drawn_again() -> None:
    model = Model(lambda request: "" if request.model == "policy" else None)
    go(plan(retries=3, draft=Sampling(temperature=0)), PROMPTS[0], model)
    assert len(model.of("policy")) == 1


def test_what_does_not_fit_ends_the_row() -> None:
    model = scripted.build(scripted.Config(context=16), seed=0)
    with pytest.raises(ContextOverflow) as caught:
        go(plan(), PROMPTS[0], model)
    assert not caught.value.ends_run
