"""What happened in a run, counted: a pure function of its responses, so it is equal for equal runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from cai import faults
from cai.records import Response


@dataclass
class ReviseMetrics:
    """Counts over the responses of a run; feed it each prompt's responses in order.

    A round that was skipped gave no response: of it only flags, principles and tokens count.
    """

    prompts: int = 0
    responses: Counter[int] = field(default_factory=Counter)
    refusals: Counter[int] = field(default_factory=Counter)
    words: Counter[int] = field(default_factory=Counter)
    flags: dict[int, Counter[str]] = field(default_factory=dict)
    critique_flags: Counter[str] = field(default_factory=Counter)
    retried: Counter[str] = field(default_factory=Counter)
    principles: Counter[str] = field(default_factory=Counter)
    clean: Counter[int] = field(default_factory=Counter)
    tokens: int = 0
    last_refusals: int = 0
    draft_refusals: int = 0
    revised: int = 0

    def add(self, responses: Iterable[Response]) -> None:
        """Count one prompt's responses."""
        self.prompts += 1
        chain = list(responses)
        for response in chain:
            number = response.round
            self.tokens += response.tokens
            if faults.SKIPPED.intersection(response.flags):
                self._count_flags(response)
                continue
            self.responses[number] += 1
            self.words[number] += len(response.text.split())
            self.refusals[number] += "refusal" in response.flags
            self.clean[number] += not faults.BLOCKING.intersection(response.flags)
            self._count_flags(response)
        clean = [r for r in chain if r.round > 0 and not faults.BLOCKING.intersection(r.flags)]
        if clean:
            self.revised += 1
            self.draft_refusals += "refusal" in chain[0].flags
            self.last_refusals += "refusal" in clean[-1].flags

    def _count_flags(self, response: Response) -> None:
        self.flags.setdefault(response.round, Counter()).update(response.flags)
        self.critique_flags.update(response.critique_flags)
        self.principles.update(response.principle_ids)
        for attempt in response.attempts:
            self.retried.update(attempt["flags"])

    def row(self) -> dict[str, Any]:
        """JSON object; rounds are keys as text."""
        rounds = sorted(self.flags)
        return {
            "prompts": self.prompts,
            "tokens": self.tokens,
            "rounds": {
                str(number): {
                    "responses": self.responses[number],
                    "clean": self.clean[number],
                    "refusals": self.refusals[number],
                    "mean_words": round(self.words[number] / max(1, self.responses[number]), 2),
                    "flags": dict(sorted(self.flags[number].items())),
                }
                for number in rounds
            },
            "refusals_before_and_after": {
                "prompts": self.revised,
                "draft": self.draft_refusals,
                "last_clean_revision": self.last_refusals,
            },
            "critique_flags": dict(sorted(self.critique_flags.items())),
            "flags_of_retried": dict(sorted(self.retried.items())),
            "principles": dict(sorted(self.principles.items())),
        }
