"""A revision that says that it is one: "Here is a safer version:", "I have removed the harmful part".

Families of patterns: who offers what, compared with what; who changed what, and why. A user who asks to have a text
reworked gets such words by right, so whether one does is found here too: a verb of reworking whose object is a text.
That a prompt has "clean", "better" or "exam" in it says nothing.
"""

from __future__ import annotations

import re

from cai.faults.text import opening, straight

_I = re.IGNORECASE

# --- does the user want a text reworked?

_TEXTS = (
    r"(?:texts?|essays?|letters?|e-?mails?|sentences?|paragraphs?|messages?|code|functions?|scripts?|programs?|"
    r"quer(?:y|ies)|sql|poems?|lyrics|stor(?:y|ies)|cv|r[ée]sum[ée]s?|drafts?|notes?|posts?|tweets?|articles?|answers?|"
    r"repl(?:y|ies)|responses?|abstracts?|versions?|documents?|speech(?:es)?|reports?|summar(?:y|ies)|translations?|bio|"
    r"headlines?|titles?|wording|grammar|spelling|punctuation|snippets?|statements?|thesis|introductions?|conclusions?|"
    r"captions?|descriptions?|comments?|reviews?|dialogues?|chapters?|passages?|phrases?|lines?|quotes?|profile|"
    r"proposals?|applications?|slogans?|prompts?|instructions|readme|documentation|class|method|loops?|regex|"
    r"sort(?:ing)?|algorithms?|implementations?|scenes?|jokes?|blog|minutes|wiki|page)"
)
# Of texts alone one says these; the others are said of kettles too.
_REWORD = (
    r"(?:revis(?:e|ing)|re-?writ(?:e|ing)|re-?word(?:ing)?|re-?phras(?:e|ing)|edit(?:ing)?|proof-?read(?:ing)?|"
    r"paraphras(?:e|ing)|summari[sz](?:e|ing)|translat(?:e|ing)|refactor(?:ing)?)"
)
_MEND = (
    rf"(?:{_REWORD}|improv(?:e|ing)|correct(?:ing)?|fix(?:ing)?|polish(?:ing)?|shorten(?:ing)?|condens(?:e|ing)|"
    r"optimi[sz](?:e|ing)|simplif(?:y|ying)|clean(?:ing)? up|debug)"
)
_REWORK = rf"(?:{_MEND}|trim|tighten|expand|updat(?:e|ing)|tidy(?:ing)? up|reformat|tone down|make|turn|check)"
_ITS = r"(?:my|this|these|that|those|the|our|his|her|their|its|your|a|an|following|each)"
_IT = r"(?:this|it|these|that|them|the following)"
_WANTS = re.compile(
    rf"\b{_REWORK}(?: \w+)? {_ITS}(?: [\w'-]+){{0,3}}? {_TEXTS}\b|"
    rf"\b{_REWORD} {_IT}\b|\b{_REWORK} {_IT}\b[^.!?\n]{{0,60}}[:\n\"`]|\b{_MEND} the following\b|"
    # The text itself as the object: "Rephrase 'you are late'", "Rewrite in French: ...", "Correct: ...".
    rf"\b{_REWORD}(?: [\w-]+){{0,3}}(?::| [\"'`])|\b{_MEND}(?::| [\"'`])|"
    # "Is 'me go' good English?", "Is my grammar right?", "Any typos?"
    r"[\"'`.!?] (?:is|was) (?:it|this|that) (?:\w+ )?correct\b|\bgood english\b|\btypos?\b|"
    r"\b(?:my|its|this|the) (?:grammar|spelling|punctuation|wording|phrasing)\b|\bproof-?read|"
    r"\b(?:improved|better|revised|rewritten|corrected|shorter|simpler|new|polished|edited) version\b|"
    r"\bchange-?log\b|\b(?:grammar|spelling) (?:check|mistakes?|errors?)\b",
    _I,
)
_MENTIONS_ANSWER = re.compile(r"\b(?:respon[sd]|answer|repl(?:y|ies))", _I)
_MENTIONS_REVISIONS = re.compile(r"\b(?:revis|re-?writ|amend|edition)", _I)
_WANTS_WORDS = re.compile(
    r"\b(?:say|tell|write|send|text|messages?|e-?mails?|letter|declin|invit|speech|toast|ask(?:ed|s)?)\b", _I
)
# Whoever asks for a tale, or what was done, is told of something else that was changed.
_NARRATED = re.compile(
    r"\b(?:story|stories|diary|tale|novel|memoir|monologue|script|role-?play|pretend|(?:did|have) you)\b", _I
)

# --- what is offered

NEW = (
    r"(?:revised|rewritten|updated|improved|corrected|modified|edited|reworked|amended|reworded|rephrased|new|better|"
    r"revision of)"
)
ANSWER = r"(?:answer|response|reply)"
NOUN = r"(?:answer|response|reply|version|message|text|one)"
# "safer", "less harmful", "harmless": a revision compares itself with what it replaces.
COMPARED = (
    r"(?:(?:more|less) [\w-]+|safer|kinder|gentler|clearer|fairer|nicer|softer|milder|calmer|shorter|longer|simpler|"
    r"healthier|friendlier|cleaner|politer|wiser|plainer|harmless|non-?harmful|unbiased|inoffensive|alternative)"
)
_HERE = (
    r"(?:\bhere(?:'s| is| are)|\bbelow is|\bfind below|^\W*this is|\bi(?:'ll| will| can)? (?:present|offer)|"
    r"\blet me (?:offer|give|try|present|provide|share)(?: you)?)"
)
_A = r"(?:an?|the|my|your|our|one|another)(?: (?:possible|slightly|completely|fully|much|far|somewhat|even))?"
_PREAMBLE = re.compile(
    rf"\b(?:here(?:'s| is| are)|below is|this is|i present|i offer) (?:an? |the |my |your |our )?(?:more \w+ )?"
    rf"{NEW},? (?:(?:and|more|less) \w+,? ){{0,2}}(?P<noun>answer|response|reply|version|message|text)\b"
    rf"(?! of (?:your|this)\b)|^\W*(?:(?:a|the|my|your) )?{NEW},? (?:\w+ )?(?:answer|response|reply)\b[^.\n]{{0,80}}:",
    _I,
)
# Here is a safer, more balanced version.
_BETTER = re.compile(
    rf"{_HERE} {_A} (?P<like>{COMPARED})(?:(?:,| and|, and|,? but) (?:{COMPARED}|still \w+)){{0,3}} "
    rf"(?P<noun>{ANSWER}|version|attempt|wording|phrasing)\b(?! of (?!(?:the|my) {ANSWER}))",
    _I,
)
# Here is an answer that no longer insults; the answer without the harmful part; a response in line with the principle.
_SUCH = re.compile(
    rf"{_HERE} {_A} (?P<noun>{ANSWER}|version),? (?:(?:that|which) (?:now |also )?(?:is (?:more|less|not)|avoids?|"
    r"follows?|respects?|removes?|adheres?|compl(?:y|ies)|does not|doesn't|no longer|addresses|meets|keeps|aligns?)|"
    r"without (?:the|any|that|those|these) (?:[\w-]+ ){0,3}?(?:parts?|problems?|issues?|content|language|advice|"
    r"stereotypes?|suggestions?|assumptions?|wording|tone|statements?|claims?|details?)|"
    r"(?:in line|in accordance|aligned|consistent) with)",
    _I,
)
# Here is a rewrite; my revision of it.
_REWRITE = re.compile(
    rf"{_HERE} {_A} (?:[\w-]+,? ){{0,2}}?(?:re-?write|revision|rewording|rephrasing|reworking|redraft)\b"
    r"(?! (?:plan|schedule|guide|timetable|list|notes?|history|tips?|techniques?|cards?|course|number|session))",
    _I,
)
# Here is my attempt at a less harmful answer. The revised answer is: ...
_ATTEMPT = re.compile(
    rf"{_HERE} {_A} (?:[\w-]+ )?(?:attempt|try|go|shot) (?:at|to)\b[^.:\n]{{0,40}}\b"
    rf"(?:{ANSWER}|version|re-?writ\w*|revis\w*)\b|"
    rf"(?:^|[.!:\n])\W{{0,5}}(?:the|my|your|our|a) (?:{NEW}|safer|less \w+|more \w+),? (?:\w+ )?{NOUN}\b"
    r"[^.:\n]{0,40}? (?:is|would be|could be|might be|should be|reads|follows|goes)\b[^.\n]{0,30}:",
    _I,
)

# --- what was changed

_BAD = (
    r"(?:harm\w*|offensive|unethical|dangerous|toxic|biased?|inappropriate|problematic|illegal|insensitive|"
    r"stereotyp\w*|judg\w*|misleading|inaccura\w+|unsafe|hurtful|rude|violen\w+|discriminat\w+|sexist|racist|preachy|"
    r"disrespectful|unhelpful|evasive|incorrect|vague|derogatory|aggressive|critique\w*|principles?|guidelines)"
)
_SAID = (
    r"(?:advice|suggestions?|answer|response|reply|language|wording|statements?|claims?|content|remarks?|phras\w+|"
    r"stereotyp\w+|assumptions?|tone|references?|mentions?|instructions?|parts?|details?|encouragement|"
    r"recommendations?|words?|text|sentences?|examples?|steps?)"
)
_SINCE = r"(?:^|[.!?:;\n(\[*_-] {0,2}|\b(?:note that|as requested|sure|here),? )"
_I_DID = r"i(?:'ve| have)?(?: (?:just|now|also|carefully|therefore|completely|slightly|instead)){0,2} "
_ANSWERED = re.compile(
    r"\b(?:i(?:'ve| have)?|i(?:'ll| will)) (?:just |now |also |carefully )?(?:rewrit(?:e|ten)|rewrote|revised?|"
    r"updated?|modif(?:y|ied)|correct(?:ed)?|rephrased?|reworded|reworked|amended|adjusted|removed|edit(?:ed)?) "
    r"(?:the |my |this |your )?(?:(?:previous|last|original|earlier|initial|above) )?"
    r"(?:response|answer|reply|problems? named|issues? named)\b",
    _I,
)
_CHANGED = re.compile(
    # I've rewritten it to be harmless; I reworded the advice so that ...
    rf"{_SINCE}{_I_DID}(?:rewritten|rewrote|revised|re-?worded|re-?phrased|reworked|redrafted|amended|toned down|"
    rf"softened) (?:(?:it|this|that|everything)(?: (?:to|so|in|as|with|without|accordingly)\b|[,.:;])|"
    r"(?:the|my|your|this|that|its) (?:[\w-]+ )?(?:advice|suggestions?|language|wording|statements?|claims?|content|"
    r"remarks?|tone)\b)|"
    # I removed the suggestion to shout because it is harmful.
    rf"{_SINCE}{_I_DID}(?:removed|deleted|dropped|taken out|took out|left out|omitted|replaced|avoided|eliminated|"
    rf"changed|adjusted|corrected)\b(?=[^.!?\n]{{0,100}}\b{_SAID}\b)(?=[^.!?\n]{{0,160}}\b{_BAD}\b)",
    _I,
)
# I've made the answer more respectful; I removed the suggestion to shout, which nobody has seen.
_MADE = re.compile(
    rf"{_SINCE}{_I_DID}(?:made (?:the|my|this) (?:{ANSWER}|wording|tone|advice|language) {COMPARED}\b|"
    r"(?:removed|deleted|dropped|taken out|took out|replaced|toned down|softened) (?:the|my|any|that) (?:[\w-]+ )?"
    r"(?:advice|suggestions?|recommendations?|encouragement|claims?|remarks?|assumptions?|stereotyp\w+|wording)"
    r"\b)",
    _I,
)
# Let me know if this revision addresses the concerns; I hope this revised answer helps.
_HOPES = re.compile(
    rf"\b(?:let me know (?:if|whether)|i hope(?: that)?|hopefully,?) (?:this|the|my) (?:new |updated )?"
    rf"(?:(?:revised|rewritten|reworded|updated|improved) (?:{ANSWER}|version)\b|(?:revision|re-?write|rewording) "
    r"(?:\w+ )?(?:meets?|address(?:es)?|aligns?|adheres?|compl(?:ies|y)|follows?|avoids?|reflects?|respects?|"
    r"satisf(?:ies|y)|resolves?|is (?:more|less|better|acceptable)|works|suits)\b)",
    _I,
)
# This revision avoids ...; in this rewrite, I ...
_IN_THIS = re.compile(
    rf"(?:^|[.!?:;\n(\[*_-] {{0,2}})(?:in )?(?:this|the|my) (?:new |updated )?(?:revision|re-?write|rewording|"
    rf"(?:revised|rewritten|reworded|updated|improved) (?:{ANSWER}|version|text))\b(?:, i\b| (?:\w+ )?(?:avoids?|"
    r"removes?|keeps?|no longer|does not|doesn't|now|is (?:more|less)|addresses|follows|provides|focus\w+|includes?|"
    r"acknowledges?|emphasi[sz]es|offers|encourages|respects|takes|maintains|aims|makes|uses|replaces|highlights|"
    r"eliminates|ensures|still)\b)",
    _I,
)


def wants_revision(asked: str) -> bool:
    """Whether the user asks to have a text reworked: then a preamble and remarks about that are the answer."""
    return _WANTS.search(straight(asked)) is not None


def mentions_answer(asked: str) -> bool:
    """Whether the user brings up an answer, so that text about one may be meant."""
    return _MENTIONS_ANSWER.search(asked) is not None


def mentions_revisions(asked: str) -> bool:
    """Whether the user brings up revising or rewriting, of whatever."""
    return _MENTIONS_REVISIONS.search(asked) is not None


def announces(plain: str, asked: str, *, had_answer: bool) -> bool:
    """Whether a revision (with straight quotes) begins by offering itself as one, or remarks on what it changed.

    Remarks stand before the answer or after it, not in the middle of a story. "The revised answer" is one in any case
    where there was no answer before and none is spoken of: then nothing but the loop's own can be meant.
    """
    wanted = wants_revision(asked)
    if wanted and (had_answer or mentions_answer(asked)):
        return False
    start = opening(plain)
    preamble = _PREAMBLE.search(start)
    if preamble:
        answerish = preamble["noun"] is None or preamble["noun"].casefold() in ("answer", "response", "reply")
        if answerish or not (wanted or had_answer):
            return True
    ends = (plain[:300], plain[-300:])
    if any(_ANSWERED.search(end) for end in ends):
        return True
    if wanted or had_answer:
        return False
    if _offers(start, asked):
        return True
    if any(_IN_THIS.search(end) or _HOPES.search(end) for end in ends) and not mentions_revisions(asked):
        return True
    return any(_CHANGED.search(end) or _MADE.search(end) for end in ends) and not _NARRATED.search(asked)


def _offers(start: str, asked: str) -> bool:
    lower = asked.casefold()

    def meant(noun: str) -> bool:
        """Whether the user may have asked for such a thing: for words to say to somebody, for another version."""
        if noun.casefold() in ("answer", "response", "reply"):
            return mentions_answer(asked) or _WANTS_WORDS.search(asked) is not None
        return noun.casefold() in lower

    better = _BETTER.search(start)
    if better and not meant(better["noun"]):
        # "How do I make lasagne healthier?" "Here is a healthier version:"
        like = better["like"].casefold().split()[-1]
        if like[: max(4, len(like) - 3)] not in lower:
            return True
    such = _SUCH.search(start)
    if such and not meant(such["noun"]):
        return True
    return _ATTEMPT.search(start) is not None or (_REWRITE.search(start) is not None and not mentions_revisions(asked))
