"""The score of a reward model: a sequence classifier with one output, as `cai train rm` makes it.

A row's score is read at its own last token that is not the model's pad token: at the last one in what `cai train rm`
makes, whose pad token ends no row (see `cai.training.models.pad_for_scores`); another's model may read it before. It is
independent of the rows beside it: padding is on the right, and a causal model's token sees nothing behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from cai.errors import InputError
from cai.modelfolder import chats, fingerprint
from cai.records import Message, Messages, Prompt, content_hash
from cai.training.base import TrainingError
from cai.training.data import tokens
from cai.training.lineage import read_lineage
from cai.training.models import pad_for_scores
from cai.training.rewards import Tools
from cai.training.rmreport import doubt
from cai.yamlfile import StrictModel


class Config(StrictModel):
    """Options of the reward model."""

    path: str = Field("", description="Its folder; blank: what this run's `train rm` made.")
    batch: int = Field(16, ge=1, description="Conversations in one forward pass.")
    max_tokens: int = Field(4096, ge=16, description="Longer conversations cannot be scored.")
    dtype: Literal["float32", "bfloat16"] = "float32"
    shift: float = Field(0.0, description="Taken off each score, so that a typical answer has 0.")
    scale: float = Field(1.0, gt=0, description="What each score is divided by then.")


class RewardModel:
    """See `cai.training.base.Reward`. Loads the model with the first call.

    Attributes:
        doubt: what its own report says against it; see `cai.training.rmreport`.
    """

    name = "reward model"

    def __init__(self, folder: Path, config: Config, *, doubt: str = "") -> None:
        model = fingerprint(folder, dtype=config.dtype)
        self.id = content_hash("reward model", model, config.max_tokens, config.shift, config.scale)
        self.measure = content_hash("reward model", fingerprint(folder))
        self.origin = {"model": model, "lineage": read_lineage(folder), "options": config.model_dump(mode="json")}
        self.doubt = doubt
        self._folder = folder
        self._config = config
        self._model: Any = None
        self._tokenizer: Any = None

    def __call__(self, prompts: Sequence[Messages], answers: Sequence[str]) -> list[float]:
        import torch

        self._load()
        rows = [self._tokens(prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)]
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        pad = self._model.config.get_text_config().pad_token_id
        scores: dict[int, float] = {}
        for begin in range(0, len(order), self._config.batch):
            some = order[begin : begin + self._config.batch]
            ids = torch.full((len(some), max(len(rows[i]) for i in some)), pad)
            mask = torch.zeros_like(ids)
            for place, i in enumerate(some):
                ids[place, : len(rows[i])] = torch.tensor(rows[i])
                mask[place, : len(rows[i])] = 1
            device = self._model.device
            with torch.no_grad():
                logits = self._model(input_ids=ids.to(device), attention_mask=mask.to(device), use_cache=False).logits
            scores.update(zip(some, logits[:, 0].float().tolist(), strict=True))
        return [(scores[i] - self._config.shift) / self._config.scale for i in range(len(rows))]

    def _tokens(self, prompt: Messages, answer: str) -> list[int]:
        ids = tokens(self._tokenizer, (*prompt, Message("assistant", answer)))
        if len(ids) > self._config.max_tokens:
            raise TrainingError(
                f"{len(ids)} tokens are more than the reward model is given ({self._config.max_tokens})",
                where=f"prompt {Prompt.make(prompt).id}",
                mend="raise its max_tokens, or lower max_new_tokens",
            )
        return ids

    def _load(self) -> None:
        if self._model is not None:
            return
        import torch
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        self._tokenizer = AutoTokenizer.from_pretrained(self._folder)
        model = AutoModelForSequenceClassification.from_pretrained(self._folder, dtype=self._config.dtype)
        text = model.config.get_text_config()
        if text.pad_token_id is None:
            closed = tokens(self._tokenizer, (Message("user", "x"), Message("assistant", "x")))
            pad = pad_for_scores(self._tokenizer, {closed[-1]})
            text.pad_token_id = self._tokenizer.eos_token_id if pad is None else pad
        self._model = model.to("cuda" if torch.cuda.is_available() else "cpu").eval()


def build(config: Config, tools: Tools) -> RewardModel:
    """The reward; checks the folder without loading the model.

    Raises:
        InputError: no reward model there, one with several outputs, or no chat template.
    """
    import json

    if config.path:
        folder = tools.path(config.path)
    elif tools.reward_model is not None:
        folder = tools.reward_model
    else:
        raise tools.no_model()
    try:
        told = json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"no model here: {error}", where=str(folder), mend="run `cai train rm` first") from error
    kinds = told.get("architectures") or []
    if not any(str(kind).endswith("ForSequenceClassification") for kind in kinds):
        raise InputError(
            f"not a reward model but {', '.join(map(str, kinds)) or 'of unknown kind'}",
            where=str(folder),
            mend="give the checkpoint of `cai train rm`",
        )
    outputs = len(told["id2label"]) if told.get("id2label") else told.get("num_labels", 2)  # transformers' own default
    if outputs != 1:
        raise InputError(
            f"a classifier with {outputs} outputs, of which none is known to be the score",
            where=str(folder),
            mend="give a reward model with one",
        )
    if not chats(folder):
        raise InputError("the tokenizer has no chat template", where=str(folder), mend="copy the one it was trained by")
    return RewardModel(folder, config, doubt=doubt(folder))
