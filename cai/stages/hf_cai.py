"""SFT data in the columns of Hugging Face's constitutional AI recipe: one critique and revision a row, as text.

`init_prompt, init_response, critic_prompt, critic_response, revision_prompt, revision_response`: what was asked and
answered, the critique that was asked for and given, the revision that was asked for and made. A row is one round, so
`init_response` is what this round revised: the draft, or the revision before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any

from cai.constitution.load import Constitution
from cai.errors import InputError
from cai.records import Prompt, Response
from cai.stages.export import SPLITS, SftOptions, Split, choose, dumps, mended_text, split_of
from cai.stages.transcript import wording
from cai.store import disk_error, replacing

NAME = "hf_cai"
COLUMNS = (
    "init_prompt",
    "init_response",
    "critic_prompt",
    "critic_response",
    "revision_prompt",
    "revision_response",
)
REASONS: Mapping[str, str] = {
    "unrevised": "it is an answer that nobody revised",
    "no_critique": "it was revised without a critique",
    "several_turns": "its prompt is more than one user turn, and `init_prompt` is one text",
    "principle_gone": "a principle that it was revised by is no longer in the constitution",
}
"""Why a training row has no row here."""


def hf_cai_rows(
    prompts: Iterable[Prompt],
    responses: Mapping[str, Sequence[Response]],
    options: SftOptions,
    constitution: Constitution,
    *,
    left_out: MutableMapping[str, int] | None = None,
) -> Iterator[tuple[Split, dict[str, str]]]:
    """The revisions that are training rows, with their split, in the order of `prompts`.

    Args:
        responses: by prompt id, each in round order.
        left_out: receives the number of training rows that these columns cannot carry, by reason (a key of `REASONS`).
    """
    for prompt in prompts:
        known = {response.id: response for response in responses.get(prompt.id, ())}
        split = split_of(prompt, options.test_fraction, options.seed)
        for choice in choose(prompt, list(known.values()), options):
            if choice.kind is None:
                continue
            made = _row(prompt, choice.response, known, constitution)
            if not isinstance(made, str):
                yield split, made
            elif left_out is not None:
                left_out[made] = left_out.get(made, 0) + 1


def _row(
    prompt: Prompt, response: Response, known: Mapping[str, Response], constitution: Constitution
) -> dict[str, str] | str:
    """The row, or why there is none."""
    parent = known.get(response.parent_id or "")
    if response.round == 0 or parent is None:
        return "unrevised"
    if response.critique is None:
        return "no_critique"
    if [turn.role for turn in prompt.messages] != ["user"]:
        return "several_turns"
    try:
        asked = wording(constitution, [constitution.get(name) for name in response.principle_ids])
    except InputError:
        return "principle_gone"
    said = (prompt.messages[0].content, parent.text, asked.critique, response.critique, asked.revision, response.text)
    return dict(zip(COLUMNS, said, strict=True))


def write_hf_cai(folder: Path, rows: Iterable[tuple[Split, dict[str, str]]]) -> dict[str, int]:
    """Write `train.jsonl` and `test.jsonl`; a split without rows has no file. Equal rows give equal bytes.

    Returns:
        Rows by split.

    Raises:
        StoreError: the disk is full or the folder cannot be written.
    """
    counts: Counter[str] = Counter()
    files: dict[str, Any] = {split: replacing(folder / f"{split}.jsonl") for split in SPLITS}
    with files["train"] as train, files["test"] as test:
        for split, row in rows:
            (train if split == "train" else test).write(f"{dumps(mended_text(row))}\n".encode())
            counts[split] += 1
    for split in SPLITS:
        if not counts[split]:
            try:
                (folder / f"{split}.jsonl").unlink(missing_ok=True)
            except OSError as error:
                raise disk_error(error, folder) from error
    return dict(sorted(counts.items()))
