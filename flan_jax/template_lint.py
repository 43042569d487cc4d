"""The linter of templates, run by the tests and by `browse --lint`.

`lint` finds what is certainly wrong. `lint_wording` compares words to find what a reader would stumble over: a question
that the options do not answer, a form of the answer that is not announced, talk of options that are not shown.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from flan_jax.catalog import Dataset, own_samples
from flan_jax.errors import FlanError
from flan_jax.templates import (
    FORWARD,
    INVERTED,
    OPTIONS,
    PLACEHOLDER,
    TEMPLATES_PER_DATASET,
    Fields,
    Template,
    fill,
    placeholders,
    render,
)

MIN_FORWARD = 7  # templates of a dataset


def lint(dataset: Dataset, examples: Sequence[Fields]) -> list[str]:
    """Checks a dataset's templates and returns what is certainly wrong, one line for each finding.

    Args:
      dataset: the dataset whose templates are checked.
      examples: fields of a few records of the dataset, at least one.
    """
    found = _lint_set(dataset)
    for number, template in enumerate(dataset.templates):
        where = f"{dataset.name} template {number}"
        found += [f"{where}: {finding}" for finding in _lint_template(dataset, template)]
        for example in examples:
            findings = _lint_rendered(template, example)
            found += [f"{where}: {finding}" for finding in findings]
            if findings:
                break
    found += [f"{dataset.name} GPT-3 prompt: {finding}" for finding in _lint_gpt3(dataset, examples)]
    for example in examples:
        found += [f"{dataset.name}: {finding}" for finding in _lint_fields(dataset, example)]
    return list(dict.fromkeys(found))


def _lint_set(dataset: Dataset) -> list[str]:
    found = []
    templates = dataset.templates
    is_own = own_samples(dataset.name) is not None  # an own dataset may have fewer, and one to be evaluated is enough
    if len(templates) != TEMPLATES_PER_DATASET and not is_own:
        found.append(f"{dataset.name}: has {len(templates)} templates, not {TEMPLATES_PER_DATASET}")
    forward = sum(t.is_forward for t in templates)
    if forward < (fewest := 1 if is_own else MIN_FORWARD):
        found.append(f"{dataset.name}: has {forward} forward templates, fewer than {fewest}")
    seen: dict[str, int] = {}
    for number, template in enumerate(templates):
        bare = re.sub(r"[\W_]+", " ", f"{template.input} | {template.target}".lower()).strip()
        if bare in seen:
            found.append(f"{dataset.name} template {number}: the same as template {seen[bare]}")
        seen.setdefault(bare, number)
    return found


_STRAY = (
    (re.compile(r"[^\S\n]{2,}"), "two spaces in a row"),
    (re.compile(r"[ \t]\n|[ \t]$|^\s|\n$"), "white space at an edge or before a line break"),
    (re.compile(r"\n{3,}"), "more than one blank line in a row"),
    (re.compile(r" [,.;:!?](?=\s|$)"), "a space before punctuation"),
    (re.compile(r"\}\w|[^\W_]\{"), "a letter or digit glued to a placeholder"),
    (re.compile(r"[^\x20-\x7e\n\u00a0-\uffff]"), "a control character"),
    (re.compile(r"([,;:!?])\1|(?<!\.)\.\.(?!\.)"), "doubled punctuation"),
)


def _lint_pattern(pattern: str) -> list[str]:
    found = [f"{what} in {pattern[:50]!r}" for regex, what in _STRAY if regex.search(pattern)]
    if re.search(r"[{}]", PLACEHOLDER.sub("", pattern)):
        found.append(f"a stray brace in {pattern[:50]!r}")
    for opening, closing in ("()", "[]"):
        if pattern.count(opening) != pattern.count(closing):
            found.append(f"an unbalanced {opening} in {pattern[:50]!r}")
    if pattern.count('"') % 2:
        found.append(f"an unbalanced quotation mark in {pattern[:50]!r}")
    return found


def _lint_gpt3(dataset: Dataset, examples: Sequence[Fields]) -> list[str]:
    """The pattern of the prompt, with lettered options too, and how it ends once a record is in it."""
    prompt = dataset.gpt3_prompt
    found = _lint_pattern(prompt.input)
    if shown := {OPTIONS, "answer"} & set(placeholders(prompt.input)):
        found.append(f"shows {', '.join(map(repr, sorted(shown)))}, which belongs after it")
    if dataset.kind == "classification":
        found += [line for line in _lint_pattern(prompt.lettered.input) if line not in found]
    for example in examples:
        try:
            ends = fill(prompt.input, example)
        except FlanError as error:
            return [*found, str(error)]
        if ends != ends.rstrip():
            return [*found, f"ends in white space: {ends[-50:]!r}"]
        if empty := [name for name in placeholders(prompt.input) if not example[name].strip()]:
            return [*found, f"field {empty[0]!r} is empty"]
    return found


def _lint_template(dataset: Dataset, template: Template) -> list[str]:
    found = [finding for pattern in (template.input, template.target) for finding in _lint_pattern(pattern)]
    has_options = OPTIONS in placeholders(template.input)
    if template.direction not in (FORWARD, INVERTED):
        found.append(f"direction {template.direction!r} is neither forward nor inverted")
    if template.is_forward:
        if template.target != "{answer}":
            found.append("a forward template's target is not {answer}")
        if "answer" in placeholders(template.input):
            found.append("a forward template shows the answer")
        if has_options != (dataset.kind == "classification"):
            found.append("{options} belongs in every forward classification template and in no other")
    elif has_options:
        found.append("an inverted template shows options")
    return found + _lint_open_input(template)


_SPEAKS_OF_OPTIONS = re.compile(
    r"\b(options?|choices?|choose|pick|select|tick|listed|possibilities|on offer|have been proposed"
    r"|(one|which|both|either) of (my |the |these )?(two|four|following)|(two|four) (things|texts|ideas)"
    r"|which (reply|ending|entry|answer)|only one of these)\b",
    re.IGNORECASE,
)


def _lint_open_input(template: Template) -> list[str]:
    """Whether the template still makes sense if its options are not shown."""
    found = []
    if template.open_input and OPTIONS not in placeholders(template.input):
        found.append("open_input is for templates that show options")
    if OPTIONS in placeholders(template.open_input):
        found.append("open_input shows the options")
    if template.open_input and sorted(set(placeholders(template.open_input))) != sorted(
        set(placeholders(template.input)) - {OPTIONS}
    ):
        found.append("open_input has other fields than input")
    if OPTIONS in placeholders(template.input) and not template.open_input:
        spoken = _SPEAKS_OF_OPTIONS.search(PLACEHOLDER.sub("", template.input))
        if spoken:
            found.append(f"speaks of options ({spoken.group()!r}) and has no open_input")
    return found


def _lint_rendered(template: Template, example: Fields) -> list[str]:
    try:
        inputs, targets = render(template, example)
    except FlanError as error:
        return [str(error)]
    found = [
        f"empty {what} after rendering" for what, text in (("inputs", inputs), ("targets", targets)) if not text.strip()
    ]
    if targets.strip() and not template.is_forward and targets.strip() in inputs and len(targets) > 20:
        found.append("an inverted template's input contains its target")
    for name in {*placeholders(template.input), *placeholders(template.target)}:
        value = example[name]
        if not (value.strip() if isinstance(value, str) else value):
            found.append(f"field {name!r} is empty")
    return found


def _lint_fields(dataset: Dataset, example: Fields) -> list[str]:
    found = []
    if "answer" not in example:
        return ["fields lack 'answer'"]
    for name, pattern in dataset.needs_options:
        if not isinstance(example.get(name), str):
            found.append(f"needs_options looks at {name!r} ({pattern[:30]!r}), which is no text field")
    if dataset.kind == "classification":
        options = example.get(OPTIONS)
        if options is None or isinstance(options, str):
            return ["fields lack the list 'options'"]
        if example["answer"] not in options:
            found.append(f"the answer {example['answer']!r} is not one of the options {list(options)}")
        if len(set(options)) != len(options):
            found.append(f"two options are the same: {list(options)}")
        if dataset.labels and tuple(options) != dataset.label_words:
            found.append(f"the options {list(options)} are not the label words {list(dataset.label_words)}")
    return found


def lint_labels(dataset: Dataset, tfds_names: Sequence[str]) -> list[str]:
    """Compares a dataset's labels with the ClassLabel names of its TFDS builder, in order.

    Returns:
      Findings, one line each; none if the labels agree.
    """
    declared = [name for name, _ in dataset.labels]
    if declared != list(tfds_names):
        return [f"{dataset.name}: labels are declared as {declared}, but TFDS has {list(tfds_names)}"]
    return []


# -------------------------------------------------------------------------------------------------- wording, by words

_CONTAINERS = "pile|folder|drawer|box|bucket|stack|shelf|basket|bin|group|page|column|class|bracket"
_CHOICES = "one|of|reply|ending|entry|answer|line|sentence|continuation|word|end|response|text|idea|option|choice|name"
_COUNTS = "two|three|four|five|six|seven|eight|nine|ten|several"
_COUNTED = (
    "ways|things|texts|ideas|endings|ends|lines|sentences|replies|answers|sorts|kinds|types|categories|classes|words"
    "|sections|candidates|statements|drawers|boxes|labels|continuations|possibilities|pages|piles|folders|choices|options"
)
_SPEAKS_OF_CHOOSING = re.compile(
    r"\b(options?|choices?|choose|choosing|pick|picks|picking|select|selecting|tick|check one|circle|multiple[- ]choice"
    r"|listed|the list|possibilities|alternatives?|on offer|offered|been proposed|candidates|given (endings|answers)"
    rf"|(the|these|those|all|my|of|into|from|in) ({_COUNTS}) (\w+ )?({_COUNTED})|there are ({_COUNTS})|({_COUNTS}) ways"
    r"|(one|which|both|either|neither|any|none|most|each) of (my |the |these |those )?(two|three|four|six|these|those"
    r"|them|following|below|above choices|continuations|endings|answers)"
    rf"|(which|what|whose) ({_CONTAINERS})|(into|on|onto|to) (which|one of)\b|(which|what) of\b|more likely|rule out"
    rf"|which ({_CHOICES})|which\?|only one|just one|the (right|correct|best|better|other|fitting|sensible) one"
    r"|(find|mark|underline|take|identify) the (line|one|ending|sentence|end|entry)|mark (the|one|a|your)|do you mark"
    r"|(name|say|tell me|decide|give) (the (one|letter|number|entry)|which)|decide between|the (more|likelier) \w+"
    r"|which is (the )?(more|better|most|best|likelier|right|correct|true)"
    r"|between (the two|these|them)|(at|from) the bottom|what is (right|correct|left|true)\b|would work, or"
    rf"|sort(ed|s|ing)?\b[^.?!]{{0,60}}\binto|(put|file|lay|drop) (this|it|that)\b[^.?!]{{0,30}}\b({_CONTAINERS})"
    r"|a, b, c|the letter|(which|what) (number|letter)|none of the above)",
    re.IGNORECASE,
)
_SPEAKS_OF_MARKING = re.compile(
    r"\b(options?|choices?|choose|pick|select|tick|circle|listed|mark (the|one|a|your)|multiple[- ]choice)\b",
    re.IGNORECASE,
)
# What must not be asked if "it cannot be told" is an option: neither an open nor a false statement follows.
_ASKS_FOR_PROOF = re.compile(
    r"\b(follows?|concluded?|infer|inferred|impl(y|ies|ied)|entails?|entailed|prove|proven|proves|proof|support|supports"
    r"|supported|backs?( it| this| that)? up|a fact|certain|know for sure|take .{0,30}to be true|call .{0,30}true|valid"
    r"|justif(y|ies|ied)|believe|think|mean|means|be sure|can (we|you|i|one) (say|tell|assume)|do (we|you|i) know)\b"
    r"[^.?!\n]*\?",
    re.IGNORECASE,
)
_ARROW = re.compile("=>|->|→|⇒")
_YES_NO_START = re.compile(
    r"(?:^|[.:,;!]\s+|\n|\"\s*)(?:so |and |but |then |now |or |if [^?]{3,80}, )?"
    r"(is|are|was|were|am|does|do|did|has|have|had|can|could|would|will|should|may|might|must)\b[^.?!]*\?",
    re.IGNORECASE,
)
_POLITE = re.compile(
    r"\b(can|could|would|will) you\b|\bdo you (know|happen)\b|\b(can|could|may) i have\b", re.IGNORECASE
)
_ASKS_WHAT = re.compile(r"\b(what|which|who|whom|whose|how|where|when|why)\b[^.?!\n]*\?", re.IGNORECASE)
_ASKS_WHETHER = re.compile(
    r"\b(whether|if|yes or no|yes/no|true or (not|false)|right or wrong|correct or not)\b", re.IGNORECASE
)
_EITHER_OR = re.compile(
    r"\b([\w-]+) or (?:an? |in |more )?([\w-]+)\b(?=[^.?!\n]*\?)|\b(good or bad|bad or good|happy or \w+)\b",
    re.IGNORECASE,
)
_BROKEN_TOKENS = (
    (re.compile(r"(?<=\w) '(?:s|re|ve|ll|d|m)\b|\w n't\b"), "a space before an ending"),
    (re.compile(r"\( \w|\w \)"), "a space inside brackets"),
    (re.compile(r"(?<=\w) [,;:!?](?=\s|$)|(?<=\w) \.(?=$|\s[A-Z])"), "a space before punctuation"),
    (re.compile(r"``|(?<=\w) ''|'' (?=\w)"), "quotation marks of a tokenizer"),
    (re.compile(r"(?<=[\w.,]) ' (?=\w)"), "an apostrophe between spaces"),
)
# Datasets whose source is tokenized; their `fields` undo that. Other sources are shown as they are.
_DETOKENIZED = frozenset({"glue_mrpc", "paws_wiki", "trec"})
_ASKS_ITSELF = frozenset({"bool_q"})  # the record has its own question, which the options answer


def lint_wording(dataset: Dataset, examples: Sequence[Fields] = ()) -> dict[int | None, list[str]]:
    """What a reader might stumble over, as far as comparing words can tell; the module says more.

    Args:
      dataset: the dataset whose templates are read.
      examples: fields of some of its records; without them, the fields are not checked.

    Returns:
      Findings by template number; findings about the fields are under None. Empty if there are none.
    """
    found: dict[int | None, list[str]] = {None: _lint_texts(dataset, examples)}
    for number, template in enumerate(dataset.templates):
        found[number] = _lint_target(template)
        if template.is_forward and dataset.kind == "classification":
            found[number] += _lint_open_wording(dataset, template) + _lint_question(dataset, template)
    return {number: lines for number, lines in found.items() if lines}


def _names(text: str, words: Iterable[str]) -> bool:
    """Whether a text holds all of the words, in upper or lower case."""
    return all(re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE) for word in words)


def _answers_yes_or_no(dataset: Dataset) -> bool:
    return {"yes", "no"} <= {word.lower() for word in dataset.label_words}


def _lint_open_wording(dataset: Dataset, template: Template) -> list[str]:
    """Whether a person who is shown no options can answer the open form."""
    shown = template.without_options.input
    text = PLACEHOLDER.sub("_", shown)
    words = dataset.label_words if dataset.labels else ()
    ends = words if dataset.labels and not all(word.isdigit() for word in words) else (*words[:1], *words[-1:])
    if words and not _answers_yes_or_no(dataset):
        return [] if _names(text, ends) else [f"its open form does not name the labels ({', '.join(ends)})"]
    if {"first", "second"} <= set(placeholders(shown)):
        return []  # the prompt shows the record's two candidates
    spoken = (_SPEAKS_OF_MARKING if words else _SPEAKS_OF_CHOOSING).search(text)
    return [f"its open form speaks of choosing ({spoken.group().strip()!r})"] if spoken else []


def _lint_question(dataset: Dataset, template: Template) -> list[str]:
    """Whether the options answer the question."""
    if not dataset.labels:
        return []
    found = []
    text = PLACEHOLDER.sub("_", re.sub(r"\s*\{options\}", "", template.input))
    if _answers_yes_or_no(dataset):
        asked = None if dataset.name in _ASKS_ITSELF else _ASKS_WHAT.search(text)
        if asked and not _YES_NO_START.search(text) and not _ASKS_WHETHER.search(text):
            found.append(f"the options are yes and no, but it asks {asked.group().strip()!r}")
        proof = _ASKS_FOR_PROOF.search(text) or _ARROW.search(text)
        if proof and len(dataset.labels) > 2:
            found.append(f'what is left open may count as "no": {proof.group().strip()!r}')
        return found
    if _names(text, dataset.label_words):
        return []
    asked = _YES_NO_START.search(text)
    if asked and not _POLITE.search(asked.group()) and not _ASKS_WHAT.search(text[asked.end() :]):
        found.append(f"asks for yes or no ({asked.group().strip(' .,:;')!r}), which are no options")
    either = _EITHER_OR.search(text)
    of_labels = " ".join(dataset.label_words)
    if either and all(word and _names(of_labels, [word]) for word in either.groups()[:2]):
        return found  # "same" or "different", next to "the same meaning" or "different meanings"
    if either and not any(_names(text, [word]) for word in dataset.label_words):
        found.append(f"speaks of {either.group()!r}, which are not the options")
    return found


def _lint_target(template: Template) -> list[str]:
    """Whether the prompt announces each label ("Question:") that the target has."""
    literals = (piece.strip() for piece in PLACEHOLDER.split(template.target)[0::2])
    missing = [piece for piece in literals if re.search(r"\w", piece) and piece.lower() not in template.input.lower()]
    return [f"the target has {piece!r}, which the prompt does not announce" for piece in missing]


def _lint_texts(dataset: Dataset, examples: Sequence[Fields]) -> list[str]:
    """Fields that are joined so that they cannot be taken apart, or that still look tokenized."""
    shown = {name for t in dataset.templates for name in placeholders(f"{t.input}{t.target}")}
    found = []
    for name in sorted(shown):
        texts = [text for example in examples if isinstance(text := example.get(name), str)]
        if "triple" in name and (joined := [text for text in texts if " | " not in text]):
            found.append(f"field {name!r} does not set its parts apart with bars: {joined[0][:60]!r}")
        for regex, what in _BROKEN_TOKENS if dataset.name in _DETOKENIZED else ():
            hits = [hit for text in texts if (hit := re.search(rf".{{0,15}}(?:{regex.pattern}).{{0,15}}", text))]
            if hits:
                found.append(f"field {name!r} has {what}: {hits[0].group()!r}")
    return found
