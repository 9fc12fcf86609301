"""A language model of a few thousand weights over a dozen words, and rewards on those words, for the tests of RL."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cai.records import Message, Messages, Prompt

WORDS = ("red", "green", "blue", "yes", "no", "say", "hello", "again", "one", "two")
SPECIAL = ("<pad>", "<unk>", "<end>", "<user>", "<assistant>", "<system>")
END = SPECIAL.index("<end>")
TEMPLATE = (
    "{% for m in messages %}{{ '<' + m['role'] + '> ' + m['content'] + ' <end> ' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)


def write_model(folder: Path, *, seed: int = 0, layers: int = 2, hidden: int = 32) -> Path:
    """A random Llama with a word tokenizer and a chat template, as transformers loads it."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    vocabulary = {word: index for index, word in enumerate((*SPECIAL, *WORDS))}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, eos_token="<end>", pad_token="<pad>", unk_token="<unk>", chat_template=TEMPLATE
    )
    tokenizer.save_pretrained(folder)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=128,
        eos_token_id=END,
        pad_token_id=0,
        bos_token_id=None,
        tie_word_embeddings=True,
        initializer_range=0.15,  # so that adapters, which leave the embeddings alone, can move the logits
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def load(folder: Path) -> tuple[Any, Any]:
    """Model in float32, and tokenizer."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return AutoModelForCausalLM.from_pretrained(folder, dtype="float32"), AutoTokenizer.from_pretrained(folder)


def prompts(count: int = 4) -> tuple[Prompt, ...]:
    """Of different lengths, every third with several turns."""
    made = []
    for index in range(count):
        turns: Messages = (Message("user", " ".join(["say", *WORDS[index % 5 : index % 5 + 1 + index % 3]])),)
        if index % 3 == 2:
            turns = (Message("user", "hello"), Message("assistant", "hello again"), *turns)
        made.append(Prompt.make(turns, source=f"tiny:{index}"))
    return tuple(made)


class Words:
    """A point for each answer that begins with `first`; a table of points for others."""

    name = "words"

    def __init__(self, **points: float) -> None:
        self.points = points

    def __call__(self, prompts: Sequence[Messages], answers: Sequence[str]) -> list[float]:
        return [self.points.get((answer.split() or [""])[0], 0.0) for answer in answers]


class Share:
    """The share of an answer's words that are `word`; nothing for an empty one."""

    name = "share"

    def __init__(self, word: str) -> None:
        self.word = word

    def __call__(self, prompts: Sequence[Messages], answers: Sequence[str]) -> list[float]:
        return [answer.split().count(self.word) / max(1, len(answer.split())) for answer in answers]


def metrics(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]
