"""One detector used by several threads at once, and thousands of times."""

import gc
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from detection.comparing import noise
from fsaf.config import Config, DataConfig, PredictConfig
from fsaf.detection.detector import Detector
from random_networks import CLASSES, CONFIG, random_network
from synthetic import SeesColours

DATA = DataConfig(short_side=32, long_side=96)
PREDICT = PredictConfig(max_detections=20)


def numbers(detector: Detector, seed: int) -> bytes:
    """Return everything that is found in a picture."""
    picture = noise(48 + seed % 5 * 8, 80, seed)
    result = detector.predict(picture, score_threshold=0.05, flip=seed % 3 == 0)
    assert len(result) == 20
    return result.boxes.tobytes() + result.scores.tobytes() + result.labels.tobytes()


@pytest.mark.slow
def test_four_threads_find_what_one_finds(one_thread: None) -> None:
    config = Config(data=DATA, model=CONFIG.model, predict=PREDICT)
    detector = Detector(random_network(config), CLASSES, config)
    expected = [numbers(detector, seed) for seed in range(16)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda seed: numbers(detector, seed), range(16))) == expected


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads the memory in use from /proc")
def test_two_thousand_predictions_take_no_more_memory(one_thread: None) -> None:
    detector = Detector(SeesColours().eval(), CLASSES, Config(data=DATA, predict=PREDICT))
    picture = noise(32, 32)

    def megabytes() -> float:
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    def predict(count: int) -> None:
        for _ in range(count):
            detector.predict(picture)

    predict(200)  # pools of memory fill
    before = megabytes()
    predict(2000)
    assert megabytes() - before < 8, "a prediction keeps 4 KB"
