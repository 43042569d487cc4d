"""Summarization: emails, news, debates, film reviews, chats and how-to guides; AG News, too, is in this cluster."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flan_jax.catalog import CLASSIFICATION, GENERATION, Dataset
from flan_jax.lazy import lazy_imports
from flan_jax.splits import Splits
from flan_jax.tasks.fields import at, filled, first, one_line, without_html_escapes
from flan_jax.templates import INVERTED, Gpt3Prompt, Template

with lazy_imports():  # the catalog is read by processes that need no TensorFlow
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
        Template("{body}\n\nSubject line:"),
        Template("Give this message a subject, short enough to take in at a glance.\n\n{body}"),
        Template("An email arrived without a subject.\n\n{body}\n\nWrite the subject in a few words."),
        Template("Name the email's topic as the subject field would.\n\nEmail: {body}"),
        Template("can't think of a subject for this, any idea?\n\n{body}"),
        Template("Fill in the subject line.\n\n{body}"),
        Template("Email: {body}\nTopic in a few words:"),
        Template("Write an email to go with this subject line.\n\n{answer}", "{body}", INVERTED),
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
)
_AG_NEWS_ESCAPE = "(?:^|[ &])"  # what other entities begin with


def _ag_news_text(text: Any) -> Any:
    for pattern, replacement in _AG_NEWS_REPAIRS:
        text = tf.strings.regex_replace(text, pattern, replacement)
    return one_line(without_html_escapes(text, _AG_NEWS_ESCAPE))


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
        Template(
            "{title}\n{description}\n\nWhich section does this belong in?\n\n{options}",
            open_input="{title}\n{description}\n\nDoes this belong in World, Sports, Business or Science/Tech?",
        ),
        Template(
            "File this news item.\n\nHeadline: {title}\nText: {description}\n\n{options}",
            open_input="File this news item under World, Sports, Business or Science/Tech.\n\nHeadline: {title}\nText: {description}",
        ),
        Template(
            "News: {description}\nTopic?\n{options}",
            open_input="News: {description}\nTopic (World, Sports, Business or Science/Tech)?",
        ),
        Template(
            "Our newsletter has four pages, and each story goes on one.\n\n{title}\n\n{description}\n\nWhich page?\n{options}",
            open_input="Our newsletter has the pages World, Sports, Business and Science/Tech.\n\n{title}\n\n{description}\n\nWhere does this go?",
        ),
        Template(
            "Going by the headline alone, what kind of news is this?\n\n{title}\n\n{options}",
            open_input="Going by the headline alone, what kind of news is this, World, Sports, Business or Science/Tech?\n\n{title}",
        ),
        Template(
            "Name the category of this report.\n\n{description}\n\n{options}",
            open_input="Name the category of this report (World, Sports, Business or Science/Tech).\n\n{description}",
        ),
        Template(
            "can you tag this story for our archive? one tag is enough\n\nTitle: {title}\nAbstract: {description}\n{options}",
            open_input="can you tag this story for our archive? it's World, Sports, Business or Science/Tech\n\nTitle: {title}\nAbstract: {description}",
        ),
        Template(
            "{title}\n{description}\n\nCategory:\n{options}",
            open_input="{title}\n{description}\n\nCategory (World, Sports, Business or Science/Tech):",
        ),
        Template("Section: {answer}\nStory: {description}\nHeadline:", "{title}", INVERTED),
        Template(
            'The headline below is in the section "{answer}". Write the sentence or two that come after it.\n\n{title}',
            "{description}",
            INVERTED,
        ),
    ),
)

# ---------------------------------------------------------------------------------------------------- CNN/DailyMail

_DATELINE = (  # "(CNN) -- ", "(CNN)"; "LONDON, England (CNN) -- " keeps its place, which highlights may name
    (r"^(?:\([A-Z][\w. ]{1,30}\) ?(?:--|—|–) ?|\(CNN\) ?|-- ?)", ""),
    (r"^\([A-Z][\w. ]{1,30}\)([A-Z\"“‘'])", r"\1"),  # "(Rolling Stone)Kanye West"
    (r"^([^()a-z][^()]{1,50}?) ?\(CNN\)([^\s-])", r"\1 -- \2"),  # "Moscow (CNN)Russian"
    (r"^([A-Z][A-Z.'’ -]+(?:, [A-Z][A-Za-z.'’ -]+)*) \([A-Z][\w. ]{1,30}\) ?(?:--|—|–) ?", r"\1 -- "),
)
_BYLINE = (  # "By. Jane Doe. and John Doe. PUBLISHED:. 07:03 EST, 2 March 2013. |. UPDATED:. 08:07 EST, 2 March 2013. "
    r"^By ?\. [^.|]{2,60}\. (?:(?:and|,) ?[^.|]{2,60}\. )*"
    r"(?:(?i:published|updated|created): ?\. |\d\d?:\d\d [A-Z]{2,4}, \d{1,2} [A-Z][a-z]+ \d{4} ?\. |\| ?\. |Last updated at [^.]{5,40}\. )*"
)


_CNN_RIGHTS = r"(?:All|Some) [Rr]ights [Rr]eserved ?\."
_CNN_LINKS = (  # what stands at the end of an article, or nearly so
    (r" ?\bE-?mail to a friend ?\.", ""),
    (rf" ?(?:Copyright )?(?:©|Copyright) ?\d{{4}} [A-Z][\w.& ]{{1,40}}?\. {_CNN_RIGHTS}", ""),
    (r" ?This material may not be published, broadcast, rewritten,? or redistributed ?\.", ""),
    (r" ?Copyright (?:© ?)?\d{4} [A-Z][\w.& ]{1,40}\.$", ""),
    (r"\p{Cf}", ""),
)


def _cnn_dailymail_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """Fields article (without byline, agency and copyright), opening (of the article), answer (one highlight a line).

    The line breaks of the highlights stay: ROUGE-Lsum compares line by line. "NEW:" before a highlight goes.
    """
    article = tf.strings.regex_replace(one_line(record["article"]), _BYLINE, "")
    for pattern, replacement in (*_CNN_LINKS, *_DATELINE):
        article = tf.strings.regex_replace(article, pattern, replacement)
    article = one_line(article)
    answer = tf.strings.regex_replace(_lines(record["highlights"]), r"(?m)^NEW: ?", "")
    answer = tf.strings.regex_replace(answer, r"(?m) +([.!?])$", r"\1")
    return {"article": article, "opening": _opening(article), "answer": answer}


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
        Template("{article}\n\nWhat are the highlights? Put each on its own line."),
        Template("Boil this down to key points, one a line.\n\n{article}"),
        Template("Article: {article}\nHighlights:"),
        Template("Write the box of main facts beside this article, one fact a line.\n\n{article}"),
        Template("What should people remember? Use short sentences on separate lines.\n\n{article}"),
        Template("only got half a minute, just the essentials line by line please\n\n{article}"),
        Template("{article}\n\nKey points, line by line:"),
        Template("Read the news below.\n\n{article}\n\nNow sum it up in a few short lines."),
        Template(
            "These highlights came with a news article. Write its first few sentences.\n\n{answer}",
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
        Template("Write a headline for the report that opens like this.\n\n{document}"),
        Template("{document}\n\nheadline:"),
        Template("Condense to a few words, news-wire style: {document}"),
        Template("A dispatch begins as follows. Write its title, in lower case.\n\n{document}"),
        Template("Say the same in as few words as you can.\n\n{document}"),
        Template("ticker only fits one short line, can you cut this to size?\n\n{document}"),
        Template("Long: {document}\nShort:"),
        Template("From a newspaper story:\n\n{document}\n\nWhat would the headline be?"),
        Template(
            "{answer}\n\nUnfold this headline into the report's first sentence, in lower case and with spaces around punctuation marks.",
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
        Template("{numbered}\n\nWrite one summary of everything above."),
        Template("All of this is about one event. Bring it together in one paragraph.\n\n{articles}"),
        Template("Coverage:\n{articles}\n\nDigest:"),
        Template("{numbered}\n\nWrite one news story that covers all of this."),
        Template("my feed is full of this and I can't read it all, what's the whole story?\n\n{articles}"),
        Template("Use all the sources, repeat nothing and add nothing.\n\n{numbered}\n\nSummary:"),
        Template(
            "Who is involved, what happened and what are people saying? Give a full account from the texts below.\n\n{articles}"
        ),
        Template("Merge these into one piece for the evening news.\n\n{numbered}"),
        Template("{articles}\n\nSo what do we know?"),
        Template(
            "{answer}\n\nThat was pieced together from published articles. How might the first of them have begun?",
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
        Template("Write the short description that a search engine would show for this article.\n\n{title}\n{text}"),
        Template("{title}\n\n{text}\n\nIn a sentence or two, what's this about?"),
        Template("Title: {title}\nBody: {text}\nAbstract:"),
        Template("sharing this on social media, what line should go with the link?\n\n{text}"),
        Template("Add a brief summary for our archive.\n\nArticle:\n{text}"),
        Template("Skim this.\n\n{title}\n\n{text}\n\nState the gist briefly."),
        Template("{text}\n\nSynopsis:"),
        Template("Printout:\n{title}\n{text}\n\nSticky note saying what's in it:"),
        Template("Give the article with this summary a title.\n\n{answer}", "{title}", INVERTED),
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
        Template("Debate: {debate}\n\n{arguments}\n\nState in one sentence what these arguments claim."),
        Template("{passage}\n\nWhat point is being made?"),
        Template("Reasons:\n{arguments}\nTherefore:"),
        Template("Tell me in one sentence what this speaker wants to show.\n\n{passage}"),
        Template("Up for debate: {debate}\n\nNotes for a speech:\n{arguments}\n\nWith what claim should it begin?"),
        Template("State the conclusion that these sentences argue for.\n\n{passage}"),
        Template("my paragraph still needs the sentence that says what it adds up to, can you write it?\n\n{passage}"),
        Template("Topic: {debate}\nArgument: {passage}\nPoint made, in brief:"),
        Template("Give one argument for this claim, in a sentence.\n\n{answer}", "{argument}", INVERTED),
        Template(
            "Debate: {debate}\nClaim: {answer}\n\nMake the case for the claim in numbered sentences.",
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
        Template("Film: {movie}\n\n{reviews}\n\nSum up what the critics think."),
        Template("Here's what critics wrote about a movie.\n{reviews}\n\nWhat's the general verdict?"),
        Template("Movie: {movie}\nReviews:\n{reviews}\nConsensus:"),
        Template('Write a note on how critics received "{movie}".\n\n{reviews}'),
        Template('thinking of seeing "{movie}", what do reviewers say on the whole?\n\n{reviews}'),
        Template("State how the film was received, and why.\n\n{reviews}"),
        Template("{reviews}\n\nBlend these into one opinion."),
        Template("{reviews}\n\nThe critics' verdict in a sentence or so:"),
        Template(
            'What critics thought of "{movie}": {answer}\n\nWrite a line from one of their reviews.',
            "{review}",
            INVERTED,
        ),
        Template(
            "Critics' consensus: {answer}\n\nWrite a few of the reviews behind it and number them.",
            "{some_reviews}",
            INVERTED,
        ),
    ),
)

# ----------------------------------------------------------------------------------------------------------- SAMSum


# What was sent as a file is "<file_photo>" in the source, now and then "<photo_file>", "<file _gif>" or just "file_gif".
_SAMSUM_FILES = (
    (r"(?i)<?\bf[il]{2}e ?_others?\b>?|<others?>", "(file)"),
    (r"(?i)<?\bf[il]{2}e ?_([a-z]+)\b>?|<file:([a-z]+)>", r"(\1\2)"),
    (r"<link_other>", "(link)"),
    (r"<(?:emoticon|link)_([a-z]+)>", r"(\1)"),
    (r"<([A-Za-z_]+?)(?:_file)?>", r"(\1)"),
)


def _samsum_dialogue(dialogue: Any) -> Any:
    """One message a line; what was sent as a file is in brackets, such as "(photo)" for "<file_photo>"."""
    lines = _lines(dialogue)
    for pattern, instead in _SAMSUM_FILES:
        lines = tf.strings.regex_replace(lines, pattern, instead)
    return _lines(lines)


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
        Template("was away from my phone, what did i miss?\n\n{dialogue}"),
        Template("Retell these messages in the third person, and keep it short.\n\n{dialogue}"),
        Template("Sum up this chat and leave out the details.\n\n{dialogue}"),
        Template("Name the people, skip the greetings and don't quote.\n\n{dialogue}\n\nSummary of the dialogue:"),
        Template("{dialogue}\n\nWhat happened in this chat?"),
        Template("Sum up who said and decided what.\n\n{dialogue}"),
        Template(
            "Write the chat that this summary describes, one message a line, each with the sender's name and a colon.\n\n{answer}",
            "{dialogue}",
            INVERTED,
        ),
        Template("{answer}\n\nMake up the chat in which that was said.", "{dialogue}", INVERTED),
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
        Template("{article}\n\nPut these steps into short form."),
        Template("Shorten this how-to guide to the bare instructions.\n\n{article}"),
        Template("Guide: {article}\nIn brief:"),
        Template("What should I write on a reminder card about this?\n\n{article}"),
        Template("Give the instructions in this text, one after the other, without explanations.\n\n{article}"),
        Template("Reduce to a series of commands, without reasons or examples.\n\n{article}"),
        Template("just tell me what to do, no details\n\n{article}"),
        Template("What are the steps here?\n\n{article}\n\nOne short command each, all in one paragraph."),
        Template("{answer}\n\nWrite the opening of a beginner's guide with these steps.", "{opening}", INVERTED),
        Template(
            "Explain the first one or two of these steps as a how-to article would, with tips and reasons.\n\n{answer}",
            "{opening}",
            INVERTED,
        ),
    ),
)

# ------------------------------------------------------------------------------------------------------------- XSum


_XSUM_PAGE = (  # what belongs to the page and not to the report; the first two may stand on any line
    r"Media playback is (?:not supported on this|unsupported on your) device",
    r"\d{1,2} [A-Z][a-z]+ \d{4} Last updated at \d\d:\d\d (?:GMT|BST)",
    r"(?m)^Follow (?:us|@\w+|\p{Lu}\pL+(?: \p{Lu}\pL+)?) on (?:Twitter|Facebook|Instagram)\b.{0,200}$",
    r"(?m)^\S+ and follow me on Twitter: @\w+\.?$",
    r"(?m)^For the latest [\w ]{1,30} news follow @\w+ on Twitter\.?$",
    r"(?m)^Subscribe to the BBC Sport newsletter to get our pick of news, features and video sent to your inbox\.?$",
    r"(?m)^Find all the latest football transfers on our dedicated page.{0,80}$",
    r"(?m)^Find out how to get into .{1,60} guide\.$",
    r"(?m)^(?:Match report|Report) supplied by the Press Association\.$",
    r"(?m)^Get news from the BBC in your inbox, each weekday morning\.?$",
    r"(?m)^(?:More on this and other stories|Updates on this story and more) from .{1,40}$",
    r"(?m)^This site is optimised for modern web browsers, and does not fully support your browser\.?$",
)


def _xsum_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """Fields document, opening (of the document), answer (the sentence that stood before the document)."""
    document = record["document"]
    for pattern in _XSUM_PAGE:
        document = tf.strings.regex_replace(document, pattern, "")
    document = one_line(document)
    return {"document": document, "opening": _opening(document), "answer": one_line(record["summary"])}


def _xsum_is_summed_up(record: Mapping[str, Any]) -> Any:
    """Drops the records whose first sentence says nothing of the report: "Ouch!", "All pictures are copyrighted."."""
    summary = one_line(record["summary"])
    is_credit = r"(?i)all (?:images|photographs|photos|pictures) (?:are )?(?:copyright|courtesy).*"
    return tf.strings.regex_full_match(summary, r"\S+(?: \S+){3,}") & ~tf.strings.regex_full_match(summary, is_credit)


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
    keep=_xsum_is_summed_up,
    fields=_xsum_fields,
    gpt3_prompt=Gpt3Prompt("{document}\n\nTL;DR:"),
    templates=(
        Template("What happened? One sentence.\n\n{document}"),
        Template("{document}\n\nThe first sentence, which says what the piece is about, is missing. Write it."),
        Template("Report: {document}\nSummary in one sentence:"),
        Template("someone just asked what this says, answer in a single sentence\n\n{document}"),
        Template("What would a newsreader say about this, in one breath?\n\n{document}"),
        Template("State the main point in a sentence of your own.\n\n{document}"),
        Template("Write the sentence that goes in bold above this text.\n\n{document}"),
        Template("I can post one sentence about this.\n\n{document}\n\nWhat matters most?"),
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
