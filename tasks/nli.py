"""Natural language inference: ANLI, CB, MNLI, QNLI, RTE, SNLI and WNLI."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flan_jax.catalog import CLASSIFICATION, Dataset
from flan_jax.lazy import lazy_imports
from flan_jax.splits import Splits
from flan_jax.tasks.fields import capitalized, has_label, one_line, pick
from flan_jax.tasks.paraphrase import untokenized
from flan_jax.templates import INVERTED, Gpt3Prompt, Template

with lazy_imports():  # the catalog is read by processes that need no TensorFlow
    import tensorflow as tf

_THREE_WAY = (
    ("entailment", "yes"),
    ("neutral", "it is not possible to tell"),
    ("contradiction", "no"),
)
_TWO_WAY = (("entailment", "yes"), ("not_entailment", "no"))

# For the inverted templates, in label order: "a statement that ...", and for QNLI "a sentence that ... the question".
_THREE_WAY_RELATIONS = ("has to be true", "may or may not be true", "cannot be true")
_RTE_RELATIONS = ("follows from it", "does not follow from it")
_QNLI_RELATIONS = ("answers", "does not answer")


def _three_way_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """Fields premise, hypothesis, relation (a phrase by label), options, answer."""
    words = tuple(word for _, word in _THREE_WAY)
    return {
        "premise": capitalized(one_line(record["premise"])),
        "hypothesis": capitalized(one_line(record["hypothesis"])),
        "relation": pick(_THREE_WAY_RELATIONS, record["label"]),
        "options": tf.constant(words),
        "answer": pick(words, record["label"]),
    }


# ------------------------------------------------------------------------------------------------------------- ANLI

# "No" stands for what is false. Since what is left open must not count as "no" too, the templates ask what is true and
# not, as one might, what follows.
_ANLI_LABELS = (("e", "Yes"), ("n", "It's impossible to say"), ("c", "No"))
_ANLI_RELATIONS = ("is true", "can be neither confirmed nor ruled out", "is false")


# Stories of the third round come tokenized (`` I do n't know . ''), most with "<br>" after each sentence.
_TOKENIZED = r"(?s).* (?:``|''|n't|[.,] ?<br>).*"

# What is left of Wikipedia's markup and of WikiHow's, applied in order. Where the title of a work fell out (`the film ""
# in 2003`), dots stand for it; what only ever stood in brackets, such as how a name is said, goes with them.
_ANLI_LEFTOVERS = (
    (r"[\x{200B}\x{200E}\x{200F}\x{202A}-\x{202E}\x{00AD}\x{FEFF}]", ""),
    (r",? ?\{'1':[^}]*\}(?: ?,)?", ""),
    (r" ?\[(?:header|title|step|substeps)\] ?", " "),
    (r"-LSB- ?", "["),
    (r" ?-RSB-", "]"),
    (r"Â([£°©])", r"\1"),
    (r"â€”", "—"),
    (r"\s*\([\s\],;]*\)(\w)", r" \1"),
    (r"\s*\([\s\],;]*\)", ""),
    (r"\((?:[\s,;]|or\b|pronounced\b)*[;\]][\s,;\]]*|\([\s,]+", "("),
    (r"^([^\[\]]*[^\[\]\s,;(])[\s,;]*\]", r"\1"),
    (r'(^|[ (])""($|[ .,;:)])', r'\1"..."\2'),
    (r'""', '"'),
    (r" +([,;.)\]])($|[\s,;)])", r"\1\2"),
)


def _anli_text(text: Any) -> Any:
    """Text without markup. A title that stands before it, as in WikiHow, has a line of its own; the rest is one line."""
    apart = tf.strings.regex_replace(text, r"(^|[ >])` ((?:[^`']|\w'\w| '(?:s|m|d|ll|re|ve) | n't)+) '", r"\1' \2 '")
    apart = untokenized(tf.strings.regex_replace(apart, r"<br ?/?>", " <br> "))
    text = tf.where(tf.strings.regex_full_match(text, _TOKENIZED), apart, one_line(text))
    text = tf.strings.regex_replace(text, r"""([.!?,;:]["')\]]*|-) ?<br ?/?> ?""", r"\1 ")
    text = tf.strings.regex_replace(text, r" ?<br ?/?> ?", "\n")
    for pattern, instead in _ANLI_LEFTOVERS:
        text = tf.strings.regex_replace(text, pattern, instead)
    return tf.strings.strip(tf.strings.regex_replace(text, " {2,}", " "))


def _anli_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """Fields premise (TFDS's context), hypothesis, relation (a phrase by label), options, answer."""
    words = tuple(word for _, word in _ANLI_LABELS)
    return {
        "premise": capitalized(_anli_text(record["context"])),
        "hypothesis": capitalized(_anli_text(record["hypothesis"])),
        "relation": pick(_ANLI_RELATIONS, record["label"]),
        "options": tf.constant(words),
        "answer": pick(words, record["label"]),
    }


# The contexts of the third round also come from fiction, speeches and instructions, so no template says "article".
_ANLI_TEMPLATES = (
    Template(
        "{premise}\n\nGoing only by this text, is the following true?\n\n{hypothesis}\n\n{options}",
        open_input='{premise}\n\nGoing only by this text, is the following true? Say "Yes", "No" or "It\'s impossible to say".\n\n{hypothesis}',
    ),
    Template(
        "Context: {premise}\nStatement: {hypothesis}\nTrue?\n{options}",
        open_input="Context: {premise}\nStatement: {hypothesis}\nTrue (yes / no / it's impossible to say)?",
    ),
    Template(
        "{hypothesis}\n\nWould that be true, according to this?\n\n{premise}\n\n{options}",
        open_input="{hypothesis}\n\nWould that be true, according to this? Answer yes or no, unless it's impossible to say.\n\n{premise}",
    ),
    Template(
        "Careful, this may be a trick question.\n\nText: {premise}\n\nSentence: {hypothesis}\n\nGoing by the text, is the sentence true?\n{options}",
        open_input='Careful, this may be a trick question.\n\nText: {premise}\n\nSentence: {hypothesis}\n\nGoing by the text, is the sentence true? Reply with "Yes", "No" or "It\'s impossible to say".',
    ),
    Template(
        "{premise}\n\nIf all that is so, is this true?\n{hypothesis}\n{options}",
        open_input="{premise}\n\nIf all that is so, is this true? Possible answers: Yes. No. It's impossible to say.\n{hypothesis}",
    ),
    Template(
        "Check the claim against the source and say if it's true. If the source doesn't settle it, say that instead.\n\nClaim: {hypothesis}\nSource: {premise}\n\n{options}",
        open_input="Check the claim against the source. Is it true? Write yes or no, or \"It's impossible to say\" if the source doesn't settle it.\n\nClaim: {hypothesis}\nSource: {premise}",
    ),
    Template(
        "so is this true or not?\n{hypothesis}\n\nall we have is this:\n{premise}\n\n{options}",
        open_input='so is this true or not? yes, no or "it\'s impossible to say"\n{hypothesis}\n\nall we have is this:\n{premise}',
    ),
    Template(
        "{premise}\n\nIs this true, as far as one can tell from the text? {hypothesis}\n{options}",
        open_input="{premise}\n\nGoing only by this text, is the next sentence true (yes, no, or it's impossible to say)? {hypothesis}",
    ),
    Template("Write one tricky sentence that, going by this text, {relation}.\n\n{premise}", "{hypothesis}", INVERTED),
    Template(
        '{premise}\n\nWrite a statement about this text. If I ask "Is it true?", the right answer should be "{answer}".',
        "{hypothesis}",
        INVERTED,
    ),
)


# Nie et al. 2020, section 2.3: contexts of rounds 1 and 2 are from HotpotQA's training set, those of round 3 from
# StoryCloze and WikiHow among others. SNLI is in none of them: it served to train the models that were to be fooled.
_ANLI_HOTPOT = (("hotpot_qa", "ANLI's contexts are from HotpotQA"),)
_ANLI_KIN = {
    1: _ANLI_HOTPOT,
    2: _ANLI_HOTPOT,
    3: (
        ("story_cloze", "ANLI r3 has contexts from StoryCloze"),
        ("hellaswag", "both have text of WikiHow"),
        ("wiki_lingua_english_en", "both have text of WikiHow"),
    ),
}


def _anli(number: int) -> Dataset:
    return Dataset(
        name=f"anli_r{number}",
        cluster="nli",
        source=f"anli/r{number}:0.1.0",
        paper_dataset="anli",
        kin=_ANLI_KIN[number],
        kind=CLASSIFICATION,
        metrics=("accuracy",),
        splits=Splits(dev="validation", test="test"),
        labels=_ANLI_LABELS,
        passage="premise",
        fields=_anli_fields,
        gpt3_prompt=Gpt3Prompt(
            "{premise}\nStatement: {hypothesis}\nIs the statement true, false, or neither?\nAnswer:",
            ("true", "neither", "false"),
        ),
        templates=_ANLI_TEMPLATES,
    )


ANLI_R1 = _anli(1)
ANLI_R2 = _anli(2)
ANLI_R3 = _anli(3)

# --------------------------------------------------------------------------------------------------------------- CB

# SuperGLUE puts contradiction before neutral here, unlike the three-way datasets above and below.
_CB_LABELS = (("entailment", "Yes"), ("contradiction", "No"), ("neutral", "It's impossible to say"))
_CB_RELATIONS = ("is true", "is not true", "may or may not be true")


def _cb_text(text: Any) -> Any:
    """Text on one line, without what a tokenizer left: ``word'', "had n't" and a space before a full stop."""
    text = tf.strings.regex_replace(one_line(text), r"``|''", '"')
    text = tf.strings.regex_replace(text, r"(\w) (n't|'(?:s|m|d|ll|re|ve))\b", r"\1\2")
    return tf.strings.regex_replace(text, r" ([.,])( |$)", r"\1\2")


def _cb_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """Fields premise, hypothesis, relation (a phrase by label), options, answer.

    A premise is a piece of a conversation, a story or the news, whose last sentence matters. A hypothesis is a clause
    of it, often word for word and mostly without a capital letter or a full stop, so no inverted template asks for one.
    """
    words = tuple(word for _, word in _CB_LABELS)
    return {
        "premise": _cb_text(record["premise"]),
        "hypothesis": _cb_text(record["hypothesis"]),
        "relation": pick(_CB_RELATIONS, record["label"]),
        "options": tf.constant(words),
        "answer": pick(words, record["label"]),
    }


CB = Dataset(
    name="cb",
    cluster="nli",
    source="super_glue/cb:1.0.2",
    kind=CLASSIFICATION,
    metrics=("accuracy", "mean_multiclass_f1"),
    splits=Splits(dev_size=50),
    labels=_CB_LABELS,
    keep=has_label,
    fields=_cb_fields,
    gpt3_prompt=Gpt3Prompt(
        "{premise}\nStatement: {hypothesis}\nIs the statement true, false, or neither?\nAnswer:",
        ("true", "false", "neither"),
    ),
    templates=(
        Template(
            "{premise}\n\nJudging from the passage, is the statement true?\n\nStatement: {hypothesis}\n\n{options}",
            open_input='{premise}\n\nJudging from the passage, is the statement true? Write "Yes", "No" or "It\'s impossible to say".\n\nStatement: {hypothesis}',
        ),
        Template(
            "Text: {premise}\nClaim: {hypothesis}\nIs it true?\n{options}",
            open_input="Text: {premise}\nClaim: {hypothesis}\nIs it true? Yes / No / It's impossible to say",
        ),
        Template(
            "Here's a claim:\n{hypothesis}\n\nIs it true, given this?\n\n{premise}\n\n{options}",
            open_input="Here's a claim:\n{hypothesis}\n\nIs it true, given this? Yes or no, unless it's impossible to say.\n\n{premise}",
        ),
        Template(
            "Pay attention to the last sentence of the passage. After reading it, would you say the point below is true?\n\nPassage: {premise}\n\nPoint: {hypothesis}\n\n{options}",
            open_input='Pay attention to the last sentence of the passage. After reading it, would you say the point below is true? Reply "Yes", "No" or "It\'s impossible to say".\n\nPassage: {premise}\n\nPoint: {hypothesis}',
        ),
        Template(
            "{hypothesis}\n\nTrue, as far as the text goes? Remember that people also wonder, doubt and pretend.\n\n{premise}\n\n{options}",
            open_input="{hypothesis}\n\nTrue, as far as the text goes? Yes, no, or it's impossible to say? Remember that people also wonder, doubt and pretend.\n\n{premise}",
        ),
        Template(
            "came in late, this is all I heard:\n{premise}\n\nclaim: {hypothesis}\ntrue? it's fine if you can't tell\n\n{options}",
            open_input="came in late, this is all I heard:\n{premise}\n\nclaim: {hypothesis}\ntrue? yes or no, and if you can't tell, \"it's impossible to say\"",
        ),
        Template(
            "Extract:\n{premise}\n\nTrue, given the extract?\n{hypothesis}\n\n{options}",
            open_input="Extract:\n{premise}\n\nTrue, given the extract (yes, no, it's impossible to say)?\n{hypothesis}",
        ),
        Template(
            "{premise}\n{hypothesis}\n\nIs that true?\n{options}",
            open_input='{premise}\n{hypothesis}\n\nIs that true? Your answer should be "Yes", "No" or "It\'s impossible to say".',
        ),
        Template(
            "Write a few lines of a conversation, a story or a news report, after which this statement {relation}:\n\n{hypothesis}",
            "{premise}",
            INVERTED,
        ),
        Template(
            'Write a few sentences about this claim. Asked whether it is true, one should have to answer "{answer}".\n\nClaim: {hypothesis}',
            "{premise}",
            INVERTED,
        ),
    ),
)

# ------------------------------------------------------------------------------------------------------------- MNLI

# "Is it true", never "does it follow": what is neutral does not follow either, so the latter would make "no" right twice.
_MNLI_TEMPLATES = (
    Template(
        "Premise: {premise}\nHypothesis: {hypothesis}\nIf the premise is true, is the hypothesis?\n{options}",
        open_input="Premise: {premise}\nHypothesis: {hypothesis}\nIf the premise is true, is the hypothesis: yes, no, or it is not possible to tell?",
    ),
    Template(
        "{premise}\n\nKnowing only that, is the next sentence true?\n\n{hypothesis}\n\n{options}",
        open_input='{premise}\n\nKnowing only that, is the next sentence true? Say "yes", "no" or "it is not possible to tell".\n\n{hypothesis}',
    ),
    Template(
        "Is this sentence true?\n{hypothesis}\n\nAll you have to go on:\n{premise}\n\n{options}",
        open_input="Is this sentence true? Yes or no, unless it is not possible to tell.\n{hypothesis}\n\nAll you have to go on:\n{premise}",
    ),
    Template(
        "Fact: {premise}\nClaim: {hypothesis}\nTrue?\n{options}",
        open_input="Fact: {premise}\nClaim: {hypothesis}\nTrue (yes / no / it is not possible to tell)?",
    ),
    Template(
        "My notes: {premise}\nMy friend says: {hypothesis}\nIf my notes are right, is my friend right too? Don't guess if it could go either way.\n\n{options}",
        open_input='My notes: {premise}\nMy friend says: {hypothesis}\nIf my notes are right, is my friend right too? If it could go either way, write "it is not possible to tell" instead of yes or no.',
    ),
    Template(
        "Accept 1 as it stands.\n\n1. {premise}\n2. {hypothesis}\n\nIs 2 true?\n{options}",
        open_input="Accept 1 as it stands.\n\n1. {premise}\n2. {hypothesis}\n\nIs 2 true? Possible answers: yes; no; it is not possible to tell.",
    ),
    Template(
        "True, going by the evidence alone?\n\nEvidence: {premise}\nSentence: {hypothesis}\n\n{options}",
        open_input="True, going by the evidence alone? Answer with yes, no or it is not possible to tell.\n\nEvidence: {premise}\nSentence: {hypothesis}",
    ),
    Template(
        "{premise}\n\nWrite another sentence on the same subject, one that {relation} if this is right.",
        "{hypothesis}",
        INVERTED,
    ),
    Template(
        'A: {premise}\n\nWrite a sentence B to go with A. "Is B true, given A?" should get the answer "{answer}".',
        "{hypothesis}",
        INVERTED,
    ),
    Template(
        "Make up some background for the claim below. Given that background, the claim {relation}.\n\n{hypothesis}",
        "{premise}",
        INVERTED,
    ),
)


def _mnli_keep(record: Mapping[str, Any]) -> Any:
    """Keeps what has a label and a hypothesis: a few writers gave "n/a"."""
    return has_label(record) & ~tf.strings.regex_full_match(record["hypothesis"], r"(?i)\s*n ?/ ?a\.?\s*")


def _mnli(variant: str) -> Dataset:
    return Dataset(
        name=f"mnli_{variant}",
        cluster="nli",
        source="glue/mnli:2.0.0",
        paper_dataset="mnli",
        folder="mnli",
        kind=CLASSIFICATION,
        metrics=("accuracy",),
        splits=Splits(test=f"validation_{variant}", exact=variant == "mismatched"),
        labels=_THREE_WAY,
        keep=_mnli_keep,
        passage="premise",
        fields=_three_way_fields,
        gpt3_prompt=Gpt3Prompt(
            "{premise}\nStatement: {hypothesis}\nIs the statement true, false, or neither?\nAnswer:",
            ("true", "neither", "false"),
        ),
        templates=_MNLI_TEMPLATES,
    )


MNLI_MATCHED = _mnli("matched")
MNLI_MISMATCHED = _mnli("mismatched")

# ------------------------------------------------------------------------------------------------------------- QNLI


# Wikipedia's marks for notes and for what an editor should see to: "[note 2]", "[citation needed]".
_WIKI_NOTES = (
    r"(?i) ?\[(?:[a-z ]+ needed|(?:note|nb|web|fn) ?\d+|\d{1,3}|original research\??|not in citation given|vague|update"
    r"|dubious[^\]]*|(?:who|when|which|where|why|how|by whom|according to whom)\?)\]"
)


def _qnli_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """Fields question, sentence, relation (a phrase by label), options, answer."""
    words = tuple(word for _, word in _TWO_WAY)
    return {
        "question": one_line(record["question"]),
        "sentence": one_line(tf.strings.regex_replace(record["sentence"], _WIKI_NOTES, "")),
        "relation": pick(_QNLI_RELATIONS, record["label"]),
        "options": tf.constant(words),
        "answer": pick(words, record["label"]),
    }


QNLI = Dataset(
    name="qnli",
    cluster="nli",
    source="glue/qnli:2.0.0",
    # Wang et al. 2018 (GLUE), section 3.3: questions and sentences of SQuAD v1.1, train and dev.
    kin=(("squad", "QNLI has SQuAD's questions and sentences"), ("xquad", "both have questions of SQuAD's dev set")),
    kind=CLASSIFICATION,
    metrics=("accuracy",),
    labels=_TWO_WAY,
    keep=has_label,
    fields=_qnli_fields,
    passage="sentence",
    gpt3_prompt=Gpt3Prompt(
        "Question: {question}\nText: {sentence}\nDoes the text contain the answer to the question?\nAnswer (yes or no):"
    ),
    templates=(
        Template("Sentence: {sentence}\nDoes it answer this question?\n{question}\n{options}"),
        Template("{sentence}\n\nIs that enough to answer the following?\n\n{question}\n\n{options}"),
        Template("I asked: {question}\nThe top search result says: {sentence}\nIs the answer in there?\n\n{options}"),
        Template("Q: {question}\nText: {sentence}\nAnswered?\n{options}"),
        Template(
            "Shared words alone don't count here.\n\nQuestion: {question}\nSentence: {sentence}\n\nDoes the sentence hold what the question asks for?\n{options}"
        ),
        Template("{question}\n\nDoes this encyclopedia sentence tell you?\n\n{sentence}\n\n{options}"),
        Template(
            "Reply yes if the sentence gives the answer and no if it doesn't.\n\nAsked: {question}\nFound: {sentence}\n\n{options}"
        ),
        Template(
            "Ask one question about the topic of this sentence, a question that it {relation}.\n\n{sentence}",
            "{question}",
            INVERTED,
        ),
        Template(
            '{sentence}\n\nWrite a question on this subject. "Does the sentence answer it?" should get the reply "{answer}".',
            "{question}",
            INVERTED,
        ),
        Template(
            "Stay on topic and write one encyclopedia sentence that {relation} this question:\n\n{question}",
            "{sentence}",
            INVERTED,
        ),
    ),
)

# -------------------------------------------------------------------------------------------------------------- RTE


def _rte_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """Fields premise, hypothesis, relation (a phrase by label), options, answer."""
    words = tuple(word for _, word in _TWO_WAY)
    return {
        "premise": one_line(record["premise"]),
        "hypothesis": one_line(record["hypothesis"]),
        "relation": pick(_RTE_RELATIONS, record["label"]),
        "options": tf.constant(words),
        "answer": pick(words, record["label"]),
    }


RTE = Dataset(
    name="rte",
    cluster="nli",
    source="super_glue/rte:1.0.2",
    kind=CLASSIFICATION,
    metrics=("accuracy",),
    labels=_TWO_WAY,
    keep=has_label,
    fields=_rte_fields,
    gpt3_prompt=Gpt3Prompt(
        "{premise}\nStatement: {hypothesis}\nIs the statement true or false?\nAnswer:", ("true", "false")
    ),
    templates=(
        Template("{premise}\n\nIf that's so, must this be true?\n\n{hypothesis}\n\n{options}"),
        Template("Text: {premise}\nStatement: {hypothesis}\nDoes the text support the statement?\n{options}"),
        Template("Does the source back up the claim?\n\nClaim: {hypothesis}\n\nSource: {premise}\n\n{options}"),
        Template("Premise: {premise}\nConclusion: {hypothesis}\nValid?\n{options}"),
        Template(
            "read this in the news today:\n{premise}\n\ncan I safely tell people this?\n{hypothesis}\n\n{options}"
        ),
        Template(
            "Say a reader believes the passage.\n\nPassage: {premise}\n\nSentence: {hypothesis}\n\nDo they have to accept the sentence as well?\n{options}"
        ),
        Template("{premise}\n{hypothesis}\nDoes the second follow from the first?\n{options}"),
        Template(
            "{hypothesis}\n\nDoes that follow from the report below? Don't rely on anything else you know.\n\n{premise}\n\n{options}"
        ),
        Template(
            "{premise}\n\nTake this report and write one short sentence on its subject that {relation}.",
            "{hypothesis}",
            INVERTED,
        ),
        Template(
            'Statement: {hypothesis}\n\nWrite a news passage on this subject. The answer to "Does the statement follow from the passage?" should be "{answer}".',
            "{premise}",
            INVERTED,
        ),
    ),
)

# ------------------------------------------------------------------------------------------------------------- SNLI

SNLI = Dataset(
    name="snli",
    cluster="nli",
    source="snli:1.1.0",
    # Bowman et al. 2015, section 2.1: premises are captions of Flickr30k. Elliott et al. 2016: so are Multi30k's texts.
    kin=(("multi30k", "both have captions of Flickr30k"),),
    kind=CLASSIFICATION,
    metrics=("accuracy",),
    splits=Splits(dev="validation", test="test"),
    labels=_THREE_WAY,
    spellings=(("-", -1),),  # SNLI's own files, where nobody agreed
    keep=has_label,
    passage="premise",
    fields=_three_way_fields,
    # The premises are captions of photographs and both sentences are about one scene, which the templates say.
    gpt3_prompt=Gpt3Prompt(
        "{premise}\nStatement: {hypothesis}\nIs the statement true, false, or neither?\nAnswer:",
        ("true", "neither", "false"),
    ),
    templates=(
        Template(
            "Photo: {premise}\nAlso true? {hypothesis}\n{options}",
            open_input="Photo: {premise}\nAlso true? {hypothesis}\nYes / no / it is not possible to tell:",
        ),
        Template(
            "One scene:\n\n1. {premise}\n2. {hypothesis}\n\nIf 1 is true, is 2 true?\n{options}",
            open_input='One scene:\n\n1. {premise}\n2. {hypothesis}\n\nIf 1 is true, is 2 true? Answer yes, no or "it is not possible to tell".',
        ),
        Template(
            "{hypothesis}\n\nIs this true in the scene below?\n\n{premise}\n\n{options}",
            open_input="{hypothesis}\n\nIs this true in the scene below? Yes or no, unless it is not possible to tell.\n\n{premise}",
        ),
        Template(
            "Scene: {premise}\nDetail: {hypothesis}\nTrue?\n{options}",
            open_input="Scene: {premise}\nDetail: {hypothesis}\nTrue (yes, no, it is not possible to tell)?",
        ),
        Template(
            "can't see the photo, only the caption:\n{premise}\n\nis this true of it?\n{hypothesis}\n\n{options}",
            open_input='can\'t see the photo, only the caption:\n{premise}\n\nis this true of it? yes, no or "it is not possible to tell"\n{hypothesis}',
        ),
        Template(
            "Trust the caption and say whether the description is true too.\n\nCaption: {premise}\nDescription: {hypothesis}\n\n{options}",
            open_input='Trust the caption and say whether the description is true too: "yes", "no" or "it is not possible to tell".\n\nCaption: {premise}\nDescription: {hypothesis}',
        ),
        Template(
            "{premise}\n{hypothesis}\n\nSay whether the lower line is true if the upper one is.\n{options}",
            open_input="{premise}\n{hypothesis}\n\nIs the lower line true if the upper one is? Say yes or no, or that it is not possible to tell.",
        ),
        Template("{premise}\n\nAdd a sentence that {relation} in this scene.", "{hypothesis}", INVERTED),
        Template(
            'Caption: {premise}\n\nWrite a sentence about the picture. Going by the caption, "Is it true?" should get the answer "{answer}".',
            "{hypothesis}",
            INVERTED,
        ),
        Template(
            "Write a photo caption. Going by your caption, the sentence below {relation}.\n\n{hypothesis}",
            "{premise}",
            INVERTED,
        ),
    ),
)

# ------------------------------------------------------------------------------------------------------------- WNLI

_WNLI_LABELS = (("not_entailment", "no"), ("entailment", "yes"))
_WNLI_RELATIONS = ("does not follow from what is said", "follows from what is said")


def _wnli_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """Fields text, reading (a part of it with a noun for a pronoun), relation (a phrase by label), options, answer."""
    words = tuple(word for _, word in _WNLI_LABELS)
    return {
        "text": one_line(record["sentence1"]),
        "reading": tf.strings.regex_replace(one_line(record["sentence2"]), r'^([^"]*)"$', r"\1"),
        "relation": pick(_WNLI_RELATIONS, record["label"]),
        "options": tf.constant(words),
        "answer": pick(words, record["label"]),
    }


WNLI = Dataset(
    name="wnli",
    cluster="nli",
    source="glue/wnli:2.0.0",
    # Wang et al. 2018 (GLUE), section 3.3, and Wang et al. 2019 (SuperGLUE), section 3.1: made of Winograd schemas.
    kin=(("wsc", "both are made of the Winograd schemas"), ("wsc273", "both are made of the Winograd schemas")),
    kind=CLASSIFICATION,
    metrics=("accuracy",),
    splits=Splits(dev_size=30),
    labels=_WNLI_LABELS,
    keep=has_label,
    passage="text",
    fields=_wnli_fields,
    gpt3_prompt=Gpt3Prompt("{text}\nStatement: {reading}\nIs the statement true or false?\nAnswer:", ("false", "true")),
    templates=(
        Template("{text}\n\nDoes that mean the following?\n\n{reading}\n\n{options}"),
        Template("Original: {text}\nReading: {reading}\nIs the reading right?\n{options}"),
        Template(
            "One pronoun in this text could refer to different things.\n\n{text}\n\nIs it understood correctly here?\n\n{reading}\n\n{options}"
        ),
        Template(
            "Work out what the pronouns refer to.\n\n1. {text}\n2. {reading}\n\nDoes line 2 follow from line 1?\n{options}"
        ),
        Template("{text}\n\nI take this to mean: {reading}\nAm I right?\n{options}"),
        Template("Given: {text}\nInferred: {reading}\nRight?\n{options}"),
        Template("Did the author of the first text mean the second?\n\nFirst: {text}\nSecond: {reading}\n\n{options}"),
        Template("{reading}\n\nCan you tell that from this?\n\n{text}\n\n{options}"),
        Template(
            "{text}\n\nRewrite part of this with a noun or name in place of one pronoun, so that your sentence {relation}.",
            "{reading}",
            INVERTED,
        ),
        Template(
            'Make up a text with a pronoun in it. Does the line below follow from your text? The right answer has to be "{answer}".\n\n{reading}',
            "{text}",
            INVERTED,
        ),
    ),
)

DATASETS = (ANLI_R1, ANLI_R2, ANLI_R3, CB, MNLI_MATCHED, MNLI_MISMATCHED, QNLI, RTE, SNLI, WNLI)
