"""The loop: what is asked in which order, what is kept, and what becomes of faulty steps."""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest

from cai.backends import scripted
from cai.constitution.draw import draw
from cai.constitution.load import Bound, Constitution, assemble
from cai.constitution.model import ConstitutionFile, Principle
from cai.engine import Backend, Completion, Engine, Request, Sampling, run_rows
from cai.errors import ContextOverflow, InputError
from cai.records import Message, Prompt
from cai.stages import revise
from cai.stages.transcript import STOPS, Transcript

SHOT = {
    "prompt": "Shot prompt?",
    "response": "Shot response.",
    "critique_request": "Shot critique request.",
    "critique": "Shot critique.",
    "revision_request": "Shot revision request.",
    "revision": "Shot revision.",
}
PROMPTS = [Prompt.make(f"How do I mend thing number {n}?") for n in range(40)]


def constitution(
    names: Sequence[str] = ("a", "b", "c"),
    *,
    words: Mapping[str, str] | None = None,
    level: str = "goal",
    levels: Mapping[str, str] | None = None,
    **parts: Any,
) -> Constitution:
    """Principles whose critique requests are `Critique NAME.` or as in `words`."""
    level_of = {name: (levels or {}).get(name, level) for name in names}
    given = [{"id": name, "level": level_of[name]} for name in names]
    file = ConstitutionFile.model_validate({"name": "test", "principles": given, **parts})
    ranks = {each.name: rank for rank, each in enumerate(file.levels)}
    bounds = []
    for name in names:
        critique = (words or {}).get(name, f"Critique {name}.")
        principle = Principle(id=name, title=name, critique=critique, revision=f"Revise {name}.")
        bounds.append(Bound(principle, 1.0, file.levels[ranks[level_of[name]]], ranks[level_of[name]]))
    return assemble(file, tuple(bounds), Path("test.yaml"))


def plan(
    of: Constitution | None = None,
    *,
    style: Literal["chat", "base"] = "chat",
    few_shot: int | None = None,
    **changes: Any,
) -> revise.Plan:
    of = of or constitution()
    critique = changes.get("critique", True)
    given: dict[str, Any] = {
        "constitution": of,
        "transcript": Transcript(of, style=style, few_shot=few_shot, critique=critique),
        "seed": 1,
        "rounds": 2,
        "principles_per_critique": 1,
        "critique": True,
        "unrevised_tags": frozenset({"helpful"}),
        "unrevised_samples": 1,
        "retries": 1,
        "draft": Sampling(max_tokens=101),
        "critic": Sampling(max_tokens=102),
        "revision": Sampling(max_tokens=103),
    }
    return revise.Plan(**(given | changes))


class Model:
    """Answers as `answer` says (None: some words of its own), and remembers what it was asked."""

    context = 1 << 30
    seats = 4

    def __init__(self, answer: Callable[[Request], str | None] = lambda request: None, name: str = "m@1") -> None:
        self.fingerprint = name
        self.asked: list[Request] = []
        self._answer = answer

    async def generate(self, request: Request) -> Completion:
        self.asked.append(request)
        text = self._answer(request)
        if text is None:
            text = " ".join(random.Random(request.seed).choices(scripted.WORDS, k=12)).capitalize() + "."
        length = len(text.split())
        return Completion(text, "length" if "cut" in text else "stop", 1, length, model=self.fingerprint)

    async def close(self) -> None:
        return None

    def of(self, role: str) -> list[Request]:
        return [request for request in self.asked if request.model == role]


def go(with_plan: revise.Plan, prompt: Prompt, model: Backend | Mapping[str, Backend]) -> revise.Chain:
    roles = model if isinstance(model, Mapping) else dict.fromkeys(("policy", "critic", "reviser"), model)
    return asyncio.run(_go(with_plan, prompt, roles))


async def _go(with_plan: revise.Plan, prompt: Prompt, roles: Mapping[str, Backend]) -> revise.Chain:
    return await revise.method(with_plan)(prompt, Engine(roles).generate)


def text_of(request: Request) -> str:
    return request.prompt if isinstance(request.prompt, str) else "\n".join(m.content for m in request.prompt)


# --- the loop itself


def test_rounds_give_a_chain_and_draw_a_principle_anew_in_each() -> None:
    drawn = set()
    for prompt in PROMPTS:
        model = Model()
        chain = go(plan(rounds=4), prompt, model)
        assert chain.quarantined is None
        assert [response.round for response in chain.responses] == [0, 1, 2, 3, 4]
        assert [request.model for request in model.asked] == ["policy", *["critic", "reviser"] * 4]
        assert [request.sampling.max_tokens for request in model.asked] == [101, *[102, 103] * 4]
        assert chain.responses[0].parent_id is None
        for before, after in zip(chain.responses, chain.responses[1:], strict=False):
            assert after.parent_id == before.id
            expected = draw(constitution(), seed=1, prompt_id=prompt.id, round=after.round)
            assert after.principle_ids == tuple(bound.id for bound in expected)
            (name,) = after.principle_ids
            assert f"Critique {name}." in text_of(model.of("critic")[after.round - 1])
            assert f"Revise {name}." in text_of(model.of("reviser")[after.round - 1])
        drawn.add(tuple(response.principle_ids for response in chain.responses[1:]))
    assert len(drawn) > 20  # neither the same in each round nor the same for each prompt


def test_each_round_revises_the_revision_before() -> None:
    model = Model()
    chain = go(plan(), PROMPTS[0], model)
    draft, first, _ = chain.responses
    assert draft.text in text_of(model.of("critic")[0])
    second = text_of(model.of("critic")[1])
    assert first.text in second
    assert draft.text not in second
    assert first.critique
    assert first.critique in text_of(model.of("reviser")[0])


def test_prompts_are_prefixes_of_one_another_without_worked_examples() -> None:
    model = Model()
    go(plan(rounds=1), PROMPTS[0], model)
    draft, critique, revision = (request.prompt for request in model.asked)
    assert not isinstance(draft, str)
    assert draft == critique[: len(draft)]
    assert critique == revision[: len(critique)]


def test_worked_examples_stand_before_critiques_and_revisions_only() -> None:
    model = Model()
    go(plan(constitution(few_shot=[SHOT])), PROMPTS[0], model)
    assert ["Shot critique." in text_of(request) for request in model.asked] == [False, *[True] * 4]
    short = Model()
    go(plan(constitution(few_shot=[SHOT]), few_shot=0), PROMPTS[0], short)
    assert not any("Shot" in text_of(request) for request in short.asked)


def test_the_ablation_asks_no_critique() -> None:
    model = Model()
    chain = go(plan(constitution(few_shot=[SHOT]), critique=False), PROMPTS[0], model)
    assert [request.model for request in model.asked] == ["policy", "reviser", "reviser"]
    assert not any("ritique" in text_of(request) for request in model.asked)
    assert [(r.critique, r.critique_model, r.critique_flags) for r in chain.responses] == [(None, None, ())] * 3


def test_several_principles_are_asked_in_one_critique_strongest_first() -> None:
    levels = {"a": "default", "b": "rule", "c": "goal"}
    model = Model()
    chain = go(plan(constitution(levels=levels), principles_per_critique=3, rounds=1), PROMPTS[0], model)
    assert chain.responses[1].principle_ids == ("b", "c", "a")
    said = text_of(model.of("critic")[0])
    assert "1. Critique b.\n2. Critique c.\n3. Critique a.\nIf these conflict, what comes first wins: 1 (rule" in said


def test_each_role_may_be_another_model() -> None:
    roles = {role: Model(name=f"{role}@1") for role in ("policy", "critic", "reviser")}
    chain = go(plan(rounds=1), PROMPTS[0], roles)
    assert [len(model.asked) for model in roles.values()] == [1, 1, 1]
    draft, revision = chain.responses
    assert (draft.model, revision.model, revision.critique_model) == ("policy@1", "reviser@1", "critic@1")


def test_base_models_get_text_and_stop_strings() -> None:
    model = Model()
    chain = go(plan(style="base", rounds=1), PROMPTS[0], model)
    assert all(isinstance(request.prompt, str) for request in model.asked)
    assert {request.sampling.stop for request in model.asked} == {STOPS}
    assert text_of(model.asked[-1]).endswith("\n\nRevision:")
    assert "stop" not in chain.responses[0].sampling
    chat = Model()
    go(plan(rounds=1), PROMPTS[0], chat)
    assert {request.sampling.stop for request in chat.asked} == {()}


def test_conversations_are_asked_whole_and_system_prompts_merged() -> None:
    talk = Prompt.make(
        (
            Message("system", "You are a cook."),
            Message("user", "I have a pan."),
            Message("assistant", "Nice."),
            Message("user", "How do I clean it?"),
        )
    )
    model = Model()
    chain = go(plan(constitution(system_prompt="Be kind."), rounds=1), talk, model)
    first = (Message("system", "Be kind.\n\nYou are a cook."), *talk.messages[1:])
    assert model.asked[0].prompt == first
    for request in model.asked[1:]:
        assert request.prompt[:5] == (*first, Message("assistant", chain.responses[0].text))


def test_helpful_prompts_are_only_answered_n_times() -> None:
    prompt = Prompt.make("How do I boil an egg?", tags=("helpful",))
    model = Model()
    chain = go(plan(unrevised_samples=3), prompt, model)
    assert [(r.round, r.parent_id, r.principle_ids) for r in chain.responses] == [(0, None, ())] * 3
    assert len({request.seed for request in model.asked}) == 3
    assert len({response.id for response in chain.responses}) == 3
    assert chain.quarantined is None
    assert [r.round for r in go(plan(rounds=0), PROMPTS[0], Model()).responses] == [0]


# --- faulty steps


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


def test_what_does_not_fit_ends_the_row() -> None:
    model = scripted.build(scripted.Config(context=16), seed=0)
    with pytest.raises(ContextOverflow) as caught:
        go(plan(), PROMPTS[0], model)
    assert not caught.value.ends_run


# --- overrides


def test_overrides_that_set_everything_aside_quarantine_the_row_and_ask_nothing() -> None:
    free = dataclasses.replace(PROMPTS[0], overrides=("a", "b"))
    model = Model()
    chain = go(plan(constitution("ab", level="default")), free, model)
    assert chain.quarantined is not None
    assert chain.quarantined.reason == "no_principle"
    assert chain.quarantined.detail == (
        "its overrides (a, b) set aside every principle of the constitution 'test' that a critique can draw"
    )
    assert model.asked == []
    assert chain.responses == ()


def test_overrides_do_not_touch_binding_levels_nor_other_rows() -> None:
    bound = dataclasses.replace(PROMPTS[0], overrides=("a", "b"))
    assert go(plan(constitution("ab", level="rule")), bound, Model()).quarantined is None
    partly = dataclasses.replace(PROMPTS[0], overrides=("a",))
    chain = go(plan(constitution("ab", level="default"), rounds=4), partly, Model())
    assert {response.principle_ids for response in chain.responses[1:]} == {("b",)}


def test_an_error_of_one_row_is_not_the_end_of_the_others() -> None:
    assert InputError.ends_run is False

    async def rows() -> list[str]:
        rest = [dataclasses.replace(PROMPTS[0], overrides=("a",)), *PROMPTS[1:4]]
        generate = Engine(dict.fromkeys(("policy", "critic", "reviser"), Model())).generate
        ends = [end async for end in run_rows(rest, revise.method(narrow), generate, in_flight=2)]
        return sorted(end.result.quarantined.reason if end.result.quarantined else "" for end in ends)

    narrow = plan(constitution("a", level="default"))
    assert asyncio.run(rows()) == ["", "", "", "no_principle"]


# --- what is pure


def test_equal_rows_are_equal_and_another_seed_is_another_row() -> None:
    backend = scripted.build(scripted.Config(), seed=0)
    first, again = go(plan(), PROMPTS[0], backend), go(plan(), PROMPTS[0], backend)
    assert first == again
    other = go(plan(seed=2), PROMPTS[0], backend)
    assert {r.id for r in other.responses}.isdisjoint({r.id for r in first.responses})


def test_editing_one_principles_text_changes_only_the_rows_that_drew_it() -> None:
    backend = scripted.build(scripted.Config(), seed=0)
    before, after = plan(), plan(constitution(words={"b": "Is b kept at all?"}))
    changed = 0
    for prompt in PROMPTS:
        one, two = go(before, prompt, backend), go(after, prompt, backend)
        seeds = [[r.sampling["seed"] for r in chain.responses if not r.attempts] for chain in (one, two)]
        assert seeds[0] == seeds[1]
        assert [r.principle_ids for r in one.responses] == [r.principle_ids for r in two.responses]
        touched = [r.principle_ids == ("b",) for r in one.responses]
        first = touched.index(True) if True in touched else len(touched)
        assert one.responses[:first] == two.responses[:first]
        assert all(a.id != b.id for a, b in zip(one.responses[first:], two.responses[first:], strict=True))
        changed += first < len(touched)
    assert 0 < changed < len(PROMPTS)


def test_scripted_rules_play_the_loop() -> None:
    rules = [
        {"match": "^Critique", "reply": "It forgets the safety of the person who asked."},
        {"match": "^Revise", "reply": "Unplug it first, then clean the inside with a little vinegar."},
    ]
    config = scripted.Config.model_validate({"rules": rules})
    chain = go(plan(rounds=1), PROMPTS[0], scripted.build(config, seed=0))
    assert chain.responses[1].critique == rules[0]["reply"]
    assert chain.responses[1].text == rules[1]["reply"]
    # The second round's revision is the first one's again, word for word: flagged, and not passed on.
    twice = go(plan(rounds=2), PROMPTS[0], scripted.build(config, seed=0))
    assert twice.responses[2].flags == ("unchanged",)
    assert twice.quarantined is None
