"""Which preferences become rows, in which split, and why the others do not.

`choose` decides for each preference, so that the rows, the counts and `cai why` agree by construction. A recipe that
balances has to see all preferences before the first is decided: `surplus` reads them and says which to leave out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Set
from dataclasses import dataclass
from typing import Literal, get_args

from cai.errors import InputError
from cai.records import Preference, Prompt, content_hash
from cai.stages.export import Split, split_of, utf8

Ties = Literal["keep", "drop"]
Balance = Literal["none", "length", "principle"]

REASONS: Mapping[str, str] = {
    "abstain": "no vote on it has a verdict",
    "axis_off": "the recipe does not take its axis",
    "identical": "both answers have the same text",
    "blank": "one of its answers is blank",
    "tie": "it is a tie, and the recipe drops ties",
    "low_margin": "its margin is below the recipe's least",
    "high_margin": "its margin is above the recipe's greatest",
    "low_agreement": "too few of the questions agree with its label",
    "length_ratio": "one answer is too many times as long as the other",
    "length_difference": "one answer has too many words more than the other",
    "duplicate": "an earlier row has the same prompt, axis and two answers",
    "surplus": "it was left out to balance the rows",
}
"""Why a preference did not become a row: the fixed word that is counted, and the rest of a sentence for people."""


@dataclass(frozen=True, kw_only=True)
class SelectOptions:
    """What becomes a row.

    Attributes:
        seed: of the split and the balance. With the seed and fraction of the SFT data, a prompt is on the same side in
            both, so what one model was trained on never tests the other.
        min_margin, max_margin: bounds on 2 p - 1, both included.
        min_agreement: least share of the questions on the side of the label.
        max_length_ratio: characters of the longer answer by those of the shorter.
        max_length_difference: words of one answer more than the other.
        ties: `keep` takes ties whatever their margin and agreement: a reward model can learn from 0.5, DPO cannot.
        axes: those taken; None for all.
        balance: `length` makes as many rows in which chosen is the longer as the shorter (in characters);
            `principle` as many of each set of principles as of the rarest, or `cap` at most. Both within each axis and
            split; which rows stay is drawn by hash.
        cap: see `balance`.
        test_fraction: expected share of the openings (first user turns) whose rows go to the test split.

    Raises:
        InputError: an option out of its bounds.
    """

    seed: int
    min_margin: float = 0.0
    max_margin: float = 1.0
    min_agreement: float = 0.0
    max_length_ratio: float | None = None
    max_length_difference: int | None = None
    ties: Ties = "drop"
    axes: frozenset[str] | None = None
    balance: Balance = "none"
    cap: int | None = None
    test_fraction: float = 0.05

    def __post_init__(self) -> None:
        for name in ("min_margin", "max_margin", "min_agreement", "test_fraction"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"must be between 0 and 1, not {getattr(self, name)}", where=name)
        if self.min_margin > self.max_margin:
            raise InputError(f"must not be above max_margin, {self.max_margin}", where="min_margin")
        for name, least in (("max_length_ratio", 1), ("max_length_difference", 0), ("cap", 1)):
            if (value := getattr(self, name)) is not None and not value >= least:
                raise InputError(f"must be at least {least}, not {value}", where=name)
        for name, words in (("ties", get_args(Ties)), ("balance", get_args(Balance))):
            if getattr(self, name) not in words:
                raise InputError(f"must be one of {', '.join(words)}", where=name)
        if self.cap is not None and self.balance != "principle":
            raise InputError("means something only with balance: principle", where="cap")


@dataclass(frozen=True, slots=True)
class Choice:
    """Whether a preference becomes a row: its `split`, or None and the `reason`, a key of `REASONS`."""

    preference: Preference
    split: Split | None
    reason: str = ""


def choose(
    preferences: Iterable[Preference], options: SelectOptions, *, surplus: Set[str] = frozenset()
) -> Iterator[Choice]:
    """What becomes of each preference, streaming, in the order given.

    Args:
        surplus: ids to leave out for balance, as the function of that name gives them.
    """
    # About 100 bytes a row. What was left out for itself does not stand in the way of the same pair, judged again.
    seen: set[bytes] = set()
    for preference in preferences:
        reason = _reason(preference, options)
        if not reason:
            key = _pair(preference)
            reason = "duplicate" if key in seen else "surplus" if preference.id in surplus else ""
            seen.add(key)
        yield Choice(preference, None if reason else _split(preference, options), reason)


def surplus(preferences: Iterable[Preference], options: SelectOptions) -> frozenset[str]:
    """Ids of the preferences to leave out for balance, after everything else that leaves some out.

    Those with the smallest hashes of (seed, id) stay, so adding a preference moves few of the others.
    """
    if options.balance == "none":
        return frozenset()
    classes: dict[tuple[str, str], dict[object, list[tuple[str, str]]]] = {}
    for choice in choose(preferences, options):
        name = _class(choice.preference, options)
        if choice.split is not None and name is not None:
            lot = content_hash("balance", options.seed, choice.preference.id, length=16)
            within = classes.setdefault((choice.preference.axis, choice.split), {})
            within.setdefault(name, []).append((lot, choice.preference.id))
    found: set[str] = set()
    for within in classes.values():
        least = min(map(len, within.values()))
        if options.balance == "length" and len(within) < 2:
            least = 0  # no row of the other kind
        keep = options.cap or least
        for members in within.values():
            found.update(key for _, key in sorted(members)[keep:])
    return frozenset(found)


def select(
    preferences: Callable[[], Iterable[Preference]],
    options: SelectOptions,
    *,
    left_out: MutableMapping[str, int] | None = None,
) -> Iterator[Choice]:
    """The choices that are rows, streaming; each has a split.

    Args:
        preferences: gives them from the start whenever it is called: twice where the rows are balanced.
        left_out: receives the number of preferences that gave no row, by reason, as rows are drawn.
    """
    extra = surplus(preferences(), options) if options.balance != "none" else frozenset[str]()
    for choice in choose(preferences(), options, surplus=extra):
        if choice.split is not None:
            yield choice
        elif left_out is not None:
            left_out[choice.reason] = left_out.get(choice.reason, 0) + 1


def _reason(preference: Preference, options: SelectOptions) -> str:
    # As they will stand in the file: without lone surrogates, two texts can be the same.
    chosen, rejected = utf8(preference.chosen).strip(), utf8(preference.rejected).strip()
    tie = preference.status == "tie"
    if options.axes is not None and preference.axis not in options.axes:
        return "axis_off"
    if preference.status == "abstain" or preference.p is None:
        return "abstain"
    if chosen == rejected:
        return "identical"
    if not chosen or not rejected:
        return "blank"
    if tie and options.ties == "drop":
        return "tie"
    if not tie and preference.margin < options.min_margin:
        return "low_margin"
    if preference.margin > options.max_margin:
        return "high_margin"
    if not tie and preference.agreement < options.min_agreement:
        return "low_agreement"
    short, long = sorted((len(chosen), len(rejected)))
    if options.max_length_ratio is not None and long > options.max_length_ratio * short:
        return "length_ratio"
    words = abs(len(chosen.split()) - len(rejected.split()))
    if options.max_length_difference is not None and words > options.max_length_difference:
        return "length_difference"
    return ""


def _class(preference: Preference, options: SelectOptions) -> object:
    """What is balanced against what; None for rows that stay whatever the others are."""
    if options.balance == "principle":
        return preference.principle_ids
    difference = len(preference.chosen) - len(preference.rejected)
    return None if difference == 0 or preference.p == 0.5 else difference > 0


def _pair(preference: Preference) -> bytes:
    texts = sorted((utf8(preference.chosen).strip(), utf8(preference.rejected).strip()))
    key = content_hash(preference.prompt_id, preference.axis, texts)
    return hashlib.blake2b(key.encode(), digest_size=16).digest()


def _split(preference: Preference, options: SelectOptions) -> Split:
    prompt = Prompt(preference.prompt_id, preference.messages)
    return split_of(prompt, options.test_fraction, options.seed)
