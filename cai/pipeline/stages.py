"""What each stage does to a prompt of the run, put together from the job: the work that `cai.pipeline.work` does."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from cai.engine import Generate
from cai.errors import RunError
from cai.judging import REFUSED, TOO_LONG, unanswered
from cai.pipeline.job import Job
from cai.pipeline.work import RETRIED, Stage, given_up_for
from cai.records import Prompt, Quarantined, Response, Vote
from cai.runs import RunFolder
from cai.stages import judge, revise, sample
from cai.stages.sample import Gathered
from cai.store import Log


def revise_stage(job: Job, place: RunFolder) -> Stage:
    """Drafts, critiques and revisions."""
    plan = job.plan
    steps = plan.draft.max_tokens + plan.rounds * (plan.revision.max_tokens + plan.critique * plan.critic.max_tokens)

    def row(chain: revise.Chain) -> dict[str, Any]:
        return {"responses": [r.row() for r in chain.responses], "quarantined": _row(chain.quarantined)}

    return Stage(
        name=revise.STAGE,
        roles=plan.roles,
        journal=place.journal,
        item=lambda prompt: prompt,
        method=revise.method(plan),
        row=row,
        empty={"responses": []},
        expected_tokens=steps // 2,
        incomplete=_lacks_answers,
    )


def sample_stage(job: Job, place: RunFolder) -> Stage:
    """Several answers a prompt."""
    plan = job.sample

    def row(sampled: sample.Sampled) -> dict[str, Any]:
        return {"responses": [r.row() for r in sampled.responses], "quarantined": _row(sampled.quarantined)}

    return Stage(
        name=sample.STAGE,
        roles=tuple(dict.fromkeys(source.model for source in plan.sources)),
        journal=place.sampled,
        item=lambda prompt: prompt,
        method=sample.method(plan),
        row=row,
        empty={"responses": []},
        expected_tokens=sum(source.count * source.sampling.max_tokens for source in plan.sources) // 2,
        requests_at_once=sum(source.count for source in plan.sources),
        incomplete=_lacks_answers,
    )


def judge_stage(job: Job, place: RunFolder, answers: Answers) -> Stage:
    """Votes on the answers of each prompt.

    Raises:
        RunError: the recipe has no judge.
    """
    plan = job.judge
    if plan is None:
        raise RunError("the recipe has no judge", where="judge", mend="add a block `judge: {}`; the defaults work")
    method = judge.method(plan)
    answered = job.sample.largest(job.plan.rounds, job.plan.most_drafts)
    items = answered * (answered - 1) // 2 if plan.judge.unit == "pair" else answered
    asked = len(plan.constitution.judging) if plan.principles == "all" else max(1, len(plan.axes))
    requests = 2 * items * asked

    async def vote(item: tuple[Prompt, Gathered], generate: Generate) -> dict[str, Any]:
        prompt, gathered = item
        if gathered.group is None:
            quarantined = sample.nothing_to_compare(prompt, gathered.reason).row()
            return {"group": None, "votes": [], "quarantined": quarantined}
        judged = await method(gathered.group, generate)
        unasked = None if judged.votes else sample.nothing_to_compare(prompt, "no_question").row()
        return {
            "group": gathered.group.id,
            "votes": [each.row() for each in judged.votes],
            "quarantined": unasked,
        }

    def stale(prompt: Prompt, row: dict[str, Any]) -> bool:
        group = answers.gathered(prompt).group
        failed = given_up_for(row) in RETRIED  # what was to be judged is not known
        return not failed and row.get("group") != (group.id if group else None)

    return Stage(
        name=judge.STAGE,
        roles=job.judge_roles,
        journal=place.judged,
        item=lambda prompt: (prompt, answers.gathered(prompt)),
        method=vote,
        row=lambda found: dict(found),
        empty={"group": None, "votes": []},
        expected_tokens=requests * int(getattr(job.loaded.judge, "max_tokens", 1)) // 2,
        requests_at_once=requests,
        incomplete=lambda row: any(vote["error"] in _NOT_TAKEN for vote in row["votes"]),
        unanswered=lambda row: unanswered(Vote.from_row(vote) for vote in row["votes"]),
        stale=stale,
    )


class Answers:
    """The answers to each prompt that can be compared, from the journals of the stages before."""

    def __init__(self, job: Job, sampled: Log, revised: Log | None) -> None:
        self._plan = job.sample
        self._sampled, self._revised = sampled, revised

    @classmethod
    @contextlib.contextmanager
    def open(cls, job: Job, place: RunFolder) -> Iterator[Answers]:
        """The answers of a run."""
        with contextlib.ExitStack() as stack:
            sampled = stack.enter_context(Log(place.sampled, read_only=True))
            revised = stack.enter_context(Log(place.journal, read_only=True)) if job.sample.include else None
            yield cls(job, sampled, revised)

    def sampled(self, prompt: Prompt) -> list[Response]:
        """Its samples, those that are not compared too.

        Raises:
            RunError: the prompt has not been sampled yet.
        """
        return self._of(self._sampled, prompt)

    def gathered(self, prompt: Prompt) -> Gathered:
        """See `cai.stages.sample.gather`."""
        return sample.gather(prompt, self._of(self._sampled, prompt), self._of(self._revised, prompt), self._plan)

    def _of(self, journal: Log | None, prompt: Prompt) -> list[Response]:
        if journal is None:
            return []
        row = journal.get(prompt.id)
        if row is None:
            raise RunError(
                f"the prompt {prompt.id} has no answers yet",
                where=str(journal.path),
                mend="run `cai run` on the recipe",
            )
        return [Response.from_row(each) for each in row["responses"]]


_NOT_TAKEN = frozenset({REFUSED, TOO_LONG})


def _lacks_answers(row: dict[str, Any]) -> bool:
    return any(_NOT_TAKEN.intersection(response["flags"]) for response in row["responses"])


def quarantine_of(rows: Iterable[Mapping[str, Any] | None]) -> list[dict[str, Any]]:
    """What a prompt was given up for, from the rows that the stages, in their order, keep of it: one record a stage.

    Where sampling failed, judging found only that there is nothing to compare, and says so in sampling's name.
    """
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row is not None and row["quarantined"]:
            found.setdefault(row["quarantined"]["stage"], row["quarantined"])
    return list(found.values())


def _row(quarantined: Quarantined | None) -> dict[str, Any] | None:
    return quarantined.row() if quarantined else None
