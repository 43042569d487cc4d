import itertools
import json
import shutil

import pytest

pytest.register_assert_rewrite("folders_of_transformers")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """(name) -> a folder of that family, as this version of transformers saves it."""
    import folders_of_transformers as folders  # torch, which most files here do not need

    made = {}

    def folder(name):
        if name not in made:
            made[name] = tmp_path_factory.mktemp("base") / name.replace(" ", "_")
            model = folders.randomized(folders.FAMILIES[name]())
            if name == "t5 1.1":
                model.lm_head.weight = folders.torch.nn.Parameter(model.lm_head.weight.detach().flip(0) + 0.1)
                model.config.tie_word_embeddings = False
            model.save_pretrained(made[name])
            if name == "t5 1.1":
                folders.edit(made[name], tie_word_embeddings=False, scale_decoder_outputs=False)
            settings = {"tokenizer_class": "ByT5Tokenizer", "extra_ids": 125}
            (made[name] / "tokenizer_config.json").write_text(json.dumps(settings))
        return made[name]

    return folder


@pytest.fixture
def copy(base, tmp_path):
    """(name) -> a copy of the folder to change."""
    numbers = itertools.count()

    def copied(name):
        return shutil.copytree(base(name), tmp_path / f"{next(numbers)}")

    return copied
