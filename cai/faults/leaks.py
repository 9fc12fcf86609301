"""Signs that a text belongs to the loop and not to the answer: its labels, its tokens, talk about "the response"."""

from __future__ import annotations

import re

from cai.faults.announce import (
    ANSWER,
    COMPARED,
    NEW,
    NOUN,
    announces,
    mentions_answer,
    mentions_revisions,
    wants_revision,
)
from cai.faults.text import opening, straight

_I = re.IGNORECASE
_MARK = r"[ \t>#*_`\"]*"

# Tokens of chat templates and tool calls. `</s>` is also HTML for struck text: only an unopened one counts.
_TOKEN = re.compile(
    r"<[|｜](?:im_start|im_end|im_sep|endoftext|end_of_text|begin_of_text|start_header_id|end_header_id|eot_id|eom_id|"
    r"python_tag|system|user|assistant|end|tool_call|channel|message|return|pad|startoftext|[\w▁]{1,30}of[\w▁]{1,20}sentence)"
    r"[|｜]>|\[/?INST\]|<</?SYS>>|</?(?:start|end)_of_turn>|\[/?(?:TOOL_CALLS|AVAILABLE_TOOLS|TOOL_RESULTS)\]|"
    r"</?(?:tool_call|tool_response|function_call|function_calls|tool_use|think|thinking|scratchpad)>|"
    r"^### (?:Instruction|Response|Input|Assistant|Human):",
    _I | re.MULTILINE,
)
_TOKEN_STARTS = re.compile(r"[<\[]|^###", re.MULTILINE)
_ABOUT_TOKENS = re.compile(r"chat ?template|special token|prompt format|chatml|tokeni[sz]|fine-?tun|tool.?call", _I)

_REQUEST_LABEL = re.compile(
    rf"\b(?:CritiqueRequest|RevisionRequest)\b|(?:^|\n){_MARK}(?:critique|revision) request{_MARK}:", _I
)
# What a document says of itself: "Revision: 1.2", "Revised: May 2021".
_DATED = (
    rf"{_MARK}[ \t]*(?:[A-Za-z]?\d|(?:jan|feb|mar|apr|may|june?|july?|aug|sept?|oct|nov|dec)(?:[a-z]{{3,}})?\.? \d)"
)
# A heading of its own paragraph: "Critique:", "**Revised answer:**". Instead of the colon the line may end, or a dash
# follow, where `_is_label` says so.
_LABEL = re.compile(
    rf"(?:^|\n[ \t]*\n){_MARK}(?:(?P<critique>critique|critic|criticism)|"
    rf"(?P<revision>revision|(?:my |the |your )?{NEW} {NOUN})|"
    rf"(?P<compared>(?:my |the |your |a )?{COMPARED} {ANSWER}))"
    rf"{_MARK}(?P<end>:(?!{_DATED})|(?=\n|\Z)|(?<=\s)[—–-]+\s)",
    _I,
)
_ANSWERS = ("answer", "response", "reply")
_REWRITTEN = re.compile(r"revis|re-?writ|re-?word|rephras|rework|amend", _I)
# Only at the very beginning: "Revised: ...", "(Revised) ...", "Rewrite: ...".
_OPENS = re.compile(
    rf"^{_MARK}(?:[(\[](?:revised|rewritten|revision|re-?write)[)\]]|"
    rf"(?:revised|rewritten|re-?write){_MARK}(?::(?!{_DATED})|\n))",
    _I,
)
# The end of the request's template. "Response: a reaction" defines a word, one of JSON or code is a server's.
_RESPONSE = re.compile(rf"^{_MARK}response{_MARK}:{_MARK}\n(?!\s*[`{{<])", _I)
_GIVES_REVISION = re.compile(rf"\bhere(?:'s| is) (?:an? |the |my )?{NEW} {NOUN}\b[^.\n]{{0,80}}:", _I)
_AS_PER = re.compile(
    r"\b(?:as per|per|based on|according to|in light of|following|in response to|considering|addressing|"
    r"with|to address|in line with) (?P<whose>your|the|this|that) (?:\w+ )?(?:critique|criticisms?|critique request|"
    r"revision request)\b",
    _I,
)
_SELF_LABEL = re.compile(rf"^{_MARK}(?:assistant|ai|chatbot|bot){_MARK}:", _I)

# What a user says who wants such a text: then it is the answer.
_WANTS_CRITIQUE = re.compile(r"\b(?:critiqu|criti[cq]|review|feedback|assess|evaluat|analy[sz]|comment on|peer)", _I)
# Whoever learns for an exam, or keeps a document, heads a part with "Revision:".
_MENTIONS_REVISION = re.compile(
    r"\b(?:revis|study|studi|exam|finals|test|learn|school|version|history|log\b|document)", _I
)
_WANTS_TURNS = re.compile(
    r"\b(?:humans?\b|users?\b|dialogues?|conversation|script|transcript|chat|interview|play\b|scene|role-?play|faq|"
    r"q ?& ?a|log\b|persona)",
    _I,
)
_WANTS_REPETITION = re.compile(r"\b(?:times|repeat\w*|over and over|again and again|copies of)\b", _I)
_MENTIONS_PARTIES = re.compile(r"\b(?:assistants?|chatbots?|models?|ai|humans?|users?)\b", _I)
_WANTS_LETTER = re.compile(
    r"\b(?:feedback|review|customer|complain|e-?mail|letter|message|thank|apolog|repl(?:y|ies)|respon[sd]|note|comment|"
    r"critique|suggestion|speech)",
    _I,
)

_JUDGED = (
    r"(?:(?:\w+ly|not|too|quite|very|also|both|still|potentially) ){0,3}(?:harmful|unethical|inaccurate|unhelpful|"
    r"helpful|biased|inappropriate|offensive|misleading|vague|incomplete|incorrect|insensitive|toxic|dangerous|racist|"
    r"sexist|problematic|wrong|ethical|rude|disrespectful|accurate|illegal|dismissive|general)"
)
_SAYS = (
    r"(?:contain|provid|lack|fail|includ|encourag|promot|suggest|ignor|assum|perpetuat|address|does|did|could|can|may|"
    r"should|would|needs?|has|had)"
)
_ABOUT_ASSISTANT = re.compile(
    r"\b(?:the|this) (?:ai )?(?:assistant|chatbot|model|language model|ai)(?:'s)? "
    r"(?:(?:last|previous|original|first|initial|own) )?(?:response|answer|reply)\b|"
    r"\bthe assistant (?:should|could|must|did|does|is|was|fails?|failed|ought|needs|has|"
    r"made|correctly|incorrectly|wrongly|provided|gave|pointed out|suggested|encouraged|tried)\b|"
    r"^\W*the (?:human|user) (?:wants?|asks|asked|is asking|requested|is trying)\b|"
    r"\b(?:the|this|my) (?:critique|criticism) (?:i am|i'm|i have|is|was|raises|"
    r"highlights|focuses|points out|identifies)\b",
    _I,
)
_ABOUT_PREVIOUS = re.compile(
    rf"\b(?:the|my|your|this|that|its) (?:previous|last|original|earlier|initial|prior|first|final|above) "
    rf"(?:response|answer|reply|attempt)\b(?: \w+)?? (?:is|was|were|{_SAYS})|"
    r"\bin my (?:previous|last|earlier|original|initial) (?:response|answer|reply)\b|"
    r"\b(?:apologi[sz]e|sorry) (?:for|if|that) (?:the|my|any|that)? ?(?:previous|earlier|last|original|initial)? ?"
    r"(?:response|answer|reply)\b",
    _I,
)
_ABOUT_ANSWER = re.compile(
    rf"^\W*(?:(?:overall|also|however|yes|no|while|although),? )?(?:the|this|that|your|my) (?:response|answer|reply) "
    rf"(?:(?:is|was|seems|appears|sounds) (?:to be )?{_JUDGED}|"
    r"(?:should|could|must|needs? to|would|can|may) (?:\w+ )?"
    r"(?:be (?:more|less|better|improved|rewritten|revised|changed|made)|not\b|avoid|include|mention|"
    r"acknowledge|also|provide|have|address|focus|encourage|use|remove)|"
    r"(?:contains|provides|lacks|fails|does not|doesn't|did not|encourages|promotes|ignores|assumes|perpetuates))",
    _I | re.MULTILINE,
)
_CONCEDES = re.compile(
    r"^\W*(?:you(?:'re| are) (?:absolutely |completely |quite )?right[,.!]? (?:and |that )?"
    r"(?:my|i should|i was|the (?:response|answer))|"
    r"(?:i'm |i am )?(?:sorry|i apologi[sz]e|apologies) (?:for|if) (?:the|my|any) (?:\w+ )?(?:confusion|"
    r"mistakes?|errors?|oversight|inaccura\w+|inappropriate|misunderstanding|harm|offen[cs]e))",
    _I,
)
_THANKS = re.compile(
    r"\b(?:thank you|thanks|i appreciate|we appreciate)\b[^.!?\n]{0,60}?\b"
    r"(?:critiques?|criticisms?|(?:your|the|this) feedback|"
    r"point(?:ing)? (?:\w+ )?out|(?:your|the|this) corrections?|to my attention|revision request)\b",
    _I,
)

_TURN = re.compile(
    rf"^{_MARK}(?:human|user|(?P<letter>h)){_MARK}:(?P<said>.{{0,400}}(?:\n.{{0,400}})?)", _I | re.MULTILINE
)
# "H: hungry, A: angry, L: lonely" spells something out; an A alone may be the assistant.
_OTHER_LETTER = re.compile(rf"^{_MARK}[b-gi-z]{_MARK}:", _I | re.MULTILINE)
_OTHER_TURN = re.compile(rf"\n{_MARK}(?:assistant|ai){_MARK}:", _I)
_SPOKEN = re.compile(r"\?|\b(?:i|i'm|my|me|you|your|please|thanks|thank|hello|critique|rewrite)\b", _I)


def wants_repetition(asked: str) -> bool:
    """Whether the user asked for the same thing many times over."""
    return _WANTS_REPETITION.search(asked) is not None


def tokens(text: str, asked: str) -> bool:
    """Whether tokens of a chat template or a tool call stand in `text` that the user did not bring up."""
    if not _TOKEN_STARTS.search(text):
        return False
    found = {match.group().casefold() for match in _TOKEN.finditer(text)}
    if text.rstrip().endswith("</s>") and "<s>" not in text:
        found.add("</s>")
    if not found or _ABOUT_TOKENS.search(asked):
        return False
    return any(token not in asked.casefold() for token in found)


def scaffold(text: str, asked: str, *, had_answer: bool) -> bool:
    """Whether a revision carries the loop's scaffold: labels, a preamble, a remark on the rewriting, tokens.

    After an earlier answer (`had_answer`) the user may have asked for "a revised version" in words of any kind.
    """
    if tokens(text, asked):
        return True
    plain = straight(text).strip()
    critique_wanted = bool(_WANTS_CRITIQUE.search(asked))
    lower = plain.casefold()
    request = _REQUEST_LABEL.search(plain) if "request" in lower else None
    if request and request.group().strip().casefold() not in asked.casefold():
        return True
    labels = [label for label in _LABEL.finditer(plain) if _is_label(label)]
    if any(not _label_wanted(label, asked, had_answer=had_answer) for label in labels):
        return True
    if _OPENS.search(plain) and not (
        had_answer or critique_wanted or mentions_revisions(asked) or wants_revision(asked)
    ):
        return True
    if _RESPONSE.search(plain) and not (mentions_answer(asked) or _WANTS_LETTER.search(asked)):
        return True
    if announces(plain, asked, had_answer=had_answer):
        return True
    if _SELF_LABEL.search(plain) and not _WANTS_TURNS.search(asked):
        return True
    return not critique_wanted and ("criti" in lower or "request" in lower) and _named_critique(plain)


def _is_label(label: re.Match[str]) -> bool:
    """Whether it can be the loop's: without a colon, chapters and dialogs of a program have such headings too.

    Then it has to begin the text, or say that an answer was rewritten.
    """
    if label["end"] == ":":
        return True
    named = (label["revision"] or "").casefold()
    of_answer, rewritten = named.endswith(_ANSWERS), _REWRITTEN.search(named) is not None
    if label.start():
        return of_answer and rewritten
    return of_answer or rewritten or bool(label["compared"]) or (label["critique"] or "").casefold() == "critique"


def _label_wanted(label: re.Match[str], asked: str, *, had_answer: bool) -> bool:
    if label["critique"]:
        return _WANTS_CRITIQUE.search(asked) is not None
    answer_meant = had_answer or mentions_answer(asked)
    if label["compared"]:
        return answer_meant
    named = label["revision"].casefold()
    heading = label["end"] != ":"
    if named.endswith(_ANSWERS):
        if not answer_meant:
            return False
        if heading and not _REWRITTEN.search(named):
            return True
    elif (heading or (named == "revision" and label.start())) and _MENTIONS_REVISION.search(asked):
        return True
    return wants_revision(asked) or _WANTS_CRITIQUE.search(asked) is not None


def writes_revision(text: str) -> bool:
    """Whether a critique goes on to write the loop's next step: its labels, or "Here is the revised answer:"."""
    plain = straight(text)
    labelled = any(
        label["revision"] and (label["end"] == ":" or _REWRITTEN.search(label["revision"]))
        for label in _LABEL.finditer(plain)
    )
    return bool(_REQUEST_LABEL.search(plain) or labelled or _GIVES_REVISION.search(plain))


def _named_critique(plain: str) -> bool:
    # "In response to the critique, Manet ..." is history; "as per your critique" can only be the loop.
    return any(match["whose"].casefold() == "your" or match.start() < 40 for match in _AS_PER.finditer(plain))


def point_of_view(text: str, asked: str, *, had_answer: bool) -> bool:
    """Whether a revision loses the point of view: speaks about the answer, as the critic or to the critic.

    Args:
        asked: what the user said; a user who brings up answers, reviews or dialogues gets text about them.
        had_answer: the conversation holds an earlier answer, so that "my previous answer" may be that one.
    """
    if writes_turn(text, asked):
        return True
    start = opening(text, sentences=3)
    answer_meant = bool(mentions_answer(asked) or _WANTS_CRITIQUE.search(asked))
    if not answer_meant:
        if (_ABOUT_ASSISTANT.search(start) and not _MENTIONS_PARTIES.search(asked)) or _ABOUT_ANSWER.search(start):
            return True
        if not had_answer and _ABOUT_PREVIOUS.search(start):
            return True
    letter = bool(_WANTS_LETTER.search(asked))
    thanks = _THANKS.search(opening(text))
    if thanks and not letter:
        return True
    return not had_answer and not letter and _CONCEDES.search(start) is not None


def writes_turn(text: str, asked: str) -> bool:
    """Whether `text` goes on to write the user's next turn: "Human: ..." at the start of a line, said by someone."""
    if _WANTS_TURNS.search(asked):
        return False
    plain = straight(text).rstrip()
    end = len(plain)
    spelt_out = _OTHER_LETTER.search(plain) is not None
    answered = max((match.start() for match in _OTHER_TURN.finditer(plain)), default=-1)
    for turn in _TURN.finditer(plain):
        if turn["letter"] and spelt_out:
            continue
        said = turn["said"].strip()
        if turn.start() and not said and turn.end() >= end:
            return True
        if _SPOKEN.search(said) or turn.start() < answered:
            return True
    return False
