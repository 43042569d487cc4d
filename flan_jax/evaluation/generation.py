"""Units whose answers are generated: prompts to texts (paper, section 2.2; greedy decoding)."""

from __future__ import annotations

from typing import Any

from flan_jax import catalog, metrics
from flan_jax.data.vocabularies import Tokenizer
from flan_jax.decoding.completion import complete
from flan_jax.decoding.generator import Generator
from flan_jax.errors import NotFiniteError
from flan_jax.evaluation import prompts
from flan_jax.evaluation.figures import example_score
from flan_jax.evaluation.units import InvalidError, Unit
from flan_jax.scoring.trees import EOS

# A model that was not tuned goes on after its answer: it is cut at the next question or blank line.
UNTUNED_STOPS = ("Q:", "\n\n")


def new_tokens(record: catalog.Dataset, limit: int | None = None) -> int:
    """Most tokens of an answer to a dataset, and no more than `limit`."""
    wanted = metrics.metric(record.metrics[0]).new_tokens
    return wanted if limit is None else min(wanted, limit)


def generate(
    generator: Generator, tokenizer: Tokenizer, unit: Unit, max_length: int, max_new_tokens: int, separator: str
) -> list[dict[str, Any]]:
    """Answers the prompts of a unit greedily and writes the predictions; returns them.

    Args:
      generator: the model.
      tokenizer: its vocabulary.
      unit: of a dataset without options.
      max_length: longest prompt with its answer, in tokens.
      max_new_tokens: longest answer.
      separator: "eos", "newline" or "space"; without EOS the answer is cut at `UNTUNED_STOPS`.

    Raises:
      FlanError: an instruction alone exceeds `max_length` less `max_new_tokens`.
      InvalidError: the model's logits are NaN or infinite; nothing is written.
    """
    template, record = unit.builder.templates[unit.number], unit.builder.record
    texts, lines = [], []
    for row in unit.rows:
        example = unit.builder.build(row["id"], row["fields"], unit.number)
        prompt = prompts.fit_prompt(
            tokenizer,
            template,
            example.fields,
            max_length - max_new_tokens,
            prefix=example.prefix,
            separator=separator,
        )
        texts.append(prompt.inputs)
        fields = row["fields"]
        references = list(fields.get("references") or [fields["answer"]])
        lines.append(unit.line(row, prompt.inputs, example.shots, prompt.cut_tokens) | {"references": references})
    try:
        said = complete(
            generator,
            tokenizer,
            texts,
            separator=separator,
            max_new_tokens=max_new_tokens,
            stops=() if separator == EOS else UNTUNED_STOPS,
        )
    except NotFiniteError as error:
        raise InvalidError(unit, lines[error.number]["id"], "logits") from error
    predictions = []
    for line, completion in zip(lines, said, strict=True):
        text = completion.text.strip()
        score = example_score(record, line["references"], text)
        line |= {"prediction": text, "finish": completion.finish}
        predictions.append(line if score is None else line | {"score": score})
    unit.write(predictions)
    return predictions
