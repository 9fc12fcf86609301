"""SFT, reward model and DPO on a tiny model: what they leave, resuming, and errors in one line."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

from cai.errors import InputError, StoreError  # noqa: E402
from cai.records import Message  # noqa: E402
from cai.training import algorithms  # noqa: E402
from cai.training.base import Job, Outcome, TrainingError  # noqa: E402
from cai.training.data import PairSource  # noqa: E402
from tests.training import tiny_rl  # noqa: E402
from tests.training.test_pairs import preferences, write  # noqa: E402

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("one_thread")]
FAST: dict[str, Any] = {"batch": 2, "micro_batch": 2, "learning_rate": 0.01, "max_length": 128, "save_every": 2}


def job(folder: Path, name: str, **changes: Any) -> Job:
    """A job on a tiny model, which is made where it is not there yet."""
    model = folder / "model"
    if not model.is_dir():
        tiny_rl.write_model(model)
        write(folder / "trl", preferences(12, p=0.9), test=9)
        sft = folder / "sft"
        sft.mkdir()
        for split, count in (("train", 8), ("test", 2)):
            rows = [
                {
                    "messages": [
                        {"role": "user", "content": f"say {tiny_rl.WORDS[n]}"},
                        {"role": "assistant", "content": tiny_rl.WORDS[n]},
                    ]
                }
                for n in range(count)
            ]
            (sft / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    given = Job(
        name=name,
        out=folder / name,
        parent=model,
        seed=0,
        conversations=folder / "sft",
        pairs=(PairSource("ai", folder / "trl"),),
        lineage={"run": "tiny"},
        say=lambda _: None,
    )
    given = dataclasses.replace(given, **changes)
    given.steps.mkdir(parents=True, exist_ok=True)
    return given


def train(given: Job, **settings: Any) -> Outcome:
    module = algorithms.load(given.name)
    return module.train(given, module.Config(**(FAST | settings)))


def rows(given: Job) -> list[dict[str, Any]]:
    return [json.loads(line) for line in given.metrics.read_text("utf-8").splitlines()]


def losses(given: Job) -> dict[int, float]:
    return {row["step"]: row["loss"] for row in rows(given) if "loss" in row}


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

    from cai.training.models import Lora, load_trained, peft_config

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


@pytest.mark.parametrize("kind", ["causal", "reward"])
def test_what_adapters_learn_below_the_last_bit_of_their_base_is_saved(tmp_path: Path, kind: Any) -> None:
    from peft import get_peft_model
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    from cai.training.models import Lora, load_tokenizer, load_trained, peft_config, save

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


@pytest.mark.parametrize("name", ["sft", "rm", "dpo"])
def test_a_stopped_training_goes_on_with_the_same_curve(tmp_path: Path, name: str) -> None:
    whole = job(tmp_path, name)
    train(whole, epochs=4, save_every=1)
    code = (
        "import sys; from pathlib import Path; import torch; torch.set_num_threads(1);"
        "from tests.training.test_algorithms import job, train;"
        "train(job(Path(sys.argv[1]), sys.argv[2], out=Path(sys.argv[1]) / 'killed'), epochs=4, save_every=1)"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    process = subprocess.Popen([sys.executable, "-W", "ignore", "-c", code, str(tmp_path), name], env=environment)
    steps = tmp_path / "killed" / "steps"
    while process.poll() is None and not any(steps.glob("checkpoint-*/trainer_state.json")):
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert any(steps.glob("checkpoint-*"))
    again = job(tmp_path, name, out=tmp_path / "killed")
    train(again, epochs=4, save_every=1)
    one, other = losses(whole), losses(again)
    assert one.keys() == other.keys()
    for step, loss in one.items():
        assert other[step] == pytest.approx(loss, abs=1e-5)


def test_another_setting_on_begun_steps_is_refused(tmp_path: Path) -> None:
    given = job(tmp_path, "sft")
    train(given, max_steps=2)
    with pytest.raises(InputError, match="another settings"):
        train(given, max_steps=2, learning_rate=0.5)


def test_what_changes_memory_alone_may_change_on_the_way(tmp_path: Path) -> None:
    given = job(tmp_path, "sft")
    train(given, max_steps=2, batch=4, micro_batch=4)
    again = dataclasses.replace(given, trl={"gradient_checkpointing": True})
    assert train(again, max_steps=2, batch=4, micro_batch=2).metrics["steps"] == 2
    with pytest.raises(ValueError, match="multiple of micro_batch"):
        train(given, batch=6, micro_batch=4)


def test_another_number_of_processes_on_begun_steps_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cai.training import runner

    given = job(tmp_path, "sft")
    train(given, max_steps=1)
    monkeypatch.setattr(runner, "processes", lambda: 2)
    with pytest.raises(InputError, match="another process count"):
        train(given, max_steps=1)
    path = given.steps / "inputs.json"
    told = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps({key: told[key] for key in told if key != "process count"}), "utf-8")
    assert train(given, max_steps=1).metrics["steps"] == 1, "an older version did not tell"


def test_a_checkpoint_that_was_not_written_to_its_end_is_none(tmp_path: Path) -> None:
    given = job(tmp_path, "sft")
    train(given, max_steps=2, save_every=1)
    path = given.steps / "checkpoint-2" / "trainer_state.json"
    path.write_bytes(path.read_bytes()[:100])
    said: list[str] = []
    train(dataclasses.replace(given, say=said.append), max_steps=2, save_every=1)
    assert "resumes from step 1" in said
    assert list(losses(given)) == [1, 2]


def test_figures_are_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cai.training import runner

    def full(row: Any) -> bytes:
        raise OSError(28, "No space left on device")

    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n', "utf-8")
    before = path.read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(runner, "encode", full)
        with pytest.raises(StoreError, match="the disk is full"):
            runner._forget_after(path, 1)
    assert path.read_bytes() == before
    runner._forget_after(path, 1)
    assert path.read_text("utf-8") == '{"step": 1}\n'


def test_a_training_without_a_step_has_not_been_one(tmp_path: Path) -> None:
    given = job(tmp_path, "sft", trl={"dataloader_drop_last": True})
    with pytest.raises(TrainingError, match="no step was made"):
        train(given, max_steps=2, batch=16, micro_batch=16)


@pytest.mark.parametrize("name", ["sft", "rm", "dpo"])
def test_what_was_refused_or_died_before_a_checkpoint_has_begun_nothing(tmp_path: Path, name: str) -> None:
    given = job(tmp_path, name)
    with pytest.raises(InputError, match="has no 'warmup_ratio'"):
        train(dataclasses.replace(given, trl={"warmup_ratio": 0.1}), max_steps=1)
    assert not any(given.steps.iterdir())
    given.metrics.write_text('{"step":1,"loss":9.0}\n', "utf-8")  # of one that died before its first checkpoint
    (given.steps / "inputs.json").write_text(json.dumps({"settings": {"learning_rate": 5.0}}), "utf-8")
    train(dataclasses.replace(given, trl={"warmup_steps": 0.1}), max_steps=1)
    assert [row["step"] for row in rows(given) if "loss" in row] == [1]


def test_what_can_be_known_before_is_said_before(tmp_path: Path) -> None:
    given = job(tmp_path, "sft")
    with pytest.raises(InputError, match=r"config\.json is missing"):
        train(dataclasses.replace(given, parent=tmp_path / "nowhere"))
    with pytest.raises(InputError, match="has no 'learning_rat'"):
        train(dataclasses.replace(given, trl={"learning_rat": 1}))
    (tmp_path / "long").mkdir()
    row = {"messages": [{"role": "user", "content": "say " * 40}, {"role": "assistant", "content": "yes"}]}
    (tmp_path / "long" / "train.jsonl").write_text(json.dumps(row) + "\n", "utf-8")
    with pytest.raises(InputError, match="longer than 16 tokens"):
        train(dataclasses.replace(given, conversations=tmp_path / "long"), max_length=16)
    config = json.loads((given.parent / "config.json").read_text("utf-8"))
    (given.parent / "config.json").write_text(json.dumps({**config, "vocab_size": 3}), "utf-8")
    with pytest.raises(InputError, match="of different models"):
        train(given)
    (given.parent / "config.json").write_text(json.dumps({**config, "architectures": ["LlamaModel"]}), "utf-8")
    with pytest.raises(InputError, match="not a language model"):
        train(given)


def test_no_chat_template_is_said(tmp_path: Path) -> None:
    given = job(tmp_path, "rm")
    path = given.parent / "tokenizer_config.json"
    told = json.loads(path.read_text("utf-8"))
    told.pop("chat_template", None)
    path.write_text(json.dumps(told), "utf-8")
    (given.parent / "chat_template.jinja").unlink(missing_ok=True)
    with pytest.raises(InputError, match="no chat template"):
        train(given)


@pytest.mark.parametrize("name", ["sft", "rm", "ppo"])
def test_a_template_that_refuses_a_conversation_is_one_line(tmp_path: Path, name: str) -> None:
    given = job(tmp_path, name, prompts=tiny_rl.prompts(3), reward=tiny_rl.Share("red"))
    no_users = "{{ raise_exception('Only a system may speak') }}"
    (given.parent / "chat_template.jinja").write_text(no_users, "utf-8")
    module = algorithms.load(name)
    with pytest.raises(InputError, match=r"begins 'say.*refuses the turns user.*Only a system may speak.*leave such"):
        module.train(given, module.Config())


def test_a_loss_that_is_no_number_ends_it(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    given = job(tmp_path, "sft")
    path = given.parent / "model.safetensors"
    weights = load_file(path)
    weights["model.norm.weight"] = torch.full_like(weights["model.norm.weight"], float("nan"))
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(TrainingError, match="is nan at step"):
        train(given)


@pytest.mark.parametrize("what", ["loss", "grad_norm"])
@pytest.mark.parametrize("adapters", [False, True])
def test_what_is_no_number_is_seen_in_its_step_however_rarely_it_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, adapters: bool
) -> None:
    from transformers import Trainer

    steps = []
    computes = Trainer.training_step

    def spoilt(self: Any, model: Any, *given: Any, **named: Any) -> Any:
        loss = computes(self, model, *given, **named)
        steps.append(loss)
        if len(steps) != 3:
            return loss
        if what == "loss":
            return loss * float("nan")
        next(p for p in model.parameters() if p.grad is not None).grad[0, 0] = float("inf")
        return loss

    monkeypatch.setattr(Trainer, "training_step", spoilt)
    given = job(tmp_path, "dpo", trl={"logging_steps": 500})
    lora = {"rank": 2} if adapters else None
    with pytest.raises(TrainingError, match=f"the {what} is (nan|inf) at step 3"):
        train(given, max_steps=4, save_every=1, lora=lora)
    assert len(steps) == 3
    assert [path.name for path in sorted(given.steps.glob("checkpoint-*"))] == ["checkpoint-1", "checkpoint-2"]


def test_what_is_finished_makes_no_further_step(tmp_path: Path) -> None:
    given = job(tmp_path, "dpo")
    first = train(given, max_steps=1)
    told = losses(given)
    again = train(given, max_steps=1)
    assert losses(given) == told
    assert list(told) == [1]
    assert again.metrics["steps"] == first.metrics["steps"] == 1
    assert again.metrics["train_loss"] == pytest.approx(first.metrics["train_loss"])


def test_what_the_watch_ended_stays_ended(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    class Falling:
        """Less with every look, by nearly the same for each answer."""

        name = "falls"
        calls = 0

        def __call__(self, prompts: Any, answers: Any) -> list[float]:
            self.calls += 1
            return [-self.calls - 0.01 * place for place, _ in enumerate(answers)]

    given = dataclasses.replace(job(tmp_path, "dpo"), watched=tiny_rl.prompts(6), gold={"falls": Falling()})
    settings: dict[str, Any] = {"epochs": 3, "watch": {"every": 2, "prompts": 6, "max_tokens": 3}}
    first = train(given, **settings)
    told = losses(given)
    assert max(told) < 10, "it did not stop"
    assert first.metrics["watch"]["best_step"] == 0
    lineage = json.loads((first.checkpoint / "lineage.json").read_text("utf-8"))
    assert (lineage["step"], lineage["gold"]["falls"]["name"]) == (0, "falls")
    weights = load_file(first.checkpoint / "model.safetensors")
    again = train(given, **settings)
    assert losses(given) == told
    assert again.metrics["watch"] == first.metrics["watch"]
    same = load_file(again.checkpoint / "model.safetensors")
    assert all(torch.equal(weights[name], same[name]) for name in weights)


def test_dpo_is_watched_where_there_is_a_gold_score(tmp_path: Path) -> None:
    given = dataclasses.replace(
        job(tmp_path, "dpo"),
        watched=tiny_rl.prompts(6),
        gold={"red": tiny_rl.Share("red"), "yes": tiny_rl.Share("yes")},
    )
    outcome = train(given, epochs=2, lora={"rank": 4}, watch={"every": 4, "prompts": 4, "max_tokens": 6})
    looks = [json.loads(line) for line in (given.out / "watch.jsonl").read_text("utf-8").splitlines()]
    assert [look["step"] for look in looks] == ["0", "4", "8", "9"] or len(looks) >= 3
    assert looks[0]["kl"] == pytest.approx(0, abs=1e-5)
    assert looks[-1]["kl"] != 0
    assert len(looks[0]["gold"]["red"]) == 4
    assert (given.out / "watch.png").is_file()
    assert outcome.metrics["watch"]["looks"] == len(looks)
