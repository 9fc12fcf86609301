"""SFT, reward model and DPO on a tiny model: what they leave and report."""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

from cai.errors import InputError  # noqa: E402
from cai.records import Message  # noqa: E402
from cai.training import algorithms, models  # noqa: E402
from cai.training.models import Lora  # noqa: E402
from tests.training import tiny_rl  # noqa: E402
from tests.training.jobs import job, losses, train  # noqa: E402

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("one_thread")]


@pytest.mark.parametrize("name", ["sft", "rm", "dpo"])
def test_leaves_a_checkpoint_that_loads_and_learns(tmp_path: Path, name: str) -> None:
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

    given = job(tmp_path, name)
    outcome = train(given, epochs=6)
    kind = AutoModelForSequenceClassification if name == "rm" else AutoModelForCausalLM
    model = kind.from_pretrained(outcome.checkpoint)
    assert AutoTokenizer.from_pretrained(outcome.checkpoint).chat_template
    assert any(outcome.checkpoint.glob("*.safetensors"))
    assert not list(given.out.rglob("training_args.bin"))
    found = losses(given)
    assert found[max(found)] < found[min(found)]
    lineage = json.loads((outcome.checkpoint / "lineage.json").read_text("utf-8"))
    assert lineage["algorithm"] == name
    assert lineage["run"] == "tiny"
    assert lineage["step"] == outcome.metrics["steps"]
    assert lineage["parent"]["model"].startswith("model@")
    assert "library_name: transformers" in (outcome.checkpoint / "README.md").read_text("utf-8")
    before = kind.from_pretrained(given.parent, **({"num_labels": 1} if name == "rm" else {}))
    moved = [float((a - b).detach().abs().max()) for a, b in zip(model.parameters(), before.parameters(), strict=True)]
    assert max(moved) > 1e-4


def as_bfloat16(folder: Path) -> dict[str, Any]:
    """The model there, saved again in bfloat16; its weights."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype="bfloat16")
    model.save_pretrained(folder)
    return {name: p.detach().float() for name, p in model.named_parameters()}


@pytest.mark.parametrize("name", ["sft", "rm", "dpo", "grpo"])
def test_bfloat16_trains_every_weight(tmp_path: Path, name: str) -> None:
    """A step of 1e-5 is less than half of a bfloat16 weight's last bit, so the weights themselves must be float32."""
    from safetensors.torch import load_file

    class Letters:
        name = "letters"

        def __call__(self, prompts: Any, answers: Any) -> list[float]:
            return [float(len(answer)) for answer in answers]

    given = job(tmp_path, name, **({"prompts": tiny_rl.prompts(5), "reward": Letters()} if name == "grpo" else {}))
    before = as_bfloat16(given.parent)
    if name == "grpo":
        settings = {"steps": 1, "batch": 8, "micro_batch": 8, "samples_per_prompt": 4, "max_new_tokens": 3}
        module = algorithms.load(name)
        outcome = module.train(given, module.Config(**settings, lora=None, dtype="bfloat16", watch={"prompts": 0}))
    else:
        outcome = train(given, max_steps=1, dtype="bfloat16", learning_rate=1e-5)
    after = load_file(outcome.checkpoint / "model.safetensors")
    inner = [key for key in before if "layers" in key and key in after]
    assert inner
    moved = sum(int((after[key].float() != before[key]).sum()) for key in inner)
    assert moved > 0.9 * sum(before[key].numel() for key in inner)


def test_adapters_and_reward_head_are_float32_on_a_bfloat16_base(tmp_path: Path) -> None:
    from peft import get_peft_model

    from cai.training.models import load_trained, peft_config

    lora, given = Lora(rank=2), job(tmp_path, "rm")
    base = load_trained(given.parent, "reward", lora=lora, dtype="bfloat16", pad=0, seed=0)
    model = get_peft_model(base, peft_config(lora, "reward"))
    trained = {name: p.dtype for name, p in model.named_parameters() if p.requires_grad}
    assert any("score" in name for name in trained)
    assert set(trained.values()) == {torch.float32}
    assert base.get_input_embeddings().weight.dtype == torch.bfloat16
    assert model(input_ids=torch.tensor([[5, 6, 2]])).logits.shape == (1, 1)
    assert train(given, max_steps=1, dtype="bfloat16", lora={"rank": 2}).metrics["steps"] == 1


def test_adapters_are_merged(tmp_path: Path) -> None:
    given = job(tmp_path, "dpo")
    outcome = train(given, lora={"rank": 4}, max_steps=2)
    assert not (outcome.checkpoint / "adapter_config.json").exists()
    assert json.loads((outcome.checkpoint / "config.json").read_text("utf-8"))["architectures"] == ["LlamaForCausalLM"]


@pytest.mark.parametrize("name", ["sft", "rm", "dpo"])
@pytest.mark.parametrize(
    ("targets", "said"),
    [
        (["q_prj"], "no module 'q_prj'.*q_proj"),
        (["q_proj", "v_prj"], "no module 'v_prj'"),
        ("q_proj", "a text is a pattern for whole names"),
        ("(", "not a pattern"),
    ],
)
def test_adapters_that_have_no_place_are_refused_before_anything_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, targets: Any, said: str
) -> None:
    given = job(tmp_path, name)
    monkeypatch.setattr(models, "load_model", None)
    with pytest.raises(InputError, match=f"settings.lora.targets: .*{said}"):
        train(given, lora={"targets": targets})


@pytest.mark.parametrize("targets", [["q_proj", "lm_head"], r".*layers\.1.*(q|v)_proj", "all-linear"])
def test_adapters_that_have_a_place_are_taken(tmp_path: Path, targets: Any) -> None:
    models.check_parent(tiny_rl.write_model(tmp_path), "causal", Lora.model_validate({"targets": targets}))


@pytest.mark.parametrize("kind", ["causal", "reward"])
def test_what_adapters_learn_below_the_last_bit_of_their_base_is_saved(tmp_path: Path, kind: Any) -> None:
    from peft import get_peft_model
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    from cai.training.models import load_tokenizer, load_trained, peft_config, save

    parent, lora = tiny_rl.write_model(tmp_path / "model"), Lora(rank=4)
    base = load_trained(parent, kind, lora=lora, dtype="bfloat16", pad=0, seed=0)
    model = get_peft_model(base, peft_config(lora, kind)).eval()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=1e-4)
    ids = torch.tensor([[5, 6, 2]])
    exact = copy.deepcopy(model).float()
    with torch.no_grad():
        trained = exact(input_ids=ids).logits
        with exact.disable_adapter():
            learnt = trained - exact(input_ids=ids).logits
        save(model, load_tokenizer(parent), tmp_path / "made", parent=parent)
        auto = AutoModelForSequenceClassification if kind == "reward" else AutoModelForCausalLM
        found = auto.from_pretrained(tmp_path / "made", dtype="float32")(input_ids=ids).logits
    assert (found - trained).abs().max() < 0.05 * learnt.abs().max()


@pytest.mark.parametrize("name", ["rm", "dpo"])
def test_dropout_of_adapters_is_applied(tmp_path: Path, name: str) -> None:
    """TRL switches a model's dropout off in both, and would switch off the adapters' as well."""
    told = []
    for dropout in (0.0, 0.5):
        given = job(tmp_path, name, out=tmp_path / str(dropout))
        train(given, max_steps=2, lora={"rank": 4, "dropout": dropout})
        told.append(losses(given)[2])
    assert told[0] != pytest.approx(told[1], abs=1e-6)


@pytest.mark.parametrize("name", ["dpo", "grpo"])
def test_a_watched_model_under_adapters_generates_as_its_parent(tmp_path: Path, name: str) -> None:
    """peft's `generate` writes into the model inside what a look or TRL's own sampling put around it."""
    online: dict[str, Any] = {"prompts": tiny_rl.prompts(5), "reward": tiny_rl.Share("red")}
    more = {"watched": tiny_rl.prompts(4), "gold": {"red": tiny_rl.Share("red")}, **(online if name == "grpo" else {})}
    given = job(tmp_path, name, **more)
    path = given.parent / "generation_config.json"
    told = json.loads(path.read_text("utf-8")) | {"eos_token_id": [tiny_rl.END, 3], "top_p": 0.7, "do_sample": True}
    path.write_text(json.dumps(told), "utf-8")
    watch = {"every": 1, "prompts": 4, "max_tokens": 3}
    if name == "grpo":
        settings = {"steps": 1, "batch": 8, "micro_batch": 8, "samples_per_prompt": 4, "max_new_tokens": 3}
        module = algorithms.load(name)
        outcome = module.train(given, module.Config(**settings, lora={"rank": 2}, watch=watch))
    else:
        outcome = train(given, max_steps=1, lora={"rank": 2}, watch=watch)
    assert json.loads((outcome.checkpoint / "generation_config.json").read_text("utf-8")) == told


def test_a_checkpoint_ends_its_answers_with_its_tokenizers_end(tmp_path: Path) -> None:
    from cai.training.models import generation_config, load_tokenizer

    given = job(tmp_path, "sft")
    path = given.parent / "generation_config.json"
    tokenizer = load_tokenizer(given.parent)
    path.write_text(json.dumps({"eos_token_id": 3}), "utf-8")
    assert generation_config(given.parent, tokenizer).eos_token_id == [tiny_rl.END, 3]
    path.unlink()
    assert generation_config(given.parent, tokenizer).eos_token_id == tiny_rl.END
    # A base model's tokenizer may end texts with another token than its chat template ends answers with.
    config = json.loads((given.parent / "config.json").read_text("utf-8"))
    (given.parent / "config.json").write_text(json.dumps({**config, "eos_token_id": 3}), "utf-8")
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(3)
    assert set(generation_config(given.parent, tokenizer).eos_token_id) == {tiny_rl.END, 3}


def test_a_reward_model_reports_on_held_out_pairs(tmp_path: Path) -> None:
    given = job(tmp_path, "rm")
    outcome = train(given, epochs=2)
    told = json.loads((outcome.checkpoint / "report.json").read_text("utf-8"))
    assert told["pairs"] == 9
    assert set(told["by_axis"]) == {"helpful"}
    assert told["by_source"]["ai"]["n"] == 9
    assert told["batch_drift"] < 1e-4
    assert told["usable"] is False
    assert "too few" in told["why"]


def test_a_reward_models_score_is_read_at_the_last_token_though_its_parent_pads_with_it(tmp_path: Path) -> None:
    """Another engine reads it there; transformers at the rightmost token that is no padding."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from cai.training.data import tokens
    from cai.training.rewards.model import Config, RewardModel

    given = job(tmp_path, "rm")
    path = given.parent / "tokenizer_config.json"
    told = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps({**told, "pad_token": told["eos_token"]}), "utf-8")
    checkpoint = train(given, max_steps=2).checkpoint
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint, dtype="float32")
    assert tokenizer.pad_token_id == model.config.pad_token_id != tiny_rl.END
    prompt = tiny_rl.prompts(1)[0].messages
    answers = ["red", "green blue no"]
    scores = RewardModel(checkpoint, Config())([prompt] * 2, answers)
    for answer, score in zip(answers, scores, strict=True):
        ids = tokens(tokenizer, (*prompt, Message("assistant", answer)))
        assert ids[-1] == tiny_rl.END
        with torch.no_grad():
            read = model.score(model.model(input_ids=torch.tensor([ids])).last_hidden_state[0, -1])
        assert float(read) == pytest.approx(score, abs=1e-5)


def test_a_pad_token_for_scores_is_special_and_ends_no_row(tmp_path: Path) -> None:
    from cai.training.models import load_tokenizer, pad_for_scores

    tokenizer = load_tokenizer(tiny_rl.write_model(tmp_path / "model"))
    pad, unk = 0, 1
    assert pad_for_scores(tokenizer, {tiny_rl.END}) == pad
    assert pad_for_scores(tokenizer, {tiny_rl.END, pad}) == unk
    assert pad_for_scores(tokenizer, {tiny_rl.END, pad, unk}) is None


@pytest.mark.parametrize(
    ("settings", "launcher", "ahead"),
    [
        ({"lora": {"rank": 2}, "max_steps": 1}, False, False),
        ({"lora": {"rank": 2}, "max_steps": 1}, True, True),  # its wrapper hides the adapters
        ({"lora": {"rank": 2}}, False, True),
        ({"max_steps": 1}, False, True),  # every weight moves: afterwards there is no reference left to ask
    ],
)
def test_a_dpo_that_ends_early_does_not_read_the_reference_of_what_it_never_sees(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], launcher: bool, ahead: bool
) -> None:
    from cai import processes
    from cai.training.trainers import SoftDPOTrainer

    monkeypatch.setattr(processes, "launched", lambda: launcher)
    read = []
    original = SoftDPOTrainer._precompute_ref_logps

    def spy(trainer: Any, dataset: Any, name: str, batch_size: int) -> Any:
        read.append(name)
        return original(trainer, dataset, name, batch_size)

    monkeypatch.setattr(SoftDPOTrainer, "_precompute_ref_logps", spy)
    outcome = train(job(tmp_path, "dpo"), **settings)
    assert bool(read) == ahead
    assert "eval_loss" in outcome.metrics  # held-out groups need their reference too


def test_dpo_is_watched_where_there_is_a_gold_score(tmp_path: Path) -> None:
    given = dataclasses.replace(
        job(tmp_path, "dpo"),
        watched=tiny_rl.prompts(6),
        gold={"red": tiny_rl.Share("red"), "yes": tiny_rl.Share("yes")},
    )
    outcome = train(given, epochs=2, lora={"rank": 4}, watch={"every": 4, "prompts": 4, "max_tokens": 6})
    looks = [json.loads(line) for line in (given.out / "watch.jsonl").read_text("utf-8").splitlines()]
    assert [look["step"] for look in looks] == ["0", "4", "8", "10"]
    assert looks[0]["kl"] == pytest.approx(0, abs=1e-5)
    assert looks[-1]["kl"] != 0
    assert len(looks[0]["gold"]["red"]) == 4
    assert (given.out / "watch.png").is_file()
    assert outcome.metrics["watch"]["looks"] == len(looks)
