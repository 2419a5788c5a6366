"""Under a supervisor that restarts it and kills its workers, the service loses no file and does none twice."""

from pathlib import Path

from rvc_batch.home import Home
from tests.service_story import tell


def test_nothing_is_lost_or_done_twice_through_restarts_and_kills(tmp_path: Path) -> None:
    told = tell(Home(tmp_path), jobs=24, restarts=3, kills=3, seed=7)
    assert (told.done, told.lost, told.twice, told.violations) == (24, 0, 0, [])
    assert (told.restarts_by_sigterm, told.restarts_by_sigkill, told.worker_kills) == (2, 1, 3)
    assert told.daemon_starts == 4
    assert told.attempts["done"] == 24
    assert told.attempts["crashed"] >= 3, "workers died in the middle of their jobs"
