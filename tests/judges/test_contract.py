"""What every judge promises, whoever adds it: one file with `Config` and `build`, and votes that can be trusted."""

from __future__ import annotations

import asyncio
import inspect
import json
import subprocess
import sys
from types import ModuleType
from typing import Any

import pydantic
import pytest

from cai import plugins
from cai.backends import scripted
from cai.engine import Completion, Engine, Generate, Request
from cai.errors import BackendError, InputError, PromptRefused
from cai.judging import Judge, Question
from cai.judging.prompt import load_prompt
from cai.records import Group, Vote
from cai.yamlfile import StrictModel
from tests.judges.fakes import ANSWER, LEAST, Fake, group, judge, ranked, run

NAMES = plugins.names("cai.judges")
HEAVY = ("torch", "vllm", "openai", "transformers", "ray", "trl", "httpx", "numpy", "scipy", "pyarrow", "datasets")
TEXTS = ("In a paper bag.", "Freeze what you will not eat soon.", "Keep it out of the fridge.", "No idea.")


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    assert request.param in LEAST, f"add the least configuration of {request.param!r} to fakes.LEAST"
    return str(request.param)


@pytest.fixture
def module(name: str) -> ModuleType:
    return plugins.load("cai.judges", name)


@pytest.fixture
def made(name: str) -> Judge:
    return judge(name, **LEAST[name])


def votes_on(made: Judge, of: Group, generate: Generate, question: Question | None = None) -> list[Vote]:
    async def ask() -> list[Vote]:
        items: Any = [of] if made.unit == "group" else of.comparisons()
        return [vote for item in items for vote in await made(item, question or Question(), generate)]

    return run(ask())


def scripted_generate(**options: Any) -> Generate:
    return Engine({"judge": scripted.build(scripted.Config(**options), seed=1)}).generate


def test_the_known_judges_are_there() -> None:
    assert set(NAMES) >= set(LEAST)


def test_it_says_what_it_is_for(module: ModuleType) -> None:
    assert (module.__doc__ or "").strip()
    assert (module.build.__doc__ or "").strip()
    assert all(field.description for field in module.Config.model_fields.values())


def test_it_is_built_as_every_other(module: ModuleType) -> None:
    assert list(inspect.signature(module.build).parameters) == ["config", "models", "seed"]


def test_importing_all_of_them_loads_nothing_heavy() -> None:
    imports = "; ".join(f"import cai.judges.{name}" for name in NAMES)
    code = f"import sys; {imports}; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_its_settings_are_validated_frozen_and_survive_being_written(name: str, module: ModuleType) -> None:
    config: StrictModel = module.Config(**LEAST[name])
    again = type(config).model_validate(json.loads(json.dumps(config.model_dump(mode="json"))))
    assert again == config
    with pytest.raises(pydantic.ValidationError):
        type(config).model_validate({**config.model_dump(), "no_such_setting": 1})
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        config.__setattr__(next(iter(type(config).model_fields)), None)


def test_its_id_names_all_that_its_votes_depend_on(name: str, made: Judge) -> None:
    least = LEAST[name]
    assert judge(name, **least).id == made.id
    assert judge(name, models={"judge": "model@2"}, **least).id != made.id
    ids = {judge(each, **LEAST[each]).id for each in NAMES}
    assert len(ids) == len(NAMES)


@pytest.mark.parametrize("name", ["cot", "listwise", "logprob", "rating"], indirect=True)
def test_its_id_says_which_model_and_not_what_a_recipe_calls_it(name: str, made: Judge) -> None:
    models = {"judge": "model@2", "careful": "model@1"}
    called = judge(name, models=models, model="careful")
    assert (called.id, called.kind) == (made.id, made.kind)
    members = [{"method": name, "name": "one"}, {"method": name, "name": "other", "model": "careful"}]
    with pytest.raises(InputError, match="are the same judge"):
        judge("panel", models=dict.fromkeys(models, "model@1"), members=members)


def test_the_run_s_seed_is_part_of_its_id_only_where_it_draws() -> None:
    def moved(name: str, **options: Any) -> bool:
        return judge(name, seed=1, **options).id != judge(name, seed=2, **options).id

    assert {name for name in NAMES if moved(name, **LEAST[name])} == {"cot"}
    assert moved("tournament", judge={"method": "cot"})
    assert moved("panel", members=[{"method": "logprob"}, {"method": "cot"}])


def test_every_pair_of_a_group_gets_votes_that_are_probabilities(made: Judge) -> None:
    of = group(*TEXTS)
    votes = votes_on(made, of, scripted_generate())
    assert {vote.comparison_id for vote in votes} == {pair.id for pair in of.comparisons()}
    assert len({vote.id for vote in votes}) == len(votes)
    for vote in votes:
        assert vote.error is None
        assert vote.p_a is not None
        assert vote.p is not None
        assert 0 <= vote.p_a <= 1
        assert 0 <= vote.p_tie <= 1
        assert vote.p_a + vote.p_tie <= 1 + 1e-12
        assert vote.order in ("ab", "ba", "")
        assert vote.group_id == of.id
        assert vote.raw


def test_its_votes_are_the_same_in_another_run_and_survive_being_written(name: str, made: Judge) -> None:
    of = group(*TEXTS)
    votes = votes_on(made, of, scripted_generate())
    assert votes_on(judge(name, **LEAST[name]), of, scripted_generate()) == votes
    assert [Vote.from_row(json.loads(json.dumps(vote.row()))) for vote in votes] == votes


def test_a_vote_says_what_was_asked(made: Judge) -> None:
    question = Question("Which answer wastes less bread?", ("p1", "p2"), "helpful", 2.5, "Does it waste no bread?")
    generate = Fake()
    votes = votes_on(made, group(*TEXTS), generate, question)
    assert all(
        (vote.principle_ids, vote.axis, vote.weight) == (("p1", "p2"), "helpful", 2.5) and vote.judge_id
        for vote in votes
    )
    for request in generate.scored:
        user = [
            message.content for message in request.prompt if not isinstance(message, str) and message.role == "user"
        ]
        compares = len(ANSWER.findall(user[-1])) > 1
        assert (question.text in user[-1], question.alone in user[-1]) == (compares, not compares)
    plain = votes_on(made, group(*TEXTS), Fake())
    other_axis = votes_on(made, group(*TEXTS), Fake(), Question(axis="honest"))
    assert not {vote.id for vote in votes} & {vote.id for vote in plain}
    assert not {vote.id for vote in other_axis} & {vote.id for vote in plain}


def test_next_to_no_mass_on_what_was_offered_is_a_failure_and_no_probability(made: Judge) -> None:
    of = group(*TEXTS)
    votes = votes_on(made, of, Fake(mass=0.01))
    assert {vote.comparison_id for vote in votes} == {pair.id for pair in of.comparisons()}
    errors = {vote.error for vote in votes}
    assert errors <= {"low_mass", "unconnected"}
    assert "low_mass" in errors
    assert all(vote.p_a is None and vote.p is None for vote in votes)
    assert all(vote.mass == pytest.approx(0.01) for vote in votes if vote.error == "low_mass")
    assert ranked(of, votes) == tuple(candidate.id for candidate in of.candidates)


def test_a_prompt_that_does_not_fit_is_a_failure_and_no_probability(made: Judge) -> None:
    votes = votes_on(made, group(*TEXTS), Fake(context=100))
    assert {vote.error for vote in votes} <= {"too_long", "unconnected"}
    assert all(vote.p_a is None for vote in votes)


def test_a_prompt_that_is_refused_costs_no_other_verdict_of_its_group(made: Judge) -> None:
    answers = Fake()

    async def filtered(request: Request) -> Completion:
        if any(TEXTS[2] in message.content for message in request.prompt if not isinstance(message, str)):
            raise PromptRefused("a filter does not like it", where="server")
        return await answers(request)

    of = group(*TEXTS)
    votes = votes_on(made, of, filtered)
    assert {vote.comparison_id for vote in votes} == {pair.id for pair in of.comparisons()}
    spoilt = {pair.id for pair in of.comparisons() if TEXTS[2] in (pair.a.text, pair.b.text)}
    refused = [vote for vote in votes if vote.error == "refused"]
    assert refused
    assert all("server: a filter does not like it" in vote.raw["detail"] for vote in refused)
    if made.name != "listwise":  # which shows all of them at once
        assert {vote.comparison_id for vote in refused} <= spoilt
        assert {vote.comparison_id for vote in votes if vote.p is not None} >= {
            pair.id for pair in of.comparisons() if pair.id not in spoilt
        }


def test_a_model_that_fails_fails_the_row(made: Judge) -> None:
    async def broken(request: Any) -> Any:
        await asyncio.sleep(0)
        raise BackendError("no answer")

    with pytest.raises(BackendError, match="no answer"):
        votes_on(made, group(*TEXTS), broken)


def test_what_stands_before_the_question_is_the_same_for_every_principle(made: Judge) -> None:
    """So the prefix cache serves all principles but the first."""
    asked = []
    for text in ("Which answer is kinder?", "Which one is true?"):
        generate = Fake()
        votes_on(made, group(*TEXTS[:2]), generate, Question(text, alone=text))
        prompt = generate.asked[0].prompt
        assert not isinstance(prompt, str)
        asked.append("\n".join(message.content for message in prompt if message.role != "assistant"))
    one, other = (
        each.partition(question)[0]
        for each, question in zip(asked, ("Which answer is kinder?", "Which one is true?"), strict=True)
    )
    assert one == other
    assert len(one) > 0.6 * len(asked[0])


@pytest.mark.parametrize(
    "name", [name for name in NAMES if "prompt" in plugins.load("cai.judges", name).Config.model_fields]
)
def test_a_prompt_file_without_its_slots_is_refused(name: str, tmp_path: Any) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\nuser: '{question}'\nquestion: Which?\nverdict: so\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"slot \{\w+\} is missing"):
        judge(name, prompt=str(path))
    path.write_text("name: mine\nuser: '{question} {converzation}'\nquestion: Which?\nverdict: so\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"unknown slot \{converzation\}.*conversation"):
        judge(name, prompt=str(path))


def test_where_a_prompt_file_lies_changes_nothing_and_what_it_says_does(tmp_path: Any) -> None:
    prompt = load_prompt("pair").model_dump(mode="json")
    path = tmp_path / "mine.yaml"
    path.write_text(json.dumps({**prompt, "notes": "mine"}), encoding="utf-8")
    assert judge("logprob", prompt=str(path)).id == judge("logprob").id
    path.write_text(json.dumps({**prompt, "reply": "Better is"}), encoding="utf-8")
    assert judge("logprob", prompt=str(path)).id != judge("logprob").id
