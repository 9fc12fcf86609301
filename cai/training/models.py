"""Loading a parent, LoRA, and leaving a checkpoint that transformers and vLLM load as it is."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from cai.allocator import keep_freed_memory
from cai.errors import InputError
from cai.records import Message
from cai.training.data import common_start, tokens
from cai.yamlfile import StrictModel, nearest

Kind = Literal["causal", "reward"]


class Lora(StrictModel):
    """Low-rank adapters (Hu et al. 2021, arXiv 2106.09685), merged into the checkpoint at the end."""

    rank: int = Field(16, ge=1)
    alpha: int = Field(32, ge=1)
    dropout: float = Field(0.0, ge=0, lt=1)
    targets: str | tuple[str, ...] = Field("all-linear", description="Modules, as in peft's target_modules.")


def check_parent(folder: Path, kind: Kind, lora: Any = None) -> None:
    """What can be known of a parent before it is loaded.

    Args:
        lora: the adapters that it is to have, if any.

    Raises:
        InputError: no model there, no tokenizer, no weights, a model of another kind, or none of its modules is what
            adapters are asked for.
    """
    config = folder / "config.json"
    if not config.is_file():
        raise InputError(
            "no model here (config.json is missing)",
            where=str(folder),
            mend="train what comes before, or name the folder of a model as `parent`",
        )
    try:
        told = json.loads(config.read_text("utf-8"))
    except ValueError as error:
        raise InputError(f"config.json cannot be read: {error}", where=str(folder)) from error
    kinds = [str(each) for each in told.get("architectures") or []]
    if kind == "causal" and kinds and not any(each.endswith("ForCausalLM") for each in kinds):
        raise InputError(f"is not a language model but {', '.join(kinds)}", where=str(folder))
    if not any(folder.glob("*.safetensors")):
        raise InputError("has no weights in safetensors", where=str(folder), mend="save it with save_pretrained")
    if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json", "tokenizer.model")):
        raise InputError("has no tokenizer", where=str(folder), mend="copy the tokenizer's files beside the weights")
    same_vocabulary(folder, told)
    if lora is not None and lora.targets != "all-linear":
        _check_targets(folder, kind, lora.targets)


def _check_targets(folder: Path, kind: Kind, targets: str | Sequence[str]) -> None:
    """Adapters that have a place, by peft's rule: a text is a pattern for whole names, each of a list ends a name.

    Raises:
        InputError: one has none; peft would say so once all is loaded, and only if none of a list has one.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

    made = AutoModelForSequenceClassification if kind == "reward" else AutoModelForCausalLM
    with torch.device("meta"):  # without weights
        model = made.from_config(AutoConfig.from_pretrained(folder))
    names = {
        name for name, module in model.named_modules() if isinstance(getattr(module, "weight", None), torch.Tensor)
    }
    patterns = [targets] if isinstance(targets, str) else [rf"(.*\.)?{re.escape(target)}" for target in targets]
    for target, pattern in zip([targets] if isinstance(targets, str) else targets, patterns, strict=True):
        try:
            found = any(re.fullmatch(pattern, name) for name in names)
        except re.error as error:
            raise InputError(f"not a pattern: {error}", where="settings.lora.targets") from error
        if not found:
            ends = sorted({name.rpartition(".")[2] for name in names})
            raise InputError(
                f"the model has no module {target!r}{nearest(target, ends)}",
                where="settings.lora.targets",
                mend=f"modules end in: {', '.join(ends)}; a list names such ends, a text is a pattern for whole names",
            )


def check_room(folder: Path, longest: int, new: int, *, context: int | None = None) -> None:
    """That a model can read prompts and the answers to them.

    Args:
        longest: tokens of the longest prompt.
        new: tokens of the longest answer.
        context: of the engine that writes the answers, where it is less than the model's.

    Raises:
        InputError: it cannot.
    """
    try:
        told = json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError):
        told = {}
    positions = {**told, **told.get("text_config", {})}.get("max_position_embeddings")
    for what, room in (("the model", positions), ("the engine's context", context)):
        if isinstance(room, int) and longest + new > room:
            raise InputError(
                f"{what} has room for {room} tokens, and prompts of up to {longest} with answers of {new} need more",
                where=str(folder),
                mend="lower the new tokens, or leave the longest prompts out",
            )


def same_vocabulary(folder: Path, config: dict[str, Any]) -> None:
    """A tokenizer that the model's embeddings cover.

    Raises:
        InputError: the tokenizer has ids that the model has no embedding for: it belongs to another model.
    """
    path, size = folder / "tokenizer.json", config.get("vocab_size")
    if not path.is_file() or not isinstance(size, int):
        return
    try:
        told = json.loads(path.read_text("utf-8"))
        vocabulary = told["model"]["vocab"]
        ids = vocabulary.values() if isinstance(vocabulary, dict) else range(len(vocabulary))
        highest = max([*ids, *(int(token["id"]) for token in told.get("added_tokens", []))])
    except (ValueError, KeyError, TypeError):
        return
    if highest >= size:
        raise InputError(
            f"the tokenizer has {highest + 1} tokens, the model {size} embeddings: they are of different models",
            where=str(folder),
        )


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer, padding on the right, its pad token set."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "right"
    return tokenizer


def pad_for_scores(tokenizer: Any, ends: Collection[int]) -> int | None:
    """A special token to pad scored rows with, none of which may end with it; the one it has, where that is such a one.

    A classifier of transformers reads the score at the rightmost token that is not its pad token. Padded with what the
    chat template ends answers with, it would read another than the last, which is what other engines read.

    Args:
        ends: last tokens of rows.

    Returns:
        None: there is no such token.
    """
    added = [id_ for id_, token in sorted(tokenizer.added_tokens_decoder.items()) if token.special]
    own = [] if tokenizer.pad_token_id is None else [tokenizer.pad_token_id]
    return next((id_ for id_ in (*own, *tokenizer.all_special_ids, *added) if id_ not in ends), None)


def load_model(folder: Path, kind: Kind, *, dtype: str, pad: int, seed: int) -> Any:
    """A causal model, or a classifier with one output whose new head is drawn by `seed`."""
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
    from transformers.utils import logging

    if not torch.cuda.is_available():
        keep_freed_memory()  # a step's logits and activations are hundreds of MB
    torch.manual_seed(seed)
    logging.disable_progress_bar()
    before = logging.get_verbosity()
    logging.set_verbosity_error()  # that a reward head is new is no news
    try:
        if kind == "reward":
            model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=dtype, num_labels=1)
        else:
            model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    finally:
        logging.set_verbosity(before)
    model.config.get_text_config().pad_token_id = pad
    return model


def held_in(dtype: str, *, adapters: bool) -> str:
    """The type that a model to be trained is held in.

    Eight bits of a bfloat16 weight do not hold a step of 1e-5: where every weight is trained they are float32, and
    `dtype` is that of the arithmetic alone (autocast). A base under adapters is not trained, and may be `dtype`: a
    float32 parent is rounded to it, and it is the rounded one that the adapters learn on.
    """
    return dtype if adapters else "float32"


def load_trained(folder: Path, kind: Kind, *, lora: Lora | None, dtype: str, pad: int, seed: int) -> Any:
    """A model to be trained, see `held_in`; a reward head is float32 also on a bfloat16 base, for it is always trained.

    peft makes its own adapters float32.
    """
    model = load_model(folder, kind, dtype=held_in(dtype, adapters=lora is not None), pad=pad, seed=seed)
    if kind == "reward":
        model.score.float().register_forward_pre_hook(_as_weight)  # outside of autocast as well
    return model


def _as_weight(module: Any, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    return (arguments[0].to(module.weight.dtype),)


def share_weights(model: Any, processes: int) -> None:
    """Give every process the first one's weights: with accelerate's `fsdp_cpu_ram_efficient_loading` the others have
    loaded zeros, and get theirs only when FSDP shards the model.
    """
    if processes > 1:
        import torch

        for tensor in model.state_dict().values():
            torch.distributed.broadcast(tensor, 0)


def peft_config(lora: Lora | None, kind: Kind) -> Any:
    """peft's own, or None for training every weight."""
    if lora is None:
        return None
    from peft import LoraConfig

    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.targets if isinstance(lora.targets, str) else list(lora.targets),
        task_type="SEQ_CLS" if kind == "reward" else "CAUSAL_LM",
        modules_to_save=["score"] if kind == "reward" else None,
    )


def widened(model: Any) -> Any:
    """A model whose adapters are to be merged, in float32 from here on, and where there is room for that.

    A bfloat16 weight keeps nothing of a change below half of its last bit, and most of what adapters learn is.
    """
    return model.to("cpu").float()


def save(model: Any, tokenizer: Any, folder: Path, *, parent: Path) -> None:
    """Adapters merged, in float32: what was trained, all of it; safetensors and tokenizer; it generates as its parent
    does.
    """
    if hasattr(model, "merge_and_unload"):
        model = widened(model).merge_and_unload()
    if model.can_generate():
        model.generation_config = generation_config(parent, tokenizer)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def generation_config(parent: Path, tokenizer: Any) -> Any:
    """The parent's own, read anew, since what generates during a training (TRL, peft, a look) leaves its traces in the
    model's; the tokenizer's end token, and what the chat template ends answers with, are among those that end one.
    """
    from transformers import GenerationConfig

    try:
        found = GenerationConfig.from_pretrained(parent)
    except OSError:  # it has none: what its config says, as transformers itself does
        found = GenerationConfig.from_pretrained(parent, config_file_name="config.json", _from_model_config=True)
    told = found.eos_token_id
    ends = [token for token in (told if isinstance(told, list) else [told]) if token is not None]
    new = [token for token in (tokenizer.eos_token_id, _end_of_answers(tokenizer)) if token not in (None, *ends)]
    if new:
        found.eos_token_id = [*dict.fromkeys(new), *ends]
    return found


def _end_of_answers(tokenizer: Any) -> int | None:
    """The special token that the chat template puts behind an answer, which need not be the tokenizer's end token."""
    if not tokenizer.chat_template:
        return None
    asked = (Message("user", "x"),)
    whole = tokens(tokenizer, (*asked, Message("assistant", "x")))
    answer = whole[common_start(tokens(tokenizer, asked, begin_answer=True), whole) :]
    special = {*tokenizer.all_special_ids, *(i for i, t in tokenizer.added_tokens_decoder.items() if t.special)}
    special.discard(tokenizer.unk_token_id)  # part of the answer
    return next((token for token in answer if token in special), None)
