import json
from pathlib import Path

import pytest
import tensorflow as tf

import flan_jax.tasks
from flan_jax.data import usable
from flan_jax.splits import resolve_splits
from flan_jax.tasks import summarization
from flan_jax.tasks.summarization import (
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


def texts(**record):
    return {name: tf.constant(value) for name, value in record.items()}


def shown(dataset, record):
    """The fields of a record as Python text."""
    fields = dataset.fields(record)
    return {k: v.numpy().decode() for k, v in fields.items() if v.shape.rank == 0}


def kept(dataset, record):
    return int(usable.verdict(dataset, record)) == 0


def opinions(values, **others):
    keys = [str(i) for i in range(len(values))]
    pairs = {"key": tf.constant(keys, tf.string), "value": tf.constant(values, tf.string)}
    names = {"movie": ("_critics", "_critic_consensus", "_movie_name"), "debate": ("_argument_sentences", "_claim")}
    kind = "movie" if "_movie_name" in others else "debate"
    return {names[kind][0]: pairs, names[kind][1]: tf.constant("Good."), **texts(**others)}


# ------------------------------------------------------------------------------------------------- splits and sources


@pytest.mark.parametrize(
    ("dataset", "sizes", "expected"),
    [
        (
            AG_NEWS_SUBSET,
            {"train": 120_000, "test": 7_600},
            {"train": "train[0:30000]", "validation": "train[119800:120000]", "test": "test[0:7600]"},
        ),
        (
            XSUM,
            {"train": 203_577, "validation": 11_305, "test": 11_301},
            {"train": "train[0:30000]", "validation": "validation[0:200]", "test": "test[0:11301]"},
        ),
        (
            OPINION_ABSTRACTS_IDEBATE,
            {"train": 2_259},
            {"train": "train[0:1659]", "validation": "train[1659:1759]", "test": "train[1759:2259]"},
        ),
        (
            OPINION_ABSTRACTS_ROTTEN_TOMATOES,
            {"train": 3_731},
            {"train": "train[0:3131]", "validation": "train[3131:3231]", "test": "train[3231:3731]"},
        ),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_splits_at_the_real_sizes(dataset, sizes, expected):
    assert {name: s.tfds for name, s in resolve_splits(dataset, sizes).items()} == expected


def test_what_tfds_cannot_download_says_how_to_get_it():
    manual = {d.name for d in summarization.DATASETS if d.manual}
    assert manual == {NEWSROOM.name, SAMSUM.name, XSUM.name}
    for dataset in (NEWSROOM, SAMSUM, XSUM):
        assert "https://" in dataset.manual
        assert f"tfds build {dataset.tfds_name} --manual_dir=" in dataset.manual
        assert not dataset.manual.endswith(".")  # the message that quotes it ends with one


# ------------------------------------------------------------------------------------------------------ shared parts


@pytest.mark.parametrize("blank", ["", " \n\t", "\u00a0"])
def test_records_without_text_are_dropped(blank):
    assert kept(AESLC, texts(email_body="Hello", subject_line="Hi\n"))
    assert not kept(AESLC, texts(email_body=blank, subject_line="Hi"))
    assert not kept(AESLC, texts(email_body="Hello", subject_line=blank))


def test_aeslc_body_and_subject_are_on_one_line():
    fields = shown(AESLC, texts(email_body="Hi Jo,\n\nsee  you\u00a0then.\n", subject_line="Lunch\n on Friday\n"))
    assert fields == {"body": "Hi Jo, see you then.", "answer": "Lunch on Friday"}


@pytest.mark.parametrize(
    ("document", "opening"),
    [
        ("One short sentence.", "One short sentence."),
        ("no end at all", "no end at all"),
        (" ".join(["word"] * 100), " ".join(["word"] * 60)),
        ("First one. " + "word " * 70 + "last.", "First one."),
        ('He said "this too." ' + "word " * 70, 'He said "this too."'),
        ("They ate at the 'Café'. Mrs. Ó Briain paid. " + "word " * 70, "They ate at the 'Café'. Mrs. Ó Briain paid."),
        ("He lives in Paris. " + "word " * 70, "He lives in Paris."),
        ("It rained. " + "word " * 40 + "U.S. and Mr. Hill in Sept. " + "word " * 30, "It rained."),
        ("Cost was $4,000. " + "word " * 48 + "today. " + "word " * 30, "Cost was $4,000. " + "word " * 48 + "today."),
    ],
)
def test_opening_ends_with_a_sentence_within_sixty_words(document, opening):
    assert shown(XSUM, texts(document=document, summary="s"))["opening"] == opening


# ----------------------------------------------------------------------------------------------------------- AG News


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("the firm #39;s shares", "the firm's shares"),
        ("for his  quot;Gyro, quot; a machine", 'for his "Gyro," a machine'),
        ("costs  #36;3 billion", "costs $3 billion"),
        ("AT amp;T and R&amp;D", "AT&T and R&D"),
        (r"dwindling\band of\\cynics", "dwindling band of cynics"),
        ("&lt;b&gt;News&lt;/b&gt; of  lt;i gt;today", "News of today"),
        ("5 < 6; no. 39; 7 > 6", "5 < 6; no. 39; 7 > 6"),
        ("dry land #151;and long imports  #151; including", "dry land—and long imports — including"),
        ("#147;No other Apple #146;s DVD Studio Pro 3, #148; writes", "“No other Apple’s DVD Studio Pro 3,” writes"),
        ("Microsoft #8217;s director", "Microsoft’s director"),
        ("samples hellip;. for nbsp;what exactly News gt; London", "samples…. for what exactly News> London"),
        ("a result; its volt; the amp; the C# 12;", "a result; its volt; the& the C# 12;"),
    ],
)
def test_ag_news_text_is_repaired(written, read):
    fields = shown(AG_NEWS_SUBSET, {**texts(title=written, description=written), "label": tf.constant(0, tf.int64)})
    assert fields["title"] == fields["description"] == read


@pytest.mark.parametrize(("label", "word"), enumerate(["World", "Sports", "Business", "Science/Tech"]))
def test_ag_news_answer_is_the_word_of_the_label(label, word):
    record = {**texts(title="t", description="d"), "label": tf.constant(label, tf.int64)}
    assert shown(AG_NEWS_SUBSET, record)["answer"] == word


# ----------------------------------------------------------------------------------------------------- CNN/DailyMail


@pytest.mark.parametrize(
    ("head", "left"),
    [
        ("", ""),
        ("(CNN)", ""),
        ("(CNN) -- ", ""),
        ("(CNN Student News) -- ", ""),
        ("-- ", ""),
        ("(The Hollywood Reporter)", ""),
        ("Moscow (CNN)", "Moscow -- "),
        ("Cedar Falls, Iowa (CNN)", "Cedar Falls, Iowa -- "),
        ("LONDON, England (CNN) -- ", "LONDON, England -- "),
        ("ST. LOUIS (Reuters) -- ", "ST. LOUIS -- "),
        ("By. Daily Mail Reporter. ", ""),
        ("By. Ann Doe. PUBLISHED:. 07:03 EST, 2 March 2013. |. UPDATED:. 08:07 EST, 2 March 2013. ", ""),
        ("By. Ann Doe. and Jo Roe. PUBLISHED:. 7:03 GMT, 12 May 2014. ", ""),
        ("By . Ann Doe . PUBLISHED: . 07:03 EST, 2 March 2013 . | . UPDATED: . 08:07 EST, 2 March 2013 . ", ""),
        ("By. Ann Doe. Last updated at 3:30 PM on 5th October 2011. ", ""),
        ("Mayor Ann Doe (Labour) -- ", "Mayor Ann Doe (Labour) -- "),
        ("By Tuesday it was over. ", "By Tuesday it was over. "),
    ],
)
def test_cnn_dailymail_article_loses_byline_and_agency_alone(head, left):
    text = "The dog (a collie) came home in 2013 . She was tired, her owner (CNN) -- said. PUBLISHED: 1 May."
    assert shown(CNN_DAILYMAIL, texts(article=head + text, highlights="h"))["article"] == left + text


@pytest.mark.parametrize(
    ("written", "left"),
    [
        ("he said. E-mail to a friend. CNN's Deirdre Walsh wrote.", "he said. CNN's Deirdre Walsh wrote."),
        (
            "he told Reuters. E-mail to a friend. Copyright 2007 Reuters. All rights reserved."
            "This material may not be published, broadcast, rewritten, or redistributed.",
            "he told Reuters.",
        ),
        ("people we lost in 2015. ©2015 The Hollywood Reporter. All rights reserved.", "people we lost in 2015."),
        ("nihilistic fruit. Copyright 2015 The Conversation. Some rights reserved.", "nihilistic fruit."),
        ("afford them. Copyright © 2011 Rolling Stone.", "afford them."),
        (
            "Copyright law of 1976 is old. All rights reserved, he said.",
            "Copyright law of 1976 is old. All rights reserved, he said.",
        ),
        ("to be\u00ad proud\u200b of him.", "to be proud of him."),
    ],
)
def test_cnn_dailymail_article_loses_links_and_copyright(written, left):
    assert shown(CNN_DAILYMAIL, texts(article=written, highlights="h"))["article"] == left


def test_cnn_dailymail_highlights_are_not_marked_as_new():
    written = "NEW: Teen gunman is dead .\nEight die, NEW: police say .\nNEW: He was 18."
    assert shown(CNN_DAILYMAIL, texts(article="a", highlights=written))["answer"] == (
        "Teen gunman is dead.\nEight die, NEW: police say.\nHe was 18."
    )


def test_cnn_dailymail_highlights_keep_their_lines():
    fields = shown(CNN_DAILYMAIL, texts(article="a", highlights=" One  here.\r\n\n Two. \nThree.\n"))
    assert fields["answer"] == "One here.\nTwo.\nThree."


# ---------------------------------------------------------------------------------------------------------- Gigaword


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ("the mayor is unknown .", True),
        ("a CHUNK of ice fell .", True),
        ("the UNK won .", False),
        ("UNK", False),
        ("the <unk> won .", False),
        ("profit rose ## percent .", False),
        ("  ", False),
    ],
)
def test_gigaword_drops_masked_words_and_digits(document, expected):
    assert kept(GIGAWORD, texts(document=document, summary="headline")) == expected
    assert kept(GIGAWORD, texts(document="a sentence .", summary=document)) == expected


# -------------------------------------------------------------------------------------------------------- Multi-News


def fair_lengths(lengths, total):
    """Hands out words one a round to every text that has some left."""
    given = [0] * len(lengths)
    while True:
        hungry = [i for i, n in enumerate(lengths) if given[i] < n]
        if not hungry or sum(given) + len(hungry) > total:
            return given
        for i in hungry:
            given[i] += 1


@pytest.mark.parametrize(
    "lengths",
    [(5,), (700,), (2_000,), (100, 200), (699, 2), (1_000, 1_000), (30, 3_000, 400, 10), (350, 350, 351), (90,) * 9],
)
def test_multi_news_articles_share_the_words_fairly(lengths):
    articles = [" ".join(f"{chr(97 + i)}{j}" for j in range(n)) for i, n in enumerate(lengths)]
    fields = shown(MULTI_NEWS, texts(document=" ||||| ".join(articles), summary="s"))
    got = fields["articles"].split("\n---\n")
    assert [len(a.split()) for a in got] == fair_lengths(lengths, 700)
    assert all(whole.startswith(part) for whole, part in zip(articles, got, strict=True))


def test_multi_news_cuts_after_a_sentence_and_only_where_it_has_to():
    long = "It began early. " * 300
    fields = shown(MULTI_NEWS, texts(document=f"Short text without end ||||| {long}and so on", summary="s"))
    first, second = fields["articles"].split("\n---\n")
    assert first == "Short text without end"
    assert second == " ".join(["It began early."] * 232)  # 696 words are left


def test_multi_news_articles_are_numbered_and_empty_ones_go():
    record = texts(document="One \n here.|||||  ||||| Two. |||||", summary="– It – all  happened.")
    fields = shown(MULTI_NEWS, record)
    assert fields["numbered"] == "Source 1:\nOne here.\n\nSource 2:\nTwo."
    assert fields["opening"] == "One here."
    assert fields["answer"] == "It – all happened."
    assert kept(MULTI_NEWS, record)
    assert not kept(MULTI_NEWS, texts(document=" ||||| \n |||||", summary="s"))
    assert not kept(MULTI_NEWS, texts(document="One.", summary=" "))


# ------------------------------------------------------------------------------------------------- Opinion abstracts


def test_idebate_arguments_are_numbered_and_tidy():
    record = opinions(["It is fair , they say .", " ", "It  works !"], _debate_name="This_House would_vote ")
    assert shown(OPINION_ABSTRACTS_IDEBATE, record) == {
        "debate": "This House would vote",
        "arguments": "1. It is fair, they say.\n2. It works!",
        "passage": "It is fair, they say. It works!",
        "argument": "It is fair, they say.",
        "answer": "Good.",
    }
    assert kept(OPINION_ABSTRACTS_IDEBATE, record)
    for values in ([], [" ", ""]):
        assert not kept(OPINION_ABSTRACTS_IDEBATE, opinions(values, _debate_name="d"))


def test_rotten_tomatoes_shows_ten_reviews():
    fields = shown(
        OPINION_ABSTRACTS_ROTTEN_TOMATOES, opinions([f"r{i}" for i in range(40)], _movie_name="up_in__smoke_3")
    )
    assert fields["movie"] == "up in smoke 3"
    assert fields["reviews"].splitlines() == [f"{i + 1}. r{i}" for i in range(10)]
    assert fields["some_reviews"] == "1. r0\n2. r1\n3. r2"
    assert fields["review"] == "r0"


# ------------------------------------------------------------------------------------------------------------ SAMSum


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("Ann: Hi\r\nBob: Hey  you", "Ann: Hi\nBob: Hey you"),
        ("Ann: <file_photo>\r\nAnn: Nice?\r\nBob: <file_gif> Yes", "Ann: (photo)\nAnn: Nice?\nBob: (gif) Yes"),
        ("Ann: <file_photo> <file_other>\nBob: <photo_file>", "Ann: (photo) (file)\nBob: (photo)"),
        ("Ann: love you <3 and >2 of you", "Ann: love you <3 and >2 of you"),
        (
            "Betty: <file _gif>\nLeah: <fIie_others>\nTom: <file:jpg> here",
            "Betty: (gif)\nLeah: (file)\nTom: (jpg) here",
        ),
        ("Sam: file_other and have a look here file_other", "Sam: (file) and have a look here (file)"),
        ("Mela: file_gif\nMax: <link_video> <link_other> <emoticon_smile>", "Mela: (gif)\nMax: (video) (link) (smile)"),
        ("Ann: my profile_pic, <LOL>", "Ann: my profile_pic, (LOL)"),
        ("Ann: we need\r\nfor the cake:\r\neggs", "Ann: we need\nfor the cake:\neggs"),
    ],
)
def test_samsum_dialogue_has_one_message_a_line_and_names_what_was_sent(written, read):
    assert shown(SAMSUM, texts(dialogue=written, summary="s"))["dialogue"] == read


def test_samsum_without_a_message_is_dropped():
    assert kept(SAMSUM, texts(dialogue="Ann: Hi", summary="s"))
    assert not kept(SAMSUM, texts(dialogue="", summary="s"))


# -------------------------------------------------------------------------------------------------------- WikiLingua


def test_wiki_lingua_target_is_the_reference_where_there_is_no_other():
    signature = {
        "source": tf.TensorSpec([], tf.string),
        "target": tf.TensorSpec([], tf.string),
        "references": tf.TensorSpec([None], tf.string),
    }
    rows = [
        {"source": "s", "target": "Do  this. ", "references": []},
        {"source": "s", "target": "Do this.", "references": ["Do that. "]},
    ]
    data = tf.data.Dataset.from_generator(lambda: iter(rows), output_signature=signature)
    found = [list(f["references"].numpy()) for f in data.map(lambda record: WIKI_LINGUA_ENGLISH_EN.fields(record))]
    assert found == [[b"Do this."], [b"Do that."]]


# ------------------------------------------------------------------------------------------------------------- XSum


@pytest.mark.parametrize(
    ("written", "left"),
    [
        ("It ended.\nMedia playback is not supported on this device\nHe won.", "It ended. He won."),
        (
            "Media playback is unsupported on your device\n11 May 2015 Last updated at 17:31 BST\n"
            "The bridge weighs four tonnes.",
            "The bridge weighs four tonnes.",
        ),
        (
            "It ended.\nFollow us on Facebook, on Twitter @BBCNewsEnts, or on Instagram at bbcnewsents. "
            "If you have a story suggestion email x@bbc.co.uk.",
            "It ended.",
        ),
        ("It ended.\nFollow @BBCNewsbeat on Twitter and Radio1Newsbeat on YouTube", "It ended."),
        ("It ended.\nx@bbc.co.uk and follow me on Twitter: @BBCAmos", "It ended."),
        ("It ended.\nFind all the latest football transfers on our dedicated page.", "It ended."),
        (
            "It ended.\nMatch report supplied by the Press Association.\nMatch ends, A 2, B 1.",
            "It ended. Match ends, A 2, B 1.",
        ),
        (
            "Follow her, he said, on Twitter.\nThe report was updated on 3 May 2015.",
            "Follow her, he said, on Twitter. The report was updated on 3 May 2015.",
        ),
    ],
)
def test_xsum_document_loses_what_belongs_to_the_page(written, left):
    fields = shown(XSUM, texts(document=written, summary="s"))
    assert fields["document"] == left
    assert left.startswith(fields["opening"])


@pytest.mark.parametrize(
    ("summary", "expected"),
    [
        ("Ouch!", False),
        ("All images copyrighted.", False),
        ("All photographs courtesy Oxfam", False),
        ("All pictures are copyrighted.", False),
        ("A man has died.", True),
        ("All pictures at the gallery are fakes.", True),
    ],
)
def test_xsum_drops_what_is_no_summary(summary, expected):
    assert kept(XSUM, texts(document="It happened.", summary=summary)) == expected


# ----------------------------------------------------------------------------------------------------------- samples


def test_gigaword_samples_have_masked_rows_to_drop():
    folder = Path(next(iter(flan_jax.tasks.__path__))) / "samples" / GIGAWORD.folder
    rows = [json.loads(line) for line in (folder / "train.jsonl").read_text("utf-8").splitlines()]
    masked = [row for row in rows if not kept(GIGAWORD, texts(**row))]
    assert len(masked) == 2
    assert all("#" in row["document"] or "UNK" in row["document"] for row in masked)
