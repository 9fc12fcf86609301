"""Rewards: rules, ratings and preferences by a judge, a reward model, and their weighted sum."""

from __future__ import annotations

import asyncio
import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from cai import plugins
from cai.constitution import load_constitution
from cai.constitution.find import shipped_dir
from cai.engine import Completion, Request
from cai.errors import InputError
from cai.judging.prompt import PROMPTS
from cai.records import Message, Messages, Prompt
from cai.training.base import TrainingError
from cai.training.rewards import Tools, _combine, judge, rating, rules
from tests.training import tiny_rl

pytestmark = pytest.mark.filterwarnings("ignore:.*:DeprecationWarning", "ignore:.*:FutureWarning")

ASKED: Messages = (Message("user", "Say something."),)


class Model:
    """Gives each choice the probability that `of` says for the request's last user message."""

    def __init__(self, of: Any) -> None:
        self.of = of
        self.requests: list[Request] = []

    async def generate(self, request: Request) -> Completion:
        self.requests.append(request)
        shares = self.of(request)
        return Completion(
            "Why not?" if not request.choices else "",
            "stop",
            1,
            1,
            choice_logprobs=tuple(math.log(max(s, 1e-30)) for s in shares),
        )


def tools(folder: Path, model: Model | None = None, reward_model: Path | None = None) -> Tools:
    def ask(calls: Sequence[Any]) -> list[Any]:
        assert model is not None

        async def everything() -> list[Any]:
            return list(await asyncio.gather(*(call(model.generate) for call in calls)))

        return asyncio.run(everything())

    return Tools(3, folder, lambda name: ask, lambda name: f"model of {name}", reward_model)


def rules_of(*terms: dict[str, Any]) -> rules.Rules:
    return rules.build(rules.Config.model_validate({"terms": list(terms)}), tools(Path()))


@pytest.mark.parametrize(
    ("term", "answer", "score"),
    [
        ({"words": ["sorry", "I cannot"]}, "SORRY, no.", 1.0),
        ({"words": ["sorry"]}, "sorrynot sorrys", 0.0),
        ({"words": ["c++"]}, "I like c++.", 1.0),
        ({"pattern": r"^\d+$"}, "42", 1.0),
        ({"pattern": r"^\d+$"}, "x42", 0.0),
        ({"length": 4}, "one two three four", 1.0),
        ({"length": 4}, "one two", 0.5),
        ({"length": 4}, "", 0.0),
        ({"length": 4}, "w " * 40, 0.0),
        ({"format": "json"}, '{"a": [1]}', 1.0),
        ({"format": "json"}, "[" * 100_000, 0.0),
        ({"format": "list"}, "- a\n- b", 1.0),
        ({"format": "list"}, "a\nb", 0.0),
        ({"format": "one_line"}, "a\n\n", 1.0),
        ({"format": "not_empty"}, " \n", 0.0),
    ],
)
def test_rules(term: dict[str, Any], answer: str, score: float) -> None:
    assert rules_of(term)([ASKED], [answer]) == [score]
    assert rules_of({**term, "weight": -2.0})([ASKED], [answer]) == [-2.0 * score]


def test_rules_add_up_and_wrong_ones_are_refused() -> None:
    both = rules_of({"words": ["yes"], "weight": 2.0}, {"length": 1})
    assert both([ASKED, ASKED], ["yes", "no way"]) == [3.0, 0.0]
    for wrong in ({"pattern": "("}, {"length": 3, "format": "json"}, {}, {"words": [" "]}, {"length": 0}):
        with pytest.raises(ValueError):
            rules_of(wrong)


def test_rating_is_the_expectation_from_minus_1_to_1(tmp_path: Path) -> None:
    def of(request: Request) -> list[float]:
        if request.choices == ("0",):
            return [0.0]
        best = "10" if "good" in request.prompt[-2].content else "1"  # type: ignore[union-attr]
        return [1.0 if choice == best else 0.0 for choice in request.choices]

    model = Model(of)
    reward = rating.build(rating.Config(), tools(tmp_path, model))
    assert reward([ASKED, ASKED], ["a good one", "a bad one"]) == pytest.approx([1.0, -1.0])

    flat = Model(lambda request: [1 / 10] * len(request.choices))
    (middle,) = rating.build(rating.Config(), tools(tmp_path, flat))([ASKED], ["x"])
    assert abs(middle) < 0.25  # 5.5 but for the share of "1" that begins "10"


def test_an_answer_that_cannot_be_rated_is_never_given_a_score(tmp_path: Path) -> None:
    lost = Model(lambda request: [1e-9] * len(request.choices))
    with pytest.raises(TrainingError, match=r"no rating \(low_mass\).*unread"):
        rating.build(rating.Config(), tools(tmp_path, lost))([ASKED], ["x"])
    assert rating.build(rating.Config(unread=-1.0), tools(tmp_path, lost))([ASKED], ["x"]) == [-1.0]


def test_prompt_files_lie_beside_the_recipe_and_where_does_not_matter(tmp_path: Path) -> None:
    path = references(tmp_path, (*ASKED, Message("assistant", "the reference")))
    (tmp_path / "mine").mkdir()
    for name in ("rate", "pair"):
        shutil.copy(PROMPTS / f"{name}.yaml", tmp_path / "mine")
    rated = [{}, {"prompt": "mine/rate.yaml"}, {"prompt": str(tmp_path / "mine" / "rate.yaml")}]
    assert len({rating.build(rating.Config(**each), tools(tmp_path, Model(None))).id for each in rated}) == 1
    pairs: list[dict[str, Any]] = [{"method": "logprob"}, {"method": "logprob", "prompt": "mine/pair.yaml"}]
    panels = [{"method": "panel", "members": [{"method": "cot"}, each]} for each in pairs]
    for given in (pairs, panels):
        options = [judge.Config.model_validate({"references": path, "judge": each}) for each in given]
        assert len({judge.build(each, tools(tmp_path, Model(None))).id for each in options}) == 1
    with pytest.raises(InputError, match=str(tmp_path / "none.yaml")):
        rating.build(rating.Config(prompt="none.yaml"), tools(tmp_path, Model(None)))


def references(folder: Path, *rows: Sequence[Message]) -> str:
    lines = [json.dumps({"messages": [turn.row() for turn in row]}) for row in rows]
    (folder / "references.jsonl").write_text("".join(f"{line}\n" for line in lines), "utf-8")
    return "references.jsonl"


def test_judge_prefers_by_probability_in_both_orders(tmp_path: Path) -> None:
    path = references(tmp_path, (*ASKED, Message("assistant", "the reference")))

    def of(request: Request) -> list[float]:
        text = "".join(turn.content for turn in request.prompt)  # type: ignore[union-attr]
        first = 0.8 if text.index("better one") < text.index("the reference") else 0.3
        return [first, 1 - first]

    model = Model(of)
    reward = judge.build(judge.Config(references=path), tools(tmp_path, model))
    # P(answer) is 0.8 shown first and 0.7 shown second.
    assert reward([ASKED, ASKED], ["better one", "the reference"]) == pytest.approx([0.5, 0.0])
    assert len(model.requests) == 2
    with pytest.raises(TrainingError, match="no reference answer"):
        reward([(Message("user", "Else?"),)], ["x"])


def test_judge_asks_the_constitution(tmp_path: Path) -> None:
    path = references(tmp_path, (*ASKED, Message("assistant", "the reference")))
    model = Model(lambda request: [0.6, 0.4])
    config = judge.Config.model_validate(
        {
            "references": path,
            "constitution": "default",
            "principles": "drawn",
            "judge": {"method": "logprob", "orders": "one"},
        }
    )
    reward = judge.build(config, tools(tmp_path, model))
    (score,) = reward([ASKED], ["mine"])
    assert abs(score) == pytest.approx(0.2)
    assert len(model.requests) == 1
    told = reward.origin
    assert told["model"] == "model of judge"
    assert told["constitution"] == {"name": "default", "hash": load_constitution("default").hash}
    with pytest.raises(ValueError, match="logprob"):
        judge.Config.model_validate({"references": path, "judge": {"method": "logprob", "orders": "thrice"}})


def test_judge_takes_the_constitution_beside_the_recipe(tmp_path: Path) -> None:
    path = references(tmp_path, (*ASKED, Message("assistant", "the reference")))
    shutil.copytree(shipped_dir("principles"), tmp_path / "principles")
    (tmp_path / "constitution").mkdir()
    own = tmp_path / "constitution" / "default.yaml"
    other = (shipped_dir("constitution") / "humanity.yaml").read_text("utf-8")
    own.write_text(other.replace("name: humanity", "name: default"), "utf-8")
    for named in ("default", "constitution/default.yaml"):
        config = judge.Config.model_validate({"references": path, "constitution": named})
        told = judge.build(config, tools(tmp_path, Model(lambda request: [0.6, 0.4]))).origin
        assert told["constitution"] == {"name": "default", "hash": load_constitution(own).hash}


def test_judge_decides_as_preferences_are_decided(tmp_path: Path) -> None:
    path = references(tmp_path, (*ASKED, Message("assistant", "the reference")))

    def reward(of: Any, **options: Any) -> judge.Preference:
        config = judge.Config.model_validate({"references": path, **options})
        return judge.build(config, tools(tmp_path, Model(of)))

    def half(request: Request) -> list[float]:
        text = "".join(turn.content for turn in request.prompt)  # type: ignore[union-attr]
        return [0.8, 0.2] if text.index("mine") < text.index("the reference") else [1e-9, 1e-9]

    # One order alone would carry the whole bias of the slot.
    with pytest.raises(TrainingError, match=r"no verdict \(low_mass\).*unread"):
        reward(half)([ASKED], ["mine"])
    assert reward(half, unread=-1.0)([ASKED], ["mine"]) == [-1.0]

    def sure(request: Request) -> list[float]:
        text = "".join(turn.content for turn in request.prompt)  # type: ignore[union-attr]
        return [0.99, 0.01] if text.index("mine") < text.index("the reference") else [0.01, 0.99]

    # Chain of thought is clamped to 0.6 unless told otherwise.
    assert reward(sure, judge={"method": "cot"})([ASKED], ["mine"]) == pytest.approx([0.2])
    assert reward(sure, judge={"method": "cot", "clamp": None})([ASKED], ["mine"]) == pytest.approx([0.98])

    members = [{"method": "logprob", "name": "one"}, {"method": "logprob", "name": "other", "min_mass": 0.3}]
    majority = reward(
        lambda request: [0.7 * share for share in sure(request)],
        judge={"method": "panel", "members": members, "rule": "majority"},
    )
    assert majority([ASKED], ["mine"]) == [1.0]
    mean = reward(sure, judge={"method": "panel", "members": members})
    assert mean([ASKED], ["mine"]) == pytest.approx([0.98])
    assert mean.id != majority.id


def test_references_of_another_form_are_refused(tmp_path: Path) -> None:
    path = references(tmp_path, ASKED)
    with pytest.raises(InputError, match=r"references\.jsonl:1.*assistant"):
        judge.build(judge.Config(references=path), tools(tmp_path))


def test_combined_by_weights() -> None:
    one, other = tiny_rl.Words(red=1.0), tiny_rl.Share("no")
    reward = _combine.combined([(one, 2.0), (other, -1.0)])
    assert reward([ASKED] * 3, ["red", "no", "red no"]) == [2.0, -1.0, 1.5]
    assert reward.name == "2 words + -1 share"
    assert _combine.combined([(one, 1.0)]) is one
    other.doubt = "too weak"  # type: ignore[attr-defined]
    assert _combine.Combined([(one, 1.0), (other, 1.0)]).doubt == "too weak"


@pytest.mark.parametrize("name", plugins.names("cai.training.rewards"))
def test_every_reward_has_config_and_build(name: str) -> None:
    module = plugins.load("cai.training.rewards", name)
    assert module.Config.model_config["extra"] == "forbid"
    assert callable(module.build)


def test_a_reward_model_from_elsewhere_has_one_output_and_a_chat_template(tmp_path: Path) -> None:
    from cai.training.rewards import model as reward_model

    config, tokenizer = tmp_path / "config.json", tmp_path / "tokenizer_config.json"
    classifier: dict[str, Any] = {"architectures": ["LlamaForSequenceClassification"]}
    given = reward_model.Config(path=str(tmp_path))
    for labels, outputs in (({}, 2), ({"id2label": {"0": "good", "1": "bad", "2": "ugly"}}, 3), ({"num_labels": 2}, 2)):
        config.write_text(json.dumps(classifier | labels), "utf-8")
        with pytest.raises(InputError, match=f"a classifier with {outputs} outputs"):
            reward_model.build(given, tools(tmp_path))
    config.write_text(json.dumps(classifier | {"id2label": {"0": "LABEL_0"}}), "utf-8")
    tokenizer.write_text("{}", "utf-8")
    with pytest.raises(InputError, match="no chat template"):
        reward_model.build(given, tools(tmp_path))
    tokenizer.write_text('{"chat_template": "{{ messages }}"}', "utf-8")
    assert reward_model.build(given, tools(tmp_path)).name == "reward model"


def test_reward_model_is_independent_of_padding(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from cai.training.rewards import model as reward_model

    tiny_rl.write_model(tmp_path / "lm")
    torch.manual_seed(1)
    made = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "lm", num_labels=1)
    torch.nn.init.normal_(made.score.weight)
    made.save_pretrained(tmp_path / "rm")
    transformers.AutoTokenizer.from_pretrained(tmp_path / "lm").save_pretrained(tmp_path / "rm")
    prompts = [prompt.messages for prompt in tiny_rl.prompts(5)]
    answers = ["red", "green blue no yes", "hello", "one two one", "no"]
    few = reward_model.build(reward_model.Config(batch=2), tools(tmp_path, reward_model=tmp_path / "rm"))
    many = reward_model.build(reward_model.Config(path="rm", batch=16), tools(tmp_path))
    alone = [few([prompt], [answer])[0] for prompt, answer in zip(prompts, answers, strict=True)]
    assert few(prompts, answers) == pytest.approx(alone, abs=1e-5)
    assert many(prompts, answers) == pytest.approx(alone, abs=1e-5)
    assert len(set(alone)) == 5
    scaled = reward_model.build(reward_model.Config(path="rm", shift=1.0, scale=2.0), tools(tmp_path))
    assert scaled(prompts, answers) == pytest.approx([(score - 1) / 2 for score in alone], abs=1e-5)
    short = reward_model.build(reward_model.Config(path="rm", max_tokens=16), tools(tmp_path))
    assert many.id == few.id
    assert len({many.id, scaled.id, short.id}) == 3  # all that scores depend on, and nothing else
    assert {many.measure, scaled.measure, short.measure} == {few.measure}
    assert str(many.origin["model"]).startswith("rm@")
    (tmp_path / "rm" / "lineage.json").write_text('{"algorithm": "rm"}', "utf-8")
    assert reward_model.build(reward_model.Config(path="rm"), tools(tmp_path)).origin["lineage"] == {"algorithm": "rm"}
    with pytest.raises(TrainingError, match="max_tokens"):
        short([(Message("user", "red " * 30),)], ["no"])
    with pytest.raises(InputError, match="not a reward model"):
        reward_model.build(reward_model.Config(path="lm"), tools(tmp_path))
    with pytest.raises(InputError, match="no reward model"):
        reward_model.build(reward_model.Config(), tools(tmp_path))
    assert Prompt.make(ASKED)
