"""Axes are asked by principles of their own, and never meet."""

from __future__ import annotations

from dataclasses import replace

from cai.labels.beside import beside
from cai.labels.items import asked, by_id, is_current, items_of, principles_of
from cai.records import Candidate, Group, HumanLabel, Message, Preference, Prompt


def judged(prompts: int = 40) -> list[Preference]:
    """Pairs judged on two axes by a principle each: on `helpful` a is better, on `harmless` b is."""
    rows = []
    for number in range(prompts):
        prompt = Prompt.make((Message("user", f"Question {number}?"),))
        group = Group.make(prompt, [Candidate(f"x{number}", "One answer."), Candidate(f"y{number}", "Another.")])
        (pair,) = group.comparisons()
        for axis, principle in (("helpful", "offer-help"), ("harmless", "avoid-harm")):
            chosen, rejected = (pair.a, pair.b) if axis == "helpful" else (pair.b, pair.a)
            rows.append(
                Preference(
                    id=f"{pair.id}-{axis}",
                    comparison_id=pair.id,
                    group_id=group.id,
                    prompt_id=prompt.id,
                    messages=prompt.messages,
                    chosen=chosen.text,
                    rejected=rejected.text,
                    chosen_id=chosen.id,
                    rejected_id=rejected.id,
                    p=0.9,
                    p_tie=0.0,
                    margin=0.8,
                    agreement=1.0,
                    flipped=0.0,
                    weight=1.0,
                    axis=axis,
                    principle_ids=(principle,),
                    votes=("v",),
                )
            )
    return rows


def label(comparison_id: str, axis: str, who: str, verdict: str) -> HumanLabel:
    return HumanLabel(f"{comparison_id}{axis}{who}", comparison_id, "g", axis, who, verdict)


def test_a_principles_figures_are_of_the_axis_that_it_was_asked_on() -> None:
    made = judged()
    known, principles = by_id(items_of(made)), principles_of(made)
    # People say what the judge says of help, and the opposite of what it says of harm.
    labels = [label(name, axis, who, "a") for name in known for axis in ("helpful", "harmless") for who in ("p", "q")]
    p = {(row.comparison_id, row.axis): 0.9 if row.axis == "helpful" else 0.1 for row in made}
    rows = {row["over"]: row for row in beside(labels, p, known, principles)}
    assert rows["principle offer-help"]["judge"]["mean"] == rows["axis helpful"]["judge"]["mean"] == 1
    assert rows["principle avoid-harm"]["judge"]["mean"] == rows["axis harmless"]["judge"]["mean"] == 0
    assert rows["principle offer-help"]["n"] == rows["principle avoid-harm"]["n"] == 80


def test_a_label_on_an_axis_that_was_not_judged_belongs_to_the_overall_question() -> None:
    assert asked({("c", ""): ("x",)}, "c", "helpful") == ("x",)
    assert asked({("c", "helpful"): ("y",), ("c", ""): ("x",)}, "c", "helpful") == ("y",)
    assert asked({("c", "harmless"): ("y",)}, "c", "helpful") == ()


def test_labels_of_other_texts_are_told() -> None:
    known = by_id(items_of(judged(1)))
    (item,) = known.values()
    mine = label(item.comparison_id, "", "p", "a")
    assert is_current(mine, known)
    assert is_current(replace(mine, text_hash=item.text_hash), known)
    assert not is_current(replace(mine, text_hash="changed"), known)
    assert not is_current(replace(mine, comparison_id="gone"), known)
