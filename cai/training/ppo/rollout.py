"""From prompts to a buffer: write, score, read; each process does its share of the rows, and then holds all of them."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from cai.errors import InputError
from cai.records import Messages, Prompt, content_hash
from cai.training.base import Reward, TrainingError
from cai.training.data import tokens
from cai.training.ppo.buffer import Buffer, Sample, build
from cai.training.ppo.config import Config
from cai.training.ppo.parts import Parts, Rows
from cai.training.rollouts import Drawing, Sampler

RowT = TypeVar("RowT")

# What a pass costs beside its tokens, in tokens: a processor reads the weights once more (about, from SmolLM2's passes
# of one to eight rows on two cores); an accelerator waits for its kernels to be launched, so there the fewest passes
# come first (a guess: not measured on one).
PASS_TOKENS, LAUNCH_TOKENS = 48, 4096


@dataclass(frozen=True)
class Encoded:
    """A prompt and its token ids, generation prompt included."""

    prompt: Prompt
    ids: tuple[int, ...]


def encode(prompts: Sequence[Prompt], tokenizer: Any, *, longest: int) -> tuple[Encoded, ...]:
    """Prompts through the chat template, all turns kept.

    Raises:
        InputError: there is none, or one is longer than `longest` tokens; names it and counts the others.
    """
    if not prompts:
        raise InputError("no prompts to train on", mend="give the recipe prompts that are not held out")
    found = tuple(Encoded(prompt, encode_messages(prompt.messages, tokenizer)) for prompt in prompts)
    long = [one for one in found if len(one.ids) > longest]
    if long:
        raise InputError(
            f"{len(long[0].ids)} tokens, more than max_prompt_tokens ({longest}); {len(long)} prompt(s) are",
            where=f"prompt {long[0].prompt.id}",
            mend="raise max_prompt_tokens, or leave these prompts out",
        )
    return found


def encode_messages(messages: Messages, tokenizer: Any) -> tuple[int, ...]:
    """Token ids of a conversation that the assistant is to continue."""
    return tuple(tokens(tokenizer, messages, begin_answer=True))


def drawn(prompts: Sequence[RowT], count: int, *, update: int, seed: int) -> list[RowT]:
    """The `count` prompts of an update: every prompt once in each pass, in an order that is new for each pass."""
    chosen = []
    for place in range(update * count, (update + 1) * count):
        turn, index = divmod(place, len(prompts))
        order = torch.randperm(len(prompts), generator=torch.Generator().manual_seed(number("order", seed, turn)))
        chosen.append(prompts[int(order[index])])
    return chosen


def number(*parts: Any) -> int:
    """A seed that depends on `parts` alone."""
    return int(content_hash(*parts), 16) % (1 << 31)


class Collector:
    """Writes, scores and reads the answers of an update."""

    def __init__(
        self,
        parts: Parts,
        sampler: Sampler,
        tokenizer: Any,
        config: Config,
        *,
        drawing: Drawing,
        processes: Processes,
    ) -> None:
        self.parts = parts
        self.sampler = sampler
        self.tokenizer = tokenizer
        self.config = config
        self.drawing = drawing
        self.processes = processes

    def collect(
        self, rows: Sequence[Encoded], reward: Reward, *, seed: int, update: int, beta: float
    ) -> tuple[Buffer, dict[str, float]]:
        """The buffer of one update, and the seconds that its steps took."""
        begun = time.perf_counter()
        seeds = [number("rollout", seed, update, row) for row in range(len(rows))]
        samples = self.write(rows, seeds, self.drawing)
        wrote = time.perf_counter()
        samples = self.score(rows, samples, reward)
        scored = time.perf_counter()
        figures = self.read(samples)
        buffer = build(samples, figures, self.config, beta=beta)
        read = time.perf_counter()
        return buffer, {"write": wrote - begun, "score": scored - wrote, "read": read - scored}

    def write(self, rows: Sequence[Encoded], seeds: Sequence[int], drawing: Drawing) -> list[Sample]:
        """An answer to each row's prompt, not yet scored."""
        own = self.processes.share(range(len(rows)))
        self.sampler.sync(self.parts.policy_weights())
        written = self.sampler.write([rows[i].ids for i in own], [seeds[i] for i in own], drawing)
        texts = self.tokenizer.batch_decode([list(one.tokens) for one in written], skip_special_tokens=True)
        samples = [
            Sample(rows[i].ids, one.tokens, text, one.finished, math.nan, one.logprobs)
            for i, one, text in zip(own, written, texts, strict=True)
        ]
        return self.processes.gathered(samples)

    def score(self, rows: Sequence[Encoded], samples: Sequence[Sample], reward: Reward) -> list[Sample]:
        """The samples with the reward's scores.

        Raises:
            TrainingError: a score that is not a finite number.
        """
        own = self.processes.share(range(len(samples)))
        scores = reward([rows[i].prompt.messages for i in own], [samples[i].text for i in own])
        if len(scores) != len(own) or not all(math.isfinite(score) for score in scores):
            raise TrainingError(
                f"the reward {reward.name!r} did not give one finite score for each of {len(own)} answers"
            )
        return self.processes.gathered([replace(samples[i], score=s) for i, s in zip(own, scores, strict=True)])

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def read(self, samples: Sequence[Sample]) -> dict[str, Tensor]:
        """`old`, `values`, `entropy` and `reference` for all samples, (rows, tokens) on the CPU."""
        own = self.processes.share(range(len(samples)))
        width = max(len(sample.answer) for sample in samples)
        read: dict[int, tuple[Tensor, ...]] = {}
        for some in passes(own, samples, self.config.micro_batch, self.processes.device):
            rows = rows_of([samples[i] for i in some], self.drawing.pad, self.processes.device)
            with self.processes.autocast():
                told = self.parts(rows)
                reference = self.parts.reference(rows)
            flat = (told.logprobs, told.values, told.entropy, reference)
            tables = [rows.table(figure, width).float().cpu() for figure in flat]
            read.update({i: tuple(table[n] for table in tables) for n, i in enumerate(some)})
        everything = self.processes.gathered([read[i] for i in own])
        names = ("old", "values", "entropy", "reference")
        return {name: torch.stack([row[n] for row in everything]) for n, name in enumerate(names)}


def rows_of(samples: Sequence[Sample], pad: int, device: Any) -> Rows:
    return Rows.make([sample.prompt for sample in samples], [sample.answer for sample in samples], pad, device)


def passes(rows: Sequence[int], samples: Sequence[Sample], most: int, device: Any) -> list[list[int]]:
    """`rows`, cut into passes through the models of at most `most` each, so that the least is computed.

    A pass costs its tokens with the padding, rows times the longest, and what any pass costs, see `PASS_TOKENS`. In the
    order of their lengths, the cheapest cut up to each row follows from the cheapest ones before it.
    """
    lengths = {i: len(samples[i].prompt) + len(samples[i].answer) for i in rows}
    order = sorted(rows, key=lambda i: (lengths[i], i))
    fixed = PASS_TOKENS if torch.device(device).type == "cpu" else LAUNCH_TOKENS
    best: list[tuple[float, int]] = [(0, 0)]  # the cost of the first n rows, and where their last pass begins
    for end in range(1, len(order) + 1):
        longest = lengths[order[end - 1]]
        best.append(
            min((best[begin][0] + fixed + (end - begin) * longest, begin) for begin in range(max(0, end - most), end))
        )
    cuts = [len(order)]
    while cuts[-1]:
        cuts.append(best[cuts[-1]][1])
    return [order[begin:end] for end, begin in zip(cuts[-2::-1], cuts[:0:-1], strict=True)]


def engine_gap(buffer: Buffer) -> float | None:
    """Mean absolute difference, in nats per token, between the engine's log-probabilities and the trainer's."""
    gaps = [
        abs(theirs - ours)
        for row, sample in enumerate(buffer.samples)
        for theirs, ours in zip(sample.engine or (), buffer.old[row].tolist(), strict=False)
    ]
    return math.fsum(gaps) / len(gaps) if gaps else None


class Processes:
    """The processes of `accelerate launch`: each takes every n-th row."""

    def __init__(self, accelerator: Any) -> None:
        self._accelerator = accelerator
        self.device = accelerator.device
        self.count: int = accelerator.num_processes
        self.index: int = accelerator.process_index
        self.main: bool = accelerator.is_main_process
        self.autocast: Callable[[], Any] = accelerator.autocast
        self.wait: Callable[[], None] = accelerator.wait_for_everyone

    def share(self, rows: Sequence[RowT]) -> list[RowT]:
        """This process's part."""
        return list(rows[self.index :: self.count])

    def gathered(self, own: list[RowT]) -> list[RowT]:
        """All parts, in the order of the rows that were shared."""
        if self.count == 1:
            return own
        parts: list[Any] = [None] * self.count
        torch.distributed.all_gather_object(parts, own)
        total = sum(len(part) for part in parts)
        return [parts[i % self.count][i // self.count] for i in range(total)]

    def summed(self, values: Sequence[float | Tensor]) -> list[float]:
        """The sums over all processes."""
        own = torch.stack([torch.as_tensor(value, dtype=torch.float64).detach().cpu() for value in values])
        if self.count > 1:
            own = sum(self.gathered([own]), torch.zeros_like(own))
        return [float(value) for value in own]

    def last_backward(self, module: Any, last: bool) -> Any:
        """Around a backward pass: gradients are exchanged only with the last of a step."""
        return contextlib.nullcontext() if last or self.count == 1 else self._accelerator.no_sync(module)
