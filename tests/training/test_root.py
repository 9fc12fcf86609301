"""`cai.train`, which puts a training together from a recipe: what it says for every algorithm alike."""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cai import scoring
from cai import train as root
from cai.backends import scripted
from cai.config import load_recipe
from cai.constitution import load_constitution
from cai.constitution.writing import dump
from cai.engine import Generate, Request, Sampling
from cai.errors import InputError
from cai.labels.events import append_labels
from cai.progress import Silent
from cai.records import HumanLabel, Message, Prompt
from cai.runs import RunFolder
from cai.stages.export import split_of
from cai.store import encode, write_json, write_text
from cai.training.base import Job, TrainingError
from cai.training.data import conversations_digest, read_conversations, read_pairs, with_system
from cai.training.rewards import Tools
from cai.yamlfile import InvalidFile, StrictModel
from tests.training.test_pairs import preferences, write

RECIPE = """
name: tiny
constitution: humanity
prompts: [{path: prompts.jsonl}]
models:
  policy: {backend: scripted}
  judge: {backend: scripted, name: another}
"""


@pytest.mark.parametrize(
    "error", [RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB"), MemoryError(), RuntimeError("another")]
)
def test_memory_that_does_not_suffice_is_told_wherever_it_runs_out(tmp_path: Path, error: Exception) -> None:
    """Loading, a reference pass and a report happen before and after the steps."""

    def loads(job: Job, settings: StrictModel) -> None:
        raise error

    job = Job("dpo", tmp_path / "dpo", tmp_path, 0)
    prepared = root.Prepared(SimpleNamespace(train=loads), StrictModel(), job, contextlib.ExitStack())
    if str(error) == "another":
        with pytest.raises(RuntimeError, match="another"):
            root.train(prepared)
        return
    with pytest.raises(TrainingError, match=r"not enough memory.*micro_batch"):
        root.train(prepared)


@pytest.fixture
def tools(tmp_path: Path) -> Iterator[Callable[[str], Tools]]:
    """What the rewards of a training of this name are built with; trainings of one run."""
    (tmp_path / "recipe.yaml").write_text(RECIPE, "utf-8")
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "Hello"}\n', "utf-8")
    loaded, place = load_recipe(tmp_path / "recipe.yaml"), RunFolder(tmp_path / "run")
    with contextlib.ExitStack() as opened:
        yield lambda name: scoring.tools_of(
            loaded, place, tmp_path / "run" / "train" / name, opened, reward_model=tmp_path / "none"
        )


def question(number: int, seen: list[str]) -> Callable[[Generate], Any]:
    async def ask(generate: Generate) -> None:
        seen.append((await generate(Request(f"Question {number}?", Sampling(), seed=0))).text)

    return ask


def test_trainings_of_a_run_ask_into_logs_of_their_own_and_know_what_was_asked_before(
    tmp_path: Path, tools: Callable[[str], Tools], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two writers of one log find one another's rows where they look for their own."""
    pytest.importorskip("torch")
    asked: list[Any] = []
    generates = scripted.Backend.generate

    async def counted(self: Any, request: Request) -> Any:
        asked.append(request.prompt)
        return await generates(self, request)

    monkeypatch.setattr(scripted.Backend, "generate", counted)
    train = tmp_path / "run" / "train"
    first: list[str] = []
    again: list[str] = []
    one, other = tools("grpo"), tools("rloo")
    for number in range(4):
        for made, role in ((one, "policy"), (one, "judge"), (other, "policy")):
            made.ask(role)([question(number, first)])
    for number in range(4):
        for made, role in ((one, "policy"), (one, "judge"), (other, "policy")):
            made.ask(role)([question(number, again)])
    assert again == first
    assert len(asked) == 12
    assert not (train / "requests.jsonl").exists()
    (train / "grpo" / "requests.jsonl").rename(train / "requests.jsonl")  # of an older version, and of all
    tools("dpo").ask("judge")([question(number, []) for number in range(4)])
    assert len(asked) == 12
    assert len((train / "dpo" / "requests.jsonl").read_bytes().splitlines()) == 4


def test_random_numbers_go_on_where_they_were_when_a_model_was_loaded(
    tools: Callable[[str], Tools], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A resumed training loads it at another step."""
    torch = pytest.importorskip("torch")
    import numpy

    def draws() -> list[float]:
        return [random.random(), float(numpy.random.rand()), float(torch.rand(()))]

    def seed(number: int) -> None:
        for one in (random.seed, numpy.random.seed, torch.manual_seed):
            one(number)

    builds = scripted.build

    def seeds(*given: Any, **named: Any) -> Any:
        seed(0)  # as vLLM does
        return builds(*given, **named)

    monkeypatch.setattr(scripted, "build", seeds)
    seed(5)
    wanted = draws()
    seed(5)
    tools("grpo").ask("judge")([question(0, [])])
    assert draws() == wanted


def test_what_was_asked_stays_known_to_a_training_that_begins_anew(tmp_path: Path) -> None:
    for name in ("requests.jsonl", "requests-1.jsonl", "metrics.jsonl"):
        (tmp_path / name).write_text("", "utf-8")
    root._move_into_history(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"requests.jsonl", "requests-1.jsonl", "history"}
    assert (tmp_path / "history" / "001" / "metrics.jsonl").is_file()


# --- what a training is made of ---------------------------------------------------------------------------------------


NO_MODEL = "train.ppo={parent: model, rewards: [{kind: rules, terms: [{length: 2}]}]}"


class Told(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with SFT data, preferences and a recipe beside it, as `cai run` leaves them; nothing was trained."""
    (tmp_path / "recipe.yaml").write_text(RECIPE + "sft: {test_fraction: 0.3}\njudge: {}\n", "utf-8")
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "Hello"}\n', "utf-8")
    place = RunFolder(tmp_path / "run")
    write(place.preference_data / "trl", preferences())
    place.sft.mkdir()
    talk = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]
    (place.sft / "train.jsonl").write_bytes(encode({"messages": talk}))
    place.prompts.write_bytes(b"".join(encode(Prompt.make(f"Say {number}").row()) for number in range(40)))
    write_text(place.recipe, dump(load_recipe(tmp_path / "recipe.yaml").resolved()))
    return place.path


def prepared(run: Path, name: str, *overrides: str) -> tuple[Job, list[str]]:
    """A job and what was said while it was made."""
    told = Told()
    parent = () if any(f"train.{name}" in each for each in overrides) else (f"train.{name}.parent=model",)
    return root.prepare(name, load_recipe(run.parent / "recipe.yaml", [*parent, *overrides]), run, told).job, told.lines


def test_prompts_are_split_as_the_runs_data_are(run: Path) -> None:
    """By another seed, prompts that were trained on would be among the watched."""
    found, told = prepared(run, "dpo")
    held = {prompt.id for prompt in found.watched}
    assert held == {p.id for n in range(40) if split_of(p := Prompt.make(f"Say {n}"), 0.3, 0) == "test"}
    assert told == [f"trains from {run.parent / 'model'}"]
    other, told = prepared(run, "dpo", "seed=2", "sft.test_fraction=0.6")
    assert {prompt.id for prompt in other.watched} == held
    assert other.seed == 2
    assert told[0] == "the run's data were made by other options, and these play no part: sft.test_fraction"
    _, told = prepared(run, "dpo", "preferences.min_margin=0.3", "sft.license=mit", "judge.options.orders=one")
    assert told[0].endswith("no part: judge.options.orders, preferences.min_margin")


def test_a_system_prompt_in_the_sft_data_stands_before_all_that_is_trained_on(run: Path) -> None:
    """What SFT learnt behind it would else be trained on, and watched, without it."""
    pairs = read_pairs(prepared(run, "rm")[0].pairs)
    write_json(run / "constitution.json", load_constitution("humanity").with_system_prompt("Be brief. ").row())
    assert prepared(run, "ppo", NO_MODEL)[0].prompts[0].messages[0].role == "user"
    loaded = load_recipe(run.parent / "recipe.yaml", ["sft.system_prompt=true"])
    write_text(run / "recipe.yaml", dump(loaded.resolved()))
    job, _ = prepared(run, "ppo", NO_MODEL)
    plain = [Prompt.make(f"Say {number}") for number in range(40)]
    held = {prompt.messages for prompt in plain if split_of(prompt, 0.3, 0) == "test"}
    assert {prompt.messages[1:] for prompt in job.watched} == held
    assert len(job.prompts) + len(job.watched) == 40
    for prompt in (*job.prompts, *job.watched):
        assert prompt.messages[0] == Message("system", "Be brief.")
        assert prompt.id == Prompt.make(prompt.messages).id
    others = run / "preferences" / "trl"
    mixture = f"train.rm={{parent: model, pairs: [{{}}, {{path: {others}}}]}}"
    found = read_pairs(prepared(run, "rm")[0].pairs)
    assert {element.messages[0].content for element in found.train} == {"Be brief."}
    assert found.digest != pairs.digest
    both = read_pairs(prepared(run, "rm", mixture)[0].pairs)
    assert {element.messages[0].role for element in both.train} == {"system", "user"}, "others' stand as they are"


def test_a_system_prompt_is_joined_to_a_prompts_own() -> None:
    asked = (Message("system", "Speak French."), Message("user", "Hello"))
    assert with_system(asked, "Be brief.")[0].content == "Be brief.\n\nSpeak French."
    assert with_system(asked, "") == asked


def checkpoint(run: Path, name: str, digest: str) -> Path:
    made = run / "train" / name / "checkpoint"
    made.mkdir(parents=True)
    config = {"architectures": ["LlamaForSequenceClassification"], "id2label": {"0": "LABEL_0"}}
    (made / "config.json").write_text(json.dumps(config), "utf-8")
    (made / "tokenizer_config.json").write_text('{"chat_template": "{{ messages }}"}', "utf-8")
    (made / "lineage.json").write_text(json.dumps({"algorithm": name, "data": {"digest": digest}}), "utf-8")
    return made


def test_it_is_said_what_is_trained_from_and_when_that_is_of_other_data(run: Path) -> None:
    made = checkpoint(run, "sft", conversations_digest(read_conversations(run / "sft")))
    job, told = prepared(run, "dpo", "train.dpo.settings={}")
    assert job.parent == made
    assert told == [f"trains from {made}"]
    row = {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "another"}]}
    (run / "sft" / "train.jsonl").write_bytes(encode(row))
    _, told = prepared(run, "dpo", "train.dpo.settings={}")
    assert "other data than there are now; `cai train sft --fresh`" in told[1]
    (run / "sft" / "train.jsonl").unlink()
    _, told = prepared(run, "dpo", "train.dpo.settings={}")
    assert "cannot be told: has no train.jsonl" in told[1]


def test_a_reward_model_of_other_data_is_said(run: Path) -> None:
    job, _ = prepared(run, "rm")
    made = checkpoint(run, "rm", read_pairs(job.pairs).digest)
    assert prepared(run, "ppo")[1] == [f"trains from {run.parent / 'model'}"]
    write(run / "preferences" / "trl", preferences(p=0.9))
    assert f"{made} was trained on other data than there are now" in prepared(run, "ppo")[1][1]
    assert len(prepared(run, "dpo")[1]) == 1, "which asks no reward"


@pytest.mark.parametrize("left", ["steps/inputs.json", "history/001/metrics.jsonl"])
def test_what_was_begun_before_and_not_ended_is_not_left_out_in_silence(run: Path, left: str) -> None:
    path = run / "train" / "sft" / left
    path.parent.mkdir(parents=True)
    path.write_text("{}", "utf-8")
    with pytest.raises(InputError, match=r"sft was begun and has not come to its end.*train\.dpo\.parent"):
        prepared(run, "dpo", "train.dpo.settings={}")
    assert prepared(run, "dpo")[0].parent == run.parent / "model"


def test_labels_that_were_not_merged_are_said(run: Path) -> None:
    pair = preferences(1)[0]
    said = HumanLabel("1", pair.comparison_id, pair.group_id, pair.axis, "ann", "a")
    append_labels(run / "labels.jsonl", [said])
    assert prepared(run, "rm")[1][-1] == f"1 labels of people play no part; `cai merge {run}` takes them in"


def test_reference_answers_that_are_missing_are_said_before_anything_is_trained(run: Path) -> None:
    rows = [
        {"messages": [{"role": "user", "content": f"Say {n}"}, {"role": "assistant", "content": "x"}]}
        for n in range(39)
    ]
    path = run.parent / "references.jsonl"
    path.write_bytes(b"".join(map(encode, rows)))
    scored = "{kind: judge, references: references.jsonl}"
    for rewards in (scored, "{kind: rules, terms: [{length: 2}]}, " + scored):
        with pytest.raises(InputError, match=r"1 of .* prompts have no reference answer.*'Say 39'"):
            prepared(run, "ppo", f"train.ppo={{parent: model, rewards: [{rewards}]}}")
    prepared(run, "dpo", f"train.dpo={{parent: model, gold: {{mine: {scored}}}, settings: {{watch: {{prompts: 0}}}}}}")
    path.write_bytes(encode(rows[0]))
    with pytest.raises(InputError, match="no reference answer"):
        prepared(run, "dpo", f"train.dpo={{parent: model, gold: {{mine: {scored}}}}}")


def test_a_gold_rating_that_is_the_reward_is_refused(run: Path) -> None:
    """Under whatever name of the model, and however an answer that cannot be rated counts."""
    same = "{kind: rating, backend: critic, unread: -1, min_mass: 0.1, weight: 3}"
    for gold, refused in ((same, True), ("{kind: rating, question: 'Is it kind?'}", False)):
        block = f"{{parent: model, rewards: [{{kind: rating, backend: policy}}], gold: {{mine: {gold}}}}}"
        with pytest.raises(InputError, match="is what is maximised") if refused else contextlib.nullcontext():
            prepared(run, "ppo", f"train.ppo={block}")


@pytest.mark.parametrize("weight", [".nan", ".inf", "0"])
def test_a_reward_that_has_no_weight_is_refused_where_the_recipe_is_read(run: Path, weight: str) -> None:
    score = f"{{kind: rules, terms: [{{length: 2}}], weight: {weight}}}"
    for block in (f"{{rewards: [{score}]}}", f"{{gold: {{mine: {score}}}}}"):
        with pytest.raises(InvalidFile, match="give a finite number other than 0"):
            prepared(run, "ppo", f"train.ppo={block}")


def test_a_model_that_two_roles_share_is_loaded_once(
    tools: Callable[[str], Tools], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    built: list[Any] = []
    builds = scripted.build

    def counted(config: Any, **named: Any) -> Any:
        built.append(config)
        return builds(config, **named)

    monkeypatch.setattr(scripted, "build", counted)
    made = tools("grpo")
    for role in ("policy", "critic", "judge", "policy"):
        made.ask(role)([question(0, [])])
    assert len(built) == 2
