"""Codes are unique, documented, and drawn in the tree."""

import re
from collections.abc import Iterator
from pathlib import Path

from rvc_batch import errors
from rvc_batch.errors import RetryClass, RvcBatchError

DOCS = Path(__file__).parents[2] / "docs" / "errors.md"


def leaves(kind: type[RvcBatchError]) -> Iterator[type[RvcBatchError]]:
    for child in kind.__subclasses__():
        yield from leaves(child) if child.__subclasses__() else (child,)


def test_every_leaf_has_a_code_of_its_own() -> None:
    codes = [leaf.code for leaf in leaves(RvcBatchError)]
    assert len(codes) == len(set(codes))
    assert all(re.fullmatch(r"E_[A-Z_]+", code) for code in codes)


def test_every_code_is_in_the_documentation_with_its_retry_class() -> None:
    rows = dict(re.findall(r"^\| (E_[A-Z_]+) \|.*\| (\S+) \| \S+ \|$", DOCS.read_text(encoding="utf-8"), re.M))
    for leaf in leaves(RvcBatchError):
        assert leaf.code in rows
        assert rows[leaf.code] in (leaf.retry.value, "–"), leaf.code


def test_the_tree_on_top_of_the_module_names_every_class() -> None:
    drawn = errors.__doc__ or ""
    for leaf in leaves(RvcBatchError):
        assert re.search(rf"\b{leaf.__name__}\s+{leaf.code}\b", drawn), leaf.__name__


def test_the_message_is_the_first_argument_or_the_meaning_of_the_class() -> None:
    assert str(errors.DiskFull("no space on /x")) == "no space on /x"
    assert str(errors.DiskFull()) == "A volume has no space left."
    assert errors.DiskFull.retry is RetryClass.PAUSE
