"""Units whose answers are generated: from prompts to texts by greedy decoding (paper, section 2.2)."""

from __future__ import annotations

from typing import Any

from flan_jax.data import trimming
from flan_jax.data.examples import UnusableError
from flan_jax.data.vocabularies import Tokenizer
from flan_jax.decoding.completion import complete, complete_tokens
from flan_jax.decoding.generator import Generator
from flan_jax.errors import NotFiniteError
from flan_jax.evaluation.figures import example_score, example_statistics
from flan_jax.evaluation.units import InvalidError, Left, Predictions, Unit


def generate(generator: Generator, tokenizer: Tokenizer, unit: Unit, joint: str) -> tuple[Predictions, int]:
    """Answers the prompts of a unit greedily, and writes the predictions.

    Args:
      generator: the model.
      tokenizer: its vocabulary.
      unit: a unit of a dataset without options. Its protocol limits prompts and answers, and says where answers end.
      joint: what stands between prompt and answer.

    Returns:
      The predictions, and how many tokens their prompts and answers had.

    Raises:
      InvalidError: the model's logits are NaN or infinite; nothing is written.
    """
    record, asked = unit.builder.record, unit.builder.protocol
    texts, tokens, lines, left = [], [], [], []
    for row in unit.rows:
        try:
            prompt, example = unit.prompt(tokenizer, row)
        except (UnusableError, trimming.TooLongError) as error:
            left.append(Left(row["id"], unit.number, str(error)))
            continue
        texts.append(prompt.inputs)
        tokens.append(prompt.tokens)
        references = list(row["fields"].get("references") or [row["fields"]["answer"]])
        lines.append(unit.line(row, prompt.inputs, example.shots, prompt.cut_tokens) | {"references": references})
    settings: dict[str, Any] = {
        "max_new_tokens": asked.max_new_tokens,
        "stops": () if record.written else asked.stops(joint),
    }
    try:
        if record.written:
            said = complete_tokens(generator, tokenizer, tokens, **settings)
        else:
            said = complete(generator, tokenizer, texts, joint=joint, **settings)
    except NotFiniteError as error:
        raise InvalidError(unit, lines[error.number]["id"], "logits") from error
    predictions = []
    for line, completion in zip(lines, said, strict=True):
        text = completion.text.strip()
        line |= {"prediction": text, "finish": completion.finish}
        if (score := example_score(record, line["references"], text)) is not None:
            line["score"] = score
        elif (statistics := example_statistics(record, line["references"], text)) is not None:
            line["statistics"] = statistics
        predictions.append(line)
    found = Predictions(predictions, tuple(left))
    unit.write(found)
    return found, sum(map(len, tokens)) + sum(completion.num_tokens for completion in said)
