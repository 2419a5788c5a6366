"""Failpoints do what the environment says, and nothing without it."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from rvc_batch.config import Settings, load_settings
from rvc_batch.home import Home
from rvc_batch.jobs import failpoints
from rvc_batch.jobs.failpoints import failpoint


@pytest.fixture(autouse=True)
def forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failpoints, "_actions", None)


def test_nothing_happens_without_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(failpoints.VARIABLE, raising=False)
    for name in failpoints.POINTS:
        failpoint(name)


def test_only_the_named_point_acts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(
        failpoints.VARIABLE, f"{failpoints.PUBLISH_LINKED}=raise:ENOSPC,{failpoints.CLAIM_TAKEN}=sleep:0"
    )
    failpoint(failpoints.PUBLISH_SYNCED)
    failpoint(failpoints.CLAIM_TAKEN)
    with pytest.raises(OSError, match="No space left") as caught:
        failpoint(failpoints.PUBLISH_LINKED)
    assert caught.value.errno == errno.ENOSPC


def test_unknown_action_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(failpoints.VARIABLE, f"{failpoints.CLAIM_TAKEN}=explode")
    with pytest.raises(ValueError, match="'explode' is no action"):
        failpoint(failpoints.CLAIM_TAKEN)


def test_variable_is_no_setting(tmp_path: Path) -> None:
    assert load_settings(Home(tmp_path), {failpoints.VARIABLE: "claim.taken=kill"}) == Settings()
