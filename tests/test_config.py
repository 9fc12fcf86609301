"""The recipe: every fault with its place, overrides, and a resolved form that can be run again."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from cai.config import LoadedRecipe, load_recipe
from cai.constitution.find import shipped_dir
from cai.errors import InputError
from cai.yamlfile import InvalidFile

RECIPE = """\
name: test
prompts:
  - path: prompts.jsonl
models:
  policy: {backend: scripted}
"""


def load(tmp_path: Path, text: str = RECIPE, *overrides: str) -> LoadedRecipe:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return load_recipe(path, overrides)


def problems(tmp_path: Path, text: str, *overrides: str) -> list[str]:
    with pytest.raises(InvalidFile) as caught:
        load(tmp_path, text, *overrides)
    return [str(problem).removeprefix(f"{tmp_path}/") for problem in caught.value.problems]


def test_defaults_are_the_papers_where_it_says(tmp_path: Path) -> None:
    recipe = load(tmp_path).recipe
    assert recipe.constitution == "default"
    assert recipe.sft.revisions == "all"
    assert recipe.revise.critique
    assert recipe.revise.draft.temperature == 1.0
    assert recipe.revise.principles_per_critique == 1


def test_every_fault_is_told_with_its_place(tmp_path: Path) -> None:
    text = RECIPE.replace("name: test", "name: te st") + "revise:\n  rouds: 3\n  few_shot: -1\nsft: {revisions: some}\n"
    assert problems(tmp_path, text) == [
        "recipe.yaml:1:7: name: 'te st' must be a name: letters, digits, '.', '_' and '-', the first a letter or a "
        "digit",
        "recipe.yaml:7:3: unknown key 'rouds'; did you mean 'rounds'?",
        "recipe.yaml:8:13: revise.few_shot: must be greater than or equal to 0",
        "recipe.yaml:9:18: sft.revisions: must be 'all' or 'last'",
    ]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("backend: scripted", "backend: scripte", "5:21: no backend 'scripte'; did you mean 'scripted'? (one of: "),
        ("backend: scripted", "backend: scripted, sets: 3", "5:31: unknown key 'sets'; did you mean 'seats'?"),
        ("backend: scripted", "backend: scripted, seats: 0", "5:38: seats: must be greater than or equal to 1"),
        ("policy:", "polcy:", "4:1: the role 'policy' is missing"),
        (
            "scripted}",
            "scripted}\n  critc: policy",
            "6:3: unknown role 'critc'; did you mean 'critic'?; roles: policy, ",
        ),
        (
            "scripted}",
            "scripted}\n  critic: polcy",
            "6:11: no role 'polcy' to share a model with; did you mean 'policy'",
        ),
        ("scripted}", "scripted}\n  critic: critic", "6:11: no role 'critic' to share a model with"),
        ("scripted}", "scripted}\n  critic: [1]", "6:11: must be a mapping, or the name of another role"),
        ("- path: prompts.jsonl", "[]", "3:3: prompts: give at least 1"),
        ("models:", "judge:\nmodels:", "4:7: judge: is blank; `judge: {}` takes the defaults"),
        ("path:", "pth:", "3:5: unknown key 'pth'; did you mean 'path'?"),
    ],
)
def test_faults_of_models_and_prompts(tmp_path: Path, old: str, new: str, expected: str) -> None:
    assert any(expected in line for line in problems(tmp_path, RECIPE.replace(old, new)))


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        ("dpoo: {}", "7:3: no algorithm 'dpoo'; did you mean 'dpo'? (one of: dpo, "),
        ("dpo: {settings: {learning_rat: 1}}", "7:20: unknown key 'learning_rat'; did you mean 'learning_rate'?"),
        ("dpo: {settings: {beta: 0}}", "7:26: beta: must be greater than 0"),
        ("dpo: {trl: {output_dir: here}}", "7:15: output_dir is set by cai (leave it out)"),
        ("dpo: {trl: {warmup_steps: 1, beta: 1}}", "7:32: beta is said by settings (set train.dpo.settings.beta)"),
        ("ppo: {rewards: [{kind: rules}]}", "7:19: the key 'terms' is missing"),
        ("ppo: {rewards: [{kind: model}, {weight: 2}]}", "7:34: the key 'kind' is missing"),
        ("ppo: {rewards: [{kind: modl}]}", "7:26: no reward 'modl'; did you mean 'model'? (one of: judge, "),
        ("ppo: {rewards: [{kind: model, weight: much}]}", "7:41: weight: must be a number, not the text 'much'"),
        ("ppo: {gold: {g: {kind: model, pth: rm}}}", "7:33: unknown key 'pth'; did you mean 'path'?"),
        ("dpo: {gold: {g: {kind: rating, backend: jugde}}}", "7:43: no model 'jugde'; did you mean 'judge'?"),
    ],
)
def test_faults_of_training_are_told_with_their_place_before_the_run(tmp_path: Path, block: str, expected: str) -> None:
    (line,) = problems(tmp_path, RECIPE + f"train:\n  {block}\n")
    assert line.startswith(f"recipe.yaml:{expected}")


def test_faults_of_training_from_the_command_line_say_which_option(tmp_path: Path) -> None:
    assert problems(tmp_path, RECIPE, "train.dpo.settings.bet=1", "train.ppo.gold={g: {kind: rulez}}") == [
        "--set train.dpo.settings.bet:1:1: unknown key 'bet'; did you mean 'beta'?",
        "--set train.ppo.gold:1:1: no reward 'rulez'; did you mean 'rules'? (one of: judge, model, rating, rules)",
    ]


def test_two_roles_that_name_each_other_are_refused(tmp_path: Path) -> None:
    text = RECIPE + "  critic: reviser\n  reviser: critic\n"
    assert len(problems(tmp_path, text)) == 2


def test_roles_share_or_differ(tmp_path: Path) -> None:
    loaded = load(tmp_path, RECIPE + "  critic: {backend: scripted, name: other}\n  reviser: critic\n")
    names = {role: config.model_dump()["name"] for role, (_, config) in loaded.models.items()}
    assert names == {"policy": "scripted", "critic": "other", "reviser": "other", "judge": "scripted"}
    assert set(load(tmp_path).models) == {"policy", "critic", "reviser", "judge"}


def test_overrides_set_single_keys_and_whole_mappings(tmp_path: Path) -> None:
    text = RECIPE.replace("{backend: scripted}", "{backend: vllm, model: nowhere, context: 99}")
    loaded = load(
        tmp_path, text, "revise.rounds=4", "models={policy: {backend: scripted, seats: 3}}", "revise.draft.top_p=0.5"
    )
    assert loaded.recipe.revise.rounds == 4
    assert loaded.recipe.revise.draft.top_p == 0.5
    name, config = loaded.models["policy"]
    assert (name, config.model_dump()["seats"]) == ("scripted", 3)
    assert load(tmp_path, RECIPE, "prompts=[{path: a.txt}, {path: b.txt}]").recipe.prompts[1].path == "b.txt"


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("revise.rounds", "not of the form key=value: 'revise.rounds'"),
        ("=4", "not of the form key=value"),
        ("name.x=4", "'x' is not below a mapping"),
        ("name.x.y=4", "'x' is not below a mapping"),
        ("prompts.0.path=x", "'0' is not below a mapping"),
        ("revise.rounds=[", "--set revise.rounds:1:2: not valid YAML"),
    ],
)
def test_a_malformed_override_is_refused(tmp_path: Path, override: str, expected: str) -> None:
    with pytest.raises(InputError) as caught:
        load(tmp_path, RECIPE, override)
    assert expected in str(caught.value)


def test_a_fault_of_an_override_says_which(tmp_path: Path) -> None:
    text = RECIPE + "revise: {rounds: 2, rouds: 3}\n"
    given = (
        "revise.rounds=no",
        "revise.draft.top_q=1",
        "models.policy.seats=0",
        "models.critic={backend: scripted, x: 1}",
    )
    assert problems(tmp_path, text, *given[:2]) == [
        "--set revise.draft.top_q:1:1: unknown key 'top_q'; did you mean 'top_p'?",
        "--set revise.rounds:1:1: revise.rounds: must be a whole number, not the text 'no'",
        "recipe.yaml:6:21: unknown key 'rouds'; did you mean 'rounds'?",
    ]
    assert problems(tmp_path, RECIPE, *given[2:]) == [
        "--set models.critic:1:1: unknown key 'x'; known keys: context, delay, fail, name, rules, seats, words",
        "--set models.policy.seats:1:1: seats: must be greater than or equal to 1",
    ]


def test_a_servers_model_is_a_name_whatever_it_looks_like(tmp_path: Path) -> None:
    (tmp_path / "models" / "foo").mkdir(parents=True)
    for name in ("models/foo", "./models/foo", "/models/foo"):
        text = RECIPE.replace("scripted}", f"openai, url: 'http://x/v1', model: {name}}}")
        assert load(tmp_path, text).models["policy"][1].model_dump()["model"] == name


def test_a_path_of_a_model_here_is_the_recipes_own(tmp_path: Path) -> None:
    loaded = load(tmp_path, RECIPE.replace("scripted}", "vllm, model: models/foo, chat_template: own.jinja}"))
    options = loaded.models["policy"][1].model_dump()
    assert options["model"] == str(tmp_path / "models" / "foo")
    assert options["chat_template"] == str(tmp_path / "own.jinja")


def test_a_template_in_place_of_its_file_is_refused(tmp_path: Path) -> None:
    template = "{% for turn in messages %}{{ turn.content }}{% endfor %}" * 99
    (line,) = problems(tmp_path, RECIPE.replace("scripted}", f"vllm, model: m, chat_template: '{template}'}}"))
    assert line == "recipe.yaml:5:52: chat_template: must be the name of a Jinja file, not the template itself"


def test_an_empty_recipe_and_one_that_is_not_there(tmp_path: Path) -> None:
    assert problems(tmp_path, "") == ["recipe.yaml:1:1: must be a mapping of keys to values, but is empty"]
    with pytest.raises(InputError, match="cannot read the file"):
        load_recipe(tmp_path / "none.yaml")


def test_the_resolved_recipe_is_the_same_recipe_from_anywhere(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    text = RECIPE + "constitution: own/c.yaml\nreuse: [../other]\nrevise: {rounds: 3}\n"
    text = text.replace("{backend: scripted}", "{backend: vllm, model: ./model}")
    first = load(tmp_path, text)
    elsewhere = tmp_path / "runs" / "test" / "recipe.yaml"
    elsewhere.parent.mkdir(parents=True)
    elsewhere.write_text(yaml.safe_dump(first.resolved()))
    again = load_recipe(elsewhere)
    assert again.resolved() == first.resolved()
    assert again.recipe.revise == first.recipe.revise
    assert again.models == first.models
    assert again.resolve(again.recipe.prompts[0].path) == tmp_path / "prompts.jsonl"
    assert again.recipe.constitution == str(tmp_path / "own" / "c.yaml")
    assert again.recipe.reuse == (str(tmp_path.parent / "other"),)
    assert again.recipe.prompts[0].label == first.recipe.prompts[0].label == "prompts.jsonl"


@pytest.mark.parametrize("place", ["beside", "here", "shipped"])
def test_a_constitutions_name_means_the_nearest_and_goes_on_to_mean_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    folders = {name: tmp_path / name for name in ("beside", "here", "elsewhere")}
    for name, folder in folders.items():
        (folder / "constitution").mkdir(parents=True)
        if name == "elsewhere" or (place, name) in {("beside", "beside"), ("beside", "here"), ("here", "here")}:
            (folder / "constitution" / "default.yaml").write_text("name: default\nprinciples: [{id: brevity}]\n")
    folders["shipped"] = shipped_dir("constitution").parent
    monkeypatch.chdir(folders["here"])
    first = load(folders["beside"], RECIPE + "constitution: default\n")
    found = folders[place] / "constitution" / "default.yaml"
    assert first.constitution().resolve() == found
    resolved = first.resolved()
    assert resolved["constitution"] == str(found)
    monkeypatch.chdir(folders["elsewhere"])
    again = load(folders["elsewhere"], yaml.safe_dump(resolved))
    assert again.constitution() == found
    assert again.resolved()["constitution"] == str(found)


def test_rewards_and_gold_go_on_to_mean_the_same_files(tmp_path: Path) -> None:
    (tmp_path / "constitution").mkdir()
    own = tmp_path / "constitution" / "default.yaml"
    own.write_text("name: default\nprinciples: [{id: brevity}]\n")
    judge = "{kind: judge, constitution: default, references: r.jsonl, judge: {method: logprob, prompt: mine/j.yaml}}"
    rating, named = "{kind: rating, prompt: mine/r.yml}", "{kind: rating, prompt: rate}"
    train = f"{{rewards: [{judge}, {named}], gold: {{g: {{kind: model, path: rm}}, prompt: {rating}}}}}"
    block = load(tmp_path, RECIPE + f"train: {{ppo: {train}}}\n").resolved()["train"]["ppo"]
    assert block["rewards"][0]["constitution"] == str(own)
    assert block["rewards"][0]["references"] == str(tmp_path / "r.jsonl")
    assert block["rewards"][0]["judge"]["prompt"] == str(tmp_path / "mine" / "j.yaml")
    assert block["rewards"][1]["prompt"] == "rate"
    assert block["gold"]["g"]["path"] == str(tmp_path / "rm")
    assert block["gold"]["prompt"]["prompt"] == str(tmp_path / "mine" / "r.yml")


def test_a_run_is_found_from_the_current_folder_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runs" / "first").mkdir(parents=True)
    snapshot = tmp_path / "runs" / "first" / "constitution.json"
    snapshot.write_text("{}")
    (tmp_path / "recipes").mkdir()
    monkeypatch.chdir(tmp_path)
    assert load(tmp_path / "recipes", RECIPE + "constitution: runs/first\n").constitution().resolve() == snapshot


def test_a_constitution_that_is_nowhere_names_those_beside_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "constitution").mkdir()
    (tmp_path / "constitution" / "kindness.yaml").write_text("")
    with pytest.raises(InputError, match="no constitution 'kindnes'; did you mean 'kindness'") as caught:
        load(tmp_path, RECIPE + "constitution: kindnes\n").constitution()
    assert "kindness" in caught.value.mend


def test_the_label_of_a_source_names_no_folder_of_this_machine(tmp_path: Path) -> None:
    def label(path: str, *more: str) -> str:
        return load(tmp_path, RECIPE, f"prompts=[{{path: {path}{''.join(more)}}}]").recipe.prompts[0].label

    assert label("../data/a.jsonl") == "../data/a.jsonl"
    assert label("~/a.jsonl") == "~/a.jsonl"
    assert label("/home/somebody/a.jsonl") == "a.jsonl"
    assert label("/home/somebody/a.jsonl", ", source: our set") == "our set"


def test_a_secret_is_named_and_never_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "hunter2")
    text = RECIPE.replace("{backend: scripted}", "{backend: openai, url: 'http://x/v1', model: m, api_key_env: MY_KEY}")
    resolved = yaml.safe_dump(load(tmp_path, text).resolved())
    assert "MY_KEY" in resolved
    assert "hunter2" not in resolved
