"""Merge policies: rules, as YAML files, by which people's labels and the AI judge's become one preference."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from cai.errors import InputError
from cai.records import content_hash
from cai.yamlfile import StrictModel, load, nearest, validate

FOLDER = Path(__file__).resolve().parent / "policies"
DEFAULT = "human_first"


class Policy(StrictModel):
    """One rule; `policies/*.yaml` are those that are shipped."""

    title: str = Field(description="One line for tables.")
    method: Literal["counts", "dawid_skene", "fused"] = Field(
        description="counts: weighted votes, the judge as pseudo-votes; dawid_skene: EM over people; fused: log-odds."
    )
    people: Literal["equal", "reliability"] = Field(
        "equal", description="With counts: each vote alike, or weighted by gold items or else by agreement, shrunk."
    )
    min_votes: int = Field(1, ge=1, description="People's votes from which on the judge is only a pseudo-count.")
    kappa: float = Field(0.0, ge=0, description="Pseudo-votes of the judge beside enough people.")
    kappa_few: float = Field(1.0, ge=0, description="The same beside fewer people than `min_votes`.")
    ai_alone: bool = Field(True, description="Whether pairs that nobody labelled keep the judge's label.")
    split: Literal["quarantine", "tie", "decide"] = Field(
        "quarantine",
        description="Where as many people say a as b: set aside to ask one more; a tie, whatever the judge says; or "
        "decide, as the method does, by people's weights and the judge.",
    )
    conflict_margin: float = Field(
        1.0, ge=0, le=1, description="People against a judge whose 2p - 1 is at least this: set aside. 1: never."
    )
    smoothing: float = Field(8.0, gt=0, description="Votes' worth of pull of a person's estimates towards the pool's.")

    @property
    def digest(self) -> str:
        """Hash of all that decides; the title does not."""
        return content_hash({k: v for k, v in self.model_dump().items() if k != "title"}, length=16)


def names() -> list[str]:
    """The shipped policies."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load_policy(name: str) -> tuple[str, Policy]:
    """Name and policy, of those shipped or of a YAML file.

    Raises:
        InputError: no such policy or file, or it is not one.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else FOLDER / f"{name}.yaml"
    if not path.is_file():
        known = names()
        raise InputError(
            f"no policy {name!r}{nearest(name, known)}", mend=f"one of: {', '.join(known)}; or the path of a .yaml file"
        )
    return path.stem, validate(load(path), Policy)
