"""Summarization: emails, news, debates, film reviews, chats and how-to guides; AG News, too, is in this cluster."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from etils import epy

from flan_jax.catalog import CLASSIFICATION, GENERATION, Dataset
from flan_jax.splits import Splits
from flan_jax.tasks.fields import at, filled, first, one_line
from flan_jax.templates import INVERTED, Gpt3Prompt, Template

with epy.lazy_imports():  # the catalog is read by processes that need no TensorFlow
    import tensorflow as tf

_OPENING_WORDS = 60  # an inverted template asks for the beginning of a long text: targets over 256 tokens train nothing

_OWN_SPLITS = Splits(dev="validation", test="test")
_OPINION_SPLITS = Splits(dev_size=100, test_size=500)

# The last word of a sentence starts with a small letter or a digit, or has five letters: "Mrs." and "Sept." end none.
_LAST_WORD = r"(?:^|[ \"'“‘(—-])(?:[\p{Ll}\d$£€][\pL\d,’'-]*[\p{Ll}\d%]|\p{Lu}[\pL\d’'-]{4,})"
_UP_TO_LAST_SENTENCE_END = rf"^(.*{_LAST_WORD}[\"'”’)]*[.!?][\"'”’)]*)(?: .*)?$"


def _lines(text: Any) -> Any:
    """The text with its line breaks, but without empty lines, and with single spaces."""
    text = tf.strings.regex_replace(text, r"[\t\r\f\v\p{Z}]+", " ")
    return tf.strings.strip(tf.strings.regex_replace(text, r" ?\n[ \n]*", "\n"))


def _whole_sentences(text: Any) -> Any:
    """The text up to the last end of a sentence in it, or all of it where none is found."""
    return tf.strings.regex_replace(text, _UP_TO_LAST_SENTENCE_END, r"\1")


def _opening(text: Any) -> Any:
    """The first sentences of a text of one line, 60 words at most."""
    return _whole_sentences(tf.strings.reduce_join(tf.strings.split(text)[:_OPENING_WORDS], separator=" "))


# ------------------------------------------------------------------------------------------------------------ AESLC


def _aeslc_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """Fields body and answer (the subject line), each on one line."""
    return {"body": one_line(record["email_body"]), "answer": one_line(record["subject_line"])}


AESLC = Dataset(
    name="aeslc",
    cluster="summarization",
    source="aeslc:1.0.0",
    kind=GENERATION,
    metrics=("rouge", "rouge_stemmed"),
    splits=_OWN_SPLITS,
    fields=_aeslc_fields,
    gpt3_prompt=Gpt3Prompt("Email: {body}\n\nSubject of the email:", stop=("\n",)),
    templates=(
        Template("What should the subject line of this email be?\n\n{body}"),
        Template("{body}\n\nSubject line for the above:"),
        Template(
            "Somebody is about to send this message without a subject. Please supply one, short enough to be taken in at a glance.\n\n{body}"
        ),
        Template(
            "A mail program shows a few words for every message in the inbox. One message reads like this:\n\n{body}\n\nWhich words should the inbox show for it?"
        ),
        Template(
            "OFFICE SKILLS, UNIT 3\n\nRead the email and name its topic as the subject field would. A full sentence is not needed.\n\nEmail: {body}"
        ),
        Template("Hey, I have written the email below and cannot think of a subject. Any idea?\n\n{body}"),
        Template(
            "While a mailbox was being moved, one email lost its heading. Restore the heading from what the email says.\n{body}"
        ),
        Template("Email: {body}\nTopic, in a handful of words:"),
        Template("Write an email that could go out under the subject line below.\n\n{answer}", "{body}", INVERTED),
        Template("Subject: {answer}\nMessage:", "{body}", INVERTED),
    ),
)

# ---------------------------------------------------------------------------------------------------------- AG News

_AG_NEWS_LABELS = (("World", "World"), ("Sports", "Sports"), ("Business", "Business"), ("Sci/Tech", "Science/Tech"))

# The source turned the & of most HTML entities into a space, and line breaks into backslashes.
_AG_NEWS_REPAIRS = (
    (r"\\+", " "),
    (r"[ &]lt;[^;]*?[ &]gt;", " "),
    (r"[ &]?quot;", '"'),
    (r"[ &]?#39;", "'"),
    (r"[ &]?#36;", "$"),
    (r"[ &](?:amp|#38);", "&"),
)


def _ag_news_text(text: Any) -> Any:
    for pattern, replacement in _AG_NEWS_REPAIRS:
        text = tf.strings.regex_replace(text, pattern, replacement)
    return one_line(text)


def _ag_news_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """Fields title, description, options, answer."""
    options = tf.constant([word for _, word in _AG_NEWS_LABELS])
    return {
        "title": _ag_news_text(record["title"]),
        "description": _ag_news_text(record["description"]),
        "options": options,
        "answer": at(options, record["label"]),
    }


AG_NEWS_SUBSET = Dataset(
    name="ag_news_subset",
    cluster="summarization",
    source="ag_news_subset:1.0.0",
    kind=CLASSIFICATION,
    metrics=("accuracy",),
    splits=Splits(test="test"),
    labels=_AG_NEWS_LABELS,
    fields=_ag_news_fields,
    gpt3_prompt=Gpt3Prompt(
        "{title}\n{description}\nSection of the newspaper (World, Sports, Business or Science/Tech):"
    ),
    templates=(
        Template("{title}\n{description}\n\nWhich section of a news site does this belong in?\n\n{options}"),
        Template("File this news item under one heading.\n\nHeadline: {title}\nText: {description}\n\n{options}"),
        Template("News: {description}\nTopic?\n{options}"),
        Template(
            "I put together a newsletter of four pages, and every story has to go on one of them. Which page would you choose for this one?\n\n{title}\n\n{description}\n\n{options}",
            open_input="I put together a newsletter, and every story has to go on the page for its subject. Which page would that be for this one?\n\n{title}\n\n{description}",
        ),
        Template(
            "Going by the headline alone, what kind of news would you expect to find below it?\n\n{title}\n\n{options}"
        ),
        Template("MEDIA STUDIES QUIZ\n\nName the category of the following report.\n\n{description}\n\n{options}"),
        Template(
            "Could you tag this story for our archive, please? One tag is enough.\n\nTitle: {title}\nAbstract: {description}\n{options}"
        ),
        Template(
            "Somebody wants to know what sort of story this is before opening it. The screen shows no more than the following:\n\n{title}\n{description}\n\nWhat do you say?\n\n{options}"
        ),
        Template("Section: {answer}\nStory: {description}\nHeadline:", "{title}", INVERTED),
        Template(
            'In its section "{answer}", a news site carries the headline below. Write the sentence or two that come after it.\n\n{title}',
            "{description}",
            INVERTED,
        ),
    ),
)

# ---------------------------------------------------------------------------------------------------- CNN/DailyMail

_DATELINE = (  # "(CNN) -- ", "(CNN)"; "LONDON, England (CNN) -- " keeps its place, which highlights may name
    (r"^(?:\([A-Z][\w. ]{1,30}\) ?(?:--|—|–) ?|\(CNN\) ?)", ""),
    (r"^([A-Z][A-Z.'’ -]+(?:, [A-Z][A-Za-z.'’ -]+)*) \([A-Z][\w. ]{1,30}\) ?(?:--|—|–) ?", r"\1 -- "),
)
_BYLINE = (  # "By. Jane Doe. and John Doe. PUBLISHED:. 07:03 EST, 2 March 2013. |. UPDATED:. 08:07 EST, 2 March 2013. "
    r"^By ?\. [^.|]{2,60}\. (?:(?:and|,) ?[^.|]{2,60}\. )*"
    r"(?:(?i:published|updated|created): ?\. |\d\d?:\d\d [A-Z]{2,4}, \d{1,2} [A-Z][a-z]+ \d{4} ?\. |\| ?\. |Last updated at [^.]{5,40}\. )*"
)


def _cnn_dailymail_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """Fields article (without byline and agency), opening (of the article), answer (one highlight a line).

    The line breaks of the highlights stay: ROUGE-Lsum compares line by line.
    """
    article = tf.strings.regex_replace(one_line(record["article"]), _BYLINE, "")
    for pattern, replacement in _DATELINE:
        article = tf.strings.regex_replace(article, pattern, replacement)
    return {"article": article, "opening": _opening(article), "answer": _lines(record["highlights"])}


CNN_DAILYMAIL = Dataset(
    name="cnn_dailymail",
    cluster="summarization",
    source="cnn_dailymail:3.4.0",
    kind=GENERATION,
    metrics=("rouge", "rouge_stemmed"),
    splits=_OWN_SPLITS,
    fields=_cnn_dailymail_fields,
    gpt3_prompt=Gpt3Prompt("{article}\n\nTL;DR:"),
    templates=(
        Template("{article}\n\nWhat are the highlights of this article? Write each one on a line of its own."),
        Template("Boil the news article down to its key points, one point a line.\n\n{article}"),
        Template("Article: {article}\nHighlights:"),
        Template(
            "An editor wants a box beside the text with the main facts, for readers in a hurry. Fill the box, and start a fresh line for every fact.\n\n{article}"
        ),
        Template(
            "Please pick out the few things that people should remember from this story. Short sentences will do, each on a separate line.\n\n{article}"
        ),
        Template("I have half a minute. Just give me the essentials of this, line by line.\n\n{article}"),
        Template(
            "NEWS COMPREHENSION\n\nStudy the article, then set out the most important information in it as a list of brief statements. No numbers or dashes are needed.\n\n{article}"
        ),
        Template(
            "You will find a piece of journalism between the two rules.\n\n---\n{article}\n---\n\nNow sum it up in a few short lines."
        ),
        Template(
            "A news article was published together with the following highlights. Write its first few sentences.\n\n{answer}",
            "{opening}",
            INVERTED,
        ),
        Template("{answer}\n\nStart an article from these notes. One paragraph is enough.", "{opening}", INVERTED),
    ),
)

# --------------------------------------------------------------------------------------------------------- Gigaword


def _gigaword_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """Fields document (a sentence) and answer (a headline). Both are as in the source: tokenized and in lower case."""
    return {"document": one_line(record["document"]), "answer": one_line(record["summary"])}


def _gigaword_is_whole(record: Mapping[str, Any]) -> Any:
    """Drops the records in which a word is masked (UNK) or a digit (#)."""
    texts = tf.stack([one_line(record["document"]), one_line(record["summary"])])
    masked = tf.strings.regex_full_match(texts, r".*(?:\bUNK\b|<unk>|#).*")
    return tf.reduce_all(~masked)


GIGAWORD = Dataset(
    name="gigaword",
    cluster="summarization",
    source="gigaword:1.2.0",
    kind=GENERATION,
    metrics=("rouge", "rouge_stemmed"),
    splits=_OWN_SPLITS,
    keep=_gigaword_is_whole,
    fields=_gigaword_fields,
    gpt3_prompt=Gpt3Prompt("Article: {document}\nHeadline:", stop=("\n",)),
    templates=(
        Template("Write a headline for the report that opens with this sentence.\n\n{document}"),
        Template("{document}\n\nheadline:"),
        Template("Condense this to a few words, in the clipped style of a news wire: {document}"),
        Template(
            "News agencies put a title over each dispatch. Guess the title of the one that begins as follows, and write it in lower case.\n\n{document}"
        ),
        Template("Say the same in as few words as you can.\n\n{document}"),
        Template("My ticker has room for one short line. Could you please cut this to size?\n\n{document}"),
        Template("SENTENCE COMPRESSION\n\nLong: {document}\nShort:"),
        Template(
            "If the words below were the lead of a newspaper story, what might stand above them in bold type?\n\n{document}"
        ),
        Template(
            "{answer}\n\nUnfold this headline into the first sentence of the report. Use lower case throughout, and put spaces around punctuation marks.",
            "{document}",
            INVERTED,
        ),
        Template("headline: {answer}\nlead sentence:", "{document}", INVERTED),
    ),
)

# ------------------------------------------------------------------------------------------------------- Multi-News

_MULTI_NEWS_WORDS = 700  # about what an input of 1,024 tokens holds beside an instruction


def _multi_news_articles(document: Any) -> Any:
    """The articles of a document, 1-D, each on one line."""
    return filled(one_line(tf.strings.split(document, "|||||")))


def _fair_shares(texts_N: Any, num_words: int) -> Any:
    """The beginnings of N texts of one line, `num_words` words in all.

    Each text gets the same number of words, and what the short ones leave goes to the long ones. A text that is cut
    ends with a whole sentence.
    """
    words_NW = tf.strings.split(texts_N)
    length_N = tf.cast(words_NW.row_lengths(), tf.int32)
    used_N = tf.cumsum(tf.sort(length_N), exclusive=True)  # by the texts that are shorter
    count = tf.size(length_N)
    limit = tf.reduce_max(tf.concat([[0], (num_words - used_N) // (count - tf.range(count))], axis=0))
    cut_N = tf.strings.reduce_join(words_NW[:, :limit], axis=-1, separator=" ")
    return tf.where(length_N > limit, _whole_sentences(cut_N), cut_N)


def _multi_news_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """Fields articles (a rule between them), numbered (a heading over each), opening (of the first), answer.

    An input would hold the first article only, where the summary covers them all, so each is shortened to a fair
    share of 700 words. The summaries of the source start with a dash, which goes.
    """
    articles = _fair_shares(_multi_news_articles(record["document"]), _MULTI_NEWS_WORDS)
    numbers = tf.strings.as_string(tf.range(1, tf.size(articles) + 1))
    return {
        "articles": tf.strings.reduce_join(articles, separator="\n---\n"),
        "numbered": tf.strings.reduce_join(tf.strings.join(["Source ", numbers, ":\n", articles]), separator="\n\n"),
        "opening": _opening(first(articles)),
        "answer": tf.strings.regex_replace(one_line(record["summary"]), r"^[–—-] ?", ""),
    }


MULTI_NEWS = Dataset(
    name="multi_news",
    cluster="summarization",
    source="multi_news:2.1.0",
    kind=GENERATION,
    metrics=("rouge", "rouge_stemmed"),
    splits=_OWN_SPLITS,
    fields=_multi_news_fields,
    # A few records have one article only, so the templates speak of coverage, material, sources in general.
    gpt3_prompt=Gpt3Prompt("{numbered}\n\nTL;DR:"),
    templates=(
        Template("{numbered}\n\nWrite one summary that covers everything above."),
        Template(
            "What follows has been published on one and the same event. Bring it together in a single paragraph.\n\n{articles}"
        ),
        Template("Coverage:\n{articles}\n\nDigest:"),
        Template(
            "You write for a site that reads the news so that its visitors need not. Your material for the next item is this:\n\n{numbered}\n\nWrite the item."
        ),
        Template(
            "My feed keeps coming back to one topic, and I cannot read all of it. Could you tell me the whole story in one go, please?\n\n{articles}"
        ),
        Template(
            "MULTI-DOCUMENT SUMMARIZATION\n\nUse all of the material, say nothing twice, and add nothing.\n\n{numbered}\n\nSummary:"
        ),
        Template(
            "Who is involved, what took place, and what is being said about it? Give a full account in continuous prose, based on what you find below and on nothing else.\n\n{articles}"
        ),
        Template(
            "Editor: This is what we have on the subject.\n\n{numbered}\n\nEditor: Merge it into one piece for the evening bulletin, will you?\nWriter:"
        ),
        Template("{articles}\n\nSo what is known, all in all?"),
        Template(
            "{answer}\n\nThe above was pieced together from published articles. How may the first of them have begun?",
            "{opening}",
            INVERTED,
        ),
    ),
)

# --------------------------------------------------------------------------------------------------------- Newsroom


def _newsroom_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """Fields title, text, opening (of the text), answer."""
    text = one_line(record["text"])
    return {
        "title": one_line(record["title"]),
        "text": text,
        "opening": _opening(text),
        "answer": one_line(record["summary"]),
    }


NEWSROOM = Dataset(
    name="newsroom",
    cluster="summarization",
    source="newsroom:1.0.0",
    kind=GENERATION,
    metrics=("rouge", "rouge_stemmed"),
    splits=_OWN_SPLITS,
    manual=(
        "register at https://summari.es/download/, unpack train.jsonl, dev.jsonl and test.jsonl into one folder, and run "
        "tfds build newsroom --manual_dir=THAT_FOLDER"
    ),
    fields=_newsroom_fields,
    gpt3_prompt=Gpt3Prompt("{title}\n\n{text}\n\nTL;DR:"),
    templates=(
        Template(
            "Draft the short description that a search engine could show under the link to this article.\n\n{title}\n{text}"
        ),
        Template("{title}\n\n{text}\n\nIn a sentence or two, what is this about?"),
        Template("Title: {title}\nBody: {text}\nAbstract:"),
        Template(
            "We want to share this piece on social media and still need a line or two to go with the link. What do you suggest?\n\n{text}"
        ),
        Template(
            "Our archive keeps a brief summary with each article, but there is none for the one below. Please add it.\n\nArticle:\n{text}"
        ),
        Template("READING TASK 2\n\nSkim the text and state its gist briefly.\n\n{title}\n\n{text}"),
        Template("{text}\n\nSynopsis:"),
        Template(
            "You leave a printout on a colleague's desk, with a note clipped to it that says in very few words what it contains. The printout:\n\n{title}\n{text}\n\nThe note:"
        ),
        Template(
            "Give the article a title. All that you are told about it is this summary.\n\n{answer}", "{title}", INVERTED
        ),
        Template(
            "Title: {title}\nIn short: {answer}\n\nWrite the first few sentences of this article.",
            "{opening}",
            INVERTED,
        ),
    ),
)

# ------------------------------------------------------------------------------------------------ Opinion abstracts

_MAX_OPINIONS = 10  # of a record; film reviews come by the dozen


def _opinions(values: Any) -> Any:
    """The first opinions of a record, 1-D, without the spaces that the source has before punctuation marks."""
    values = tf.strings.regex_replace(one_line(values), r" +([,.;:!?])", r"\1")
    return filled(values)[:_MAX_OPINIONS]


def _numbered(values: Any) -> Any:
    """One value a line, after its number."""
    numbers = tf.strings.as_string(tf.range(1, tf.size(values) + 1))
    return tf.strings.reduce_join(tf.strings.join([numbers, ". ", values]), separator="\n")


def _idebate_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """Fields debate, arguments (numbered, one a line), passage (the same on one line), argument (the first), answer."""
    arguments = _opinions(record["_argument_sentences"]["value"])
    return {
        "debate": one_line(tf.strings.regex_replace(record["_debate_name"], "_+", " ")),
        "arguments": _numbered(arguments),
        "passage": tf.strings.reduce_join(arguments, separator=" "),
        "argument": first(arguments),
        "answer": one_line(record["_claim"]),
    }


OPINION_ABSTRACTS_IDEBATE = Dataset(
    name="opinion_abstracts_idebate",
    cluster="summarization",
    source="opinion_abstracts/idebate:1.0.0",
    kind=GENERATION,
    metrics=("rouge", "rouge_stemmed"),
    splits=_OPINION_SPLITS,
    fields=_idebate_fields,
    gpt3_prompt=Gpt3Prompt("Debate: {debate}\nArguments:\n{arguments}\nTL;DR:", stop=("\n",)),
    templates=(
        Template(
            "Debate: {debate}\n\nOne speaker argues as follows.\n{arguments}\n\nState the claim that all of this is meant to support."
        ),
        Template("{passage}\n\nWhat point is being made here?"),
        Template("Reasons:\n{arguments}\nTherefore:"),
        Template(
            "Some of the audience missed the start of a speech and caught only this part of it:\n\n{passage}\n\nPlease tell them in one sentence what the speaker wants to show."
        ),
        Template(
            "Up for discussion: {debate}\n\nA debater has jotted down what she is going to say.\n{arguments}\n\nCompose the claim with which she should begin."
        ),
        Template("CRITICAL THINKING\n\nIdentify the conclusion of the argument. Leave the reasons out.\n\n{passage}"),
        Template(
            "I have written the body of a paragraph for my essay but not the sentence that says what it adds up to. Could you write that one for me?\n\n{passage}"
        ),
        Template("Topic: {debate}\nArgument: {passage}\nThe writer's position, put briefly:"),
        Template("Find an argument for this claim, and put it into a sentence.\n\n{answer}", "{argument}", INVERTED),
        Template(
            "It is your turn to speak in a debate.\nDebate: {debate}\nYour claim: {answer}\n\nMake your case in numbered sentences.",
            "{arguments}",
            INVERTED,
        ),
    ),
)


def _rotten_tomatoes_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """Fields movie, reviews (numbered, one a line), some_reviews (the first three), review (the first), answer."""
    reviews = _opinions(record["_critics"]["value"])
    return {
        "movie": one_line(tf.strings.regex_replace(record["_movie_name"], "_+", " ")),
        "reviews": _numbered(reviews),
        "some_reviews": _numbered(reviews[:3]),
        "review": first(reviews),
        "answer": one_line(record["_critic_consensus"]),
    }


OPINION_ABSTRACTS_ROTTEN_TOMATOES = Dataset(
    name="opinion_abstracts_rotten_tomatoes",
    cluster="summarization",
    source="opinion_abstracts/rotten_tomatoes:1.0.0",
    # Socher et al. 2013 (SST) and Wang and Ling 2016 both take sentences of critics from Rotten Tomatoes.
    kin=(("sst2", "both have sentences of critics from Rotten Tomatoes"),),
    kind=GENERATION,
    metrics=("rouge", "rouge_stemmed"),
    splits=_OPINION_SPLITS,
    fields=_rotten_tomatoes_fields,
    gpt3_prompt=Gpt3Prompt("Reviews of {movie}:\n{reviews}\nTL;DR:", stop=("\n",)),
    templates=(
        Template("Film: {movie}\n\n{reviews}\n\nSum up what the critics make of it."),
        Template("Critics have written the following about a movie.\n{reviews}\n\nWhat is the general verdict?"),
        Template("Movie: {movie}\nReviews:\n{reviews}\nConsensus:"),
        Template(
            'On a film site, a short note beside each title says how critics received it. Write the note for "{movie}" on the basis of these extracts.\n\n{reviews}'
        ),
        Template(
            'My friends want to see "{movie}" tonight, and I have no time to go through all of this. What do the reviewers think on the whole?\n\n{reviews}'
        ),
        Template(
            "FILM CLUB HANDOUT\n\nFrom the opinions below, draft a statement of how the picture was received, and why.\n\n{reviews}"
        ),
        Template("{reviews}\n\nBlend the above into one opinion."),
        Template(
            "Imagine that you had read out every one of these notices at dinner and were then asked for the upshot. What would you answer, in a sentence or so?\n\n{reviews}"
        ),
        Template(
            'On the whole, this is what critics thought of the movie "{movie}":\n\n{answer}\n\nMake up a line from one of their reviews.',
            "{review}",
            INVERTED,
        ),
        Template(
            "Critics' consensus: {answer}\n\nQuote a few of the reviews that may be behind it, and number them.",
            "{some_reviews}",
            INVERTED,
        ),
    ),
)

# ----------------------------------------------------------------------------------------------------------- SAMSum


def _samsum_dialogue(dialogue: Any) -> Any:
    """One message a line, without the marks of what was sent as a file and the messages that held nothing else."""
    lines = tf.strings.regex_replace(_lines(dialogue), r"(?m)^[^:\n]{1,40}:(?: ?<[A-Za-z_]+>)+$", "")
    return _lines(tf.strings.regex_replace(lines, r"<[A-Za-z_]+>", " "))


def _samsum_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """Fields dialogue (one message a line, its sender in front) and answer."""
    return {"dialogue": _samsum_dialogue(record["dialogue"]), "answer": one_line(record["summary"])}


SAMSUM = Dataset(
    name="samsum",
    cluster="summarization",
    source="samsum:1.0.0",
    kind=GENERATION,
    metrics=("rouge", "rouge_stemmed"),
    splits=_OWN_SPLITS,
    manual=(
        "download https://arxiv.org/src/1911.12237v2/anc/corpus.7z, unpack train.json, val.json and test.json into one "
        "folder, and run tfds build samsum --manual_dir=THAT_FOLDER"
    ),
    fields=_samsum_fields,
    gpt3_prompt=Gpt3Prompt("{dialogue}\n\nTL;DR:"),
    templates=(
        Template("{dialogue}\n\nSummarize this conversation briefly."),
        Template("Chat:\n{dialogue}\nSummary:"),
        Template("I was away from my phone and missed all of this. What did I miss?\n\n{dialogue}"),
        Template("Retell the following exchange of messages in the third person, and keep it short.\n\n{dialogue}"),
        Template(
            "Here is a conversation from a messenger app. Please report what came up in it, as you would to somebody who does not need the details.\n\n{dialogue}"
        ),
        Template(
            "DIALOGUE SUMMARY\n\nRules: name the people, skip greetings and small talk, do not quote.\n\n{dialogue}"
        ),
        Template(
            "Someone is scrolling back through old chats in search of a certain one. What note on the chat below would help to recognize it?\n\n{dialogue}"
        ),
        Template("{dialogue}\n\nWho told whom what?"),
        Template(
            "Write the chat that this summary describes, one message a line, with the sender's name and a colon in front.\n\n{answer}",
            "{dialogue}",
            INVERTED,
        ),
        Template(
            "{answer}\n\nImagine the text messages in which that was said, and type them out.", "{dialogue}", INVERTED
        ),
    ),
)

# ------------------------------------------------------------------------------------------------------- WikiLingua


def _wiki_lingua_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """Fields article, opening (of the article), answer, references. GEM gives a training record a target only."""
    article = one_line(record["source"])
    answer = one_line(record["target"])
    references = filled(one_line(record["references"]))
    return {
        "article": article,
        "opening": _opening(article),
        "answer": answer,
        "references": tf.cond(tf.size(references) > 0, lambda: references, lambda: answer[tf.newaxis]),
    }


WIKI_LINGUA_ENGLISH_EN = Dataset(
    name="wiki_lingua_english_en",
    cluster="summarization",
    source="gem/wiki_lingua_english_en:1.1.0",
    kind=GENERATION,
    metrics=("rouge", "rouge_stemmed"),
    splits=_OWN_SPLITS,
    fields=_wiki_lingua_fields,
    gpt3_prompt=Gpt3Prompt("{article}\n\nTL;DR:"),
    templates=(
        Template("{article}\n\nPut the steps of these instructions into short form."),
        Template("Shorten this how-to guide until nothing but the bare instructions is left.\n\n{article}"),
        Template("Guide: {article}\nIn brief:"),
        Template(
            "I would like to keep the core of the following advice on a card above my desk. What should I write on the card?\n\n{article}"
        ),
        Template(
            "Go through the text part by part. For each part give the instruction that it explains, and string the instructions together in their order.\n\n{article}"
        ),
        Template(
            "STUDY SKILLS\n\nReduce the passage to a series of commands. Reasons, examples and exceptions are to be left out.\n\n{article}"
        ),
        Template("Could you tell me what to do, without all the detail?\n\n{article}"),
        Template(
            "The headings of this article have been lost. Write them again as imperative sentences, one after the other.\n\n{article}"
        ),
        Template(
            "{answer}\n\nTurn that into a proper guide for beginners, and write how the guide begins.",
            "{opening}",
            INVERTED,
        ),
        Template(
            "A how-to article has the following steps. Explain the first one or two of them as the article might, with tips and reasons.\n\n{answer}",
            "{opening}",
            INVERTED,
        ),
    ),
)

# ------------------------------------------------------------------------------------------------------------- XSum


def _xsum_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """Fields document, opening (of the document), answer (the sentence that stood before the document)."""
    document = one_line(record["document"])
    return {"document": document, "opening": _opening(document), "answer": one_line(record["summary"])}


XSUM = Dataset(
    name="xsum",
    cluster="summarization",
    source="xsum:1.1.0",
    kind=GENERATION,
    metrics=("rouge", "rouge_stemmed"),
    splits=_OWN_SPLITS,
    manual=(
        "make xsum-extracts-from-downloads.tar.gz as https://github.com/EdinburghNLP/XSum describes (XSum-Dataset/README.md), "
        "put it into a folder, and run tfds build xsum --manual_dir=THAT_FOLDER"
    ),
    fields=_xsum_fields,
    gpt3_prompt=Gpt3Prompt("{document}\n\nTL;DR:"),
    templates=(
        Template("Summarize the article in one sentence.\n\n{document}"),
        Template(
            "{document}\n\nThe first sentence of this text is missing. It told readers what the whole piece is about. Write it."
        ),
        Template("Report: {document}\nSummary in one sentence:"),
        Template(
            "You have just finished reading this when someone looks up and asks what it says.\n\n{document}\n\nAnswer in a single sentence."
        ),
        Template("How would a newsreader announce the following in one breath?\n\n{document}"),
        Template(
            "QUESTION 1\n\nState the main point of the article in one sentence of your own. Do not copy its wording.\n\n{document}"
        ),
        Template("Please write the introductory sentence that is to be printed in bold above this text.\n\n{document}"),
        Template(
            "I want to post about this, and one sentence is my limit. Help me say what matters most!\n\n{document}"
        ),
        Template("{document}\n\nIn one line:"),
        Template("An article starts with the sentence below. How does it go on?\n\n{answer}", "{opening}", INVERTED),
    ),
)

DATASETS = (
    AESLC,
    AG_NEWS_SUBSET,
    CNN_DAILYMAIL,
    GIGAWORD,
    MULTI_NEWS,
    NEWSROOM,
    OPINION_ABSTRACTS_IDEBATE,
    OPINION_ABSTRACTS_ROTTEN_TOMATOES,
    SAMSUM,
    WIKI_LINGUA_ENGLISH_EN,
    XSUM,
)
