"""Tokenizers of every kind that LineTokenizer meets: those whose lines it may cut, and those whose texts stay whole."""

import io

import sentencepiece
import tokenizers
from tokenizers import Regex, pre_tokenizers

from flan_jax.data import vocabularies

CORPUS = [
    "The quick brown fox jumps over the lazy dog.\n\nOPTIONS:\n- yes\n- no\nIt is not possible to tell\n",
    "Premise: 12 foxes aren't lazy.\nQ: Is it so?\nA: yes\n\n\nWe'll see...\r\n\tdef f(x):\n    return x\n",
]
EOS = "<|endoftext|>"
LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
BYTE_LEVEL = pre_tokenizers.ByteLevel(add_prefix_space=False)
UNSPLIT = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)


def huggingface(*steps, normalizer=None, added=(), vocab_size=500, **model):
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(**model))
    tokenizer.pre_tokenizer = steps[0] if len(steps) == 1 else pre_tokenizers.Sequence(list(steps))
    tokenizer.normalizer = normalizer
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocab_size, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS * 3, trainer)
    tokenizer.add_special_tokens([EOS, "<|x|>"])
    tokenizer.add_tokens(list(added))
    return vocabularies.HuggingFaceTokenizer(tokenizer.to_str().encode(), tokenizer.token_to_id(EOS))


def sentence_pieces(**settings):
    written = io.BytesIO()
    chosen = {"model_type": "bpe", "normalization_rule_name": "identity", "remove_extra_whitespaces": False}
    chosen |= {"byte_fallback": True, "vocab_size": 420} | settings
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([line for text in CORPUS * 5 for line in text.split("\n") if line]),
        model_writer=written,
        hard_vocab_limit=False,
        minloglevel=2,
        **chosen,
    )
    return vocabularies.SentencePieceTokenizer(written.getvalue())


def llama_3(**more):
    return huggingface(pre_tokenizers.Split(Regex(LLAMA_3), "isolated"), UNSPLIT, **more)


CUT = {
    "bytes": vocabularies.ByteTokenizer,
    "gpt2": lambda: huggingface(BYTE_LEVEL),
    "gpt2_digits": lambda: huggingface(pre_tokenizers.Digits(individual_digits=True), BYTE_LEVEL),  # SmolLM2's
    "gpt2_added": lambda: huggingface(BYTE_LEVEL, added=["[user]", "\n\n", tokenizers.AddedToken("<r>", rstrip=True)]),
    "llama3": llama_3,
    "llama3_ignoring": lambda: llama_3(ignore_merges=True),
    "nfc": lambda: huggingface(BYTE_LEVEL, normalizer=tokenizers.normalizers.NFC()),
    "nfkc": lambda: huggingface(BYTE_LEVEL, normalizer=tokenizers.normalizers.NFKC()),
    "llama2": sentence_pieces,  # a blank is put before every text
    "gemma": lambda: sentence_pieces(
        add_dummy_prefix=False, user_defined_symbols=["\n", "\n\n", "\n\n\n", "▁▁", "<unused1>"]
    ),
}
WHOLE = {
    "unigram": lambda: sentence_pieces(model_type="unigram", vocab_size=330),
    "collapsing": lambda: sentence_pieces(remove_extra_whitespaces=True),
    "nmt_nfkc": lambda: sentence_pieces(normalization_rule_name="nmt_nfkc"),
    "suffixes": lambda: sentence_pieces(treat_whitespace_as_suffix=True),
    "unknown_breaks": lambda: sentence_pieces(byte_fallback=False, vocab_size=120),
    "a_piece_across": lambda: sentence_pieces(user_defined_symbols=["\n-"]),
    "prefix_space": lambda: huggingface(pre_tokenizers.ByteLevel(add_prefix_space=True)),
    "no_pattern": lambda: huggingface(UNSPLIT),
    "own_pattern": lambda: huggingface(pre_tokenizers.Split(Regex(r"(?<=\n)-|\s?\S+|\s+"), "isolated"), UNSPLIT),
    "merged": lambda: huggingface(pre_tokenizers.Split(Regex(LLAMA_3), "merged_with_next"), UNSPLIT),
    "two_patterns": lambda: huggingface(pre_tokenizers.Split(Regex(LLAMA_3), "isolated"), BYTE_LEVEL),
    "metaspace": lambda: huggingface(pre_tokenizers.Metaspace()),
    "left_space": lambda: huggingface(BYTE_LEVEL, added=[tokenizers.AddedToken("<mask>", lstrip=True)]),
    "single_words": lambda: huggingface(BYTE_LEVEL, added=[tokenizers.AddedToken("fox\n", single_word=True)]),
    "added_across": lambda: huggingface(BYTE_LEVEL, added=["yes\nno"]),
    "added_letter": lambda: huggingface(BYTE_LEVEL, added=["Alas"]),
    "lower_case": lambda: huggingface(BYTE_LEVEL, normalizer=tokenizers.normalizers.Lowercase()),
    "dropout": lambda: huggingface(BYTE_LEVEL, dropout=0.5),
}
