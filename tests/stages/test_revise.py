"""The loop: what is asked in which order, and what is kept."""

from __future__ import annotations

import asyncio
import dataclasses

from cai.backends import scripted
from cai.constitution.draw import draw
from cai.engine import Engine
from cai.errors import InputError
from cai.records import Message, Prompt
from cai.scheduler import run_rows
from cai.stages import revise
from cai.stages.transcript import STOPS
from tests.stages.loop import PROMPTS, SHOT, Model, constitution, go, plan, text_of

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


def test_what_a_base_model_writes_between_worked_examples_is_in_no_step() -> None:
    """Stopped at the next example's first label, its answer ends in the separator."""
    texts = {"policy": "Use soap and water.", "critic": "It leaves out how to rinse.", "reviser": "Soap, then rinse."}
    model = Model(lambda request: f" {texts[request.model]}\n\n---")
    chain = go(plan(constitution(few_shot=[SHOT]), style="base", rounds=1), PROMPTS[0], model)
    draft, revision = chain.responses
    assert [draft.text, revision.critique, revision.text] == list(texts.values())
    assert not chain.quarantined
    assert text_of(model.asked[-1]).count("---") == 1  # behind the worked example


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
