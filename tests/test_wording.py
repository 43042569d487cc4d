import pytest

from flan_jax.wording import counted


@pytest.mark.parametrize(
    ("plural", "one"),
    [
        ("ways", "1 way"),
        ("target tokens", "1 target token"),
        ("more rows", "1 more row"),
        ("batches", "1 batch"),
        ("entries", "1 entry"),
        ("passages", "1 passage"),
        ("boxes", "1 box"),
    ],
)
def test_one_is_one(plural, one):
    assert counted(1, plural) == one
    assert counted(0, plural) == f"0 {plural}" and counted(1234, plural) == f"1,234 {plural}"
