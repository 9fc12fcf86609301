"""All answers at once, each with a letter: one forward pass gives the probability that each is the best.

Plackett 1975, Luce 1959: with strengths w the best of a list is i with probability w_i / sum(w), so of any two
p = w_i / (w_i + w_j), and K (K - 1) / 2 pairs are decided by one pass. A model prefers places in a list even more than
slots of a pair, so by default it is asked K times, each time shifted by one: every answer stands in every place once.

Each pass gives one vote on each pair, in the order in which the two stood. If answer i has the logit s_i and place k
adds a bias b_k, the log-odds of i against j in shift r are s_i - s_j + b_(i + r) - b_(j + r), places counted modulo K.
Over all K shifts the biases cancel: the mean log-odds are s_i - s_j whatever places the model prefers. The mean of the
probabilities is not free of them (three equal answers, b = 4, 2, 0: 0.59 for the one that stands right before the
other in two shifts of three), and neither are the votes of one order alone. So all votes of a pair are averaged alike,
in log-odds (`cai.stages.prefer`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from cai.engine import Generate
from cai.errors import InputError, PromptRefused
from cai.judging import UNREAD, Question, Scored, Verdict, judge_id, refused, score, vote
from cai.judging.prompt import PromptFile, load_prompt
from cai.judging.quoting import conversation, fence, quote
from cai.records import Candidate, Group, Vote, content_hash
from cai.scheduler import together
from cai.yamlfile import StrictModel

SLOTS = ("conversation", "answers", "question")
MOST = 16


class Config(StrictModel):
    """Options of the listwise judge."""

    model: str = Field("judge", description="Role of the model that judges.")
    prompt: str = Field("list", description="Prompt file, by name or path; its choices are the answers' letters.")
    rotations: Literal["all", "one"] = Field(
        "all", description="Ask with every answer in every place once, or only once."
    )
    min_mass: float = Field(
        0.2, ge=0, le=1, description="Less probability than this on the letters together is no verdict."
    )


@dataclass(frozen=True)
class Listwise:
    """See `cai.judging.Judge`.

    `raw` of a vote: the `rotation`, and the `letters` and `logprobs` of the comparison's own a and b in it; the votes
    of one rotation hold together all that was read. `cai.stages.prefer.rankings` gives the order of the whole list.
    """

    config: Config
    prompt: PromptFile
    id: str
    name: str = "listwise"
    unit: str = "group"

    @property
    def kind(self) -> str:
        return self.id  # it draws nothing

    @property
    def most_answers(self) -> int:
        return len(self.prompt.choices)

    async def __call__(self, item: Group, question: Question, generate: Generate) -> tuple[Vote, ...]:
        """See `cai.judging.Judge`.

        Raises:
            InputError: more answers than the prompt file has letters.
        """
        count = len(item.candidates)
        if count > self.most_answers:
            raise InputError(
                f"{count} answers, but a list holds {self.most_answers}",
                where=f"prompt {item.prompt.id}",
                mend="use the judge `tournament` or `rating`",
            )
        # Not the order in which they were written: the first is often the draft.
        order = sorted(item.candidates, key=lambda each: content_hash(item.prompt.id, each.id, each.text))
        lists = [order[shift:] + order[:shift] for shift in range(count if self.config.rotations == "all" else 1)]
        read = await together(self._ask(item, shown, question, generate) for shown in lists)
        votes: list[Vote] = []
        for rotation, (shown, found) in enumerate(zip(lists, read, strict=True)):
            votes += self._votes(item, shown, found, question, rotation)
        return tuple(votes)

    async def _ask(
        self, group: Group, shown: list[Candidate], question: Question, generate: Generate
    ) -> Scored | PromptRefused:
        letters = self.prompt.choices[: len(shown)]
        mark = fence([turn.content for turn in group.prompt.messages], [each.text for each in shown])
        slots = {
            "conversation": conversation(group.prompt.messages),
            "answers": "\n\n".join(
                f"<answer {letter} {mark}>\n{quote(each.text)}\n</answer {letter} {mark}>"
                for letter, each in zip(letters, shown, strict=True)
            ),
            "letters": f"{', '.join(letters[:-1])} or {letters[-1]}",
            "question": (question.text or self.prompt.question).strip(),
            "mark": mark,
        }
        try:
            return await score(self.prompt.messages(slots), letters, generate, model=self.config.model)
        except PromptRefused as error:
            return error

    def _votes(
        self, group: Group, shown: list[Candidate], read: Scored | PromptRefused, question: Question, rotation: int
    ) -> list[Vote]:
        place = {each.id: index for index, each in enumerate(shown)}
        votes = []
        for pair in group.comparisons():
            at = (place[pair.a.id], place[pair.b.id])
            raw: dict[str, Any] = {"rotation": rotation, "letters": [self.prompt.choices[index] for index in at]}
            if isinstance(read, PromptRefused):
                verdict = Verdict(None, raw=raw | {"detail": str(read)}, error=refused(read))
            else:
                raw["logprobs"] = [read.logprobs[index] for index in at]
                if not all(read.seen[index] for index in at):
                    raw["unseen"] = [place for place, index in enumerate(at) if not read.seen[index]]
                verdict = self._verdict(read, min(at), max(at), raw)
            ordered = pair if at[0] < at[1] else pair.swap()
            votes.append(vote(ordered, verdict, self, question, key=f"rotation {rotation}"))
        return votes

    def _verdict(self, read: Scored, first: int, second: int, raw: Mapping[str, Any]) -> Verdict:
        fault = read.fault(self.config.min_mass)
        if fault or not (read.seen[first] or read.seen[second]):
            # Some servers tell only the most probable tokens; of two that are not among them nothing is known.
            return Verdict(None, mass=read.mass, raw=raw, error=fault or UNREAD)
        one, other = read.logprobs[first], read.logprobs[second]
        top = max(one, other)
        shares = math.exp(one - top), math.exp(other - top)
        return Verdict(shares[0] / sum(shares), 0.0, read.mass, raw)


def build(config: Config, *, models: Mapping[str, str], seed: int) -> Listwise:
    """The judge.

    Args:
        models: fingerprints by role.
        seed: of the run; this judge draws nothing.

    Raises:
        InputError: the prompt file is missing or wrong, or has more than 16 letters.
    """
    prompt, where = load_prompt(config.prompt), f"judge prompt {config.prompt}"
    prompt.check(where, SLOTS, ("mark", "letters"))
    if len(prompt.choices) > MOST:
        raise InputError(f"{len(prompt.choices)} choices; a list holds at most {MOST} answers", where=where)
    return Listwise(config, prompt, judge_id("listwise", config, prompt, [models.get(config.model, "")]))
