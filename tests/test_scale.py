"""A stack larger than memory: four times the rows take the same memory and four times the processor time.

`make test MARK=slow ARGS=tests/test_scale.py`; `python tests/bench_scale.py` measures larger ones.
"""

import bench_scale
import pytest


@pytest.mark.slow
def test_memory_is_that_of_the_blocks_and_time_that_of_the_pixels():
    """48 and 192 rows of a Sentinel-1 frame, 0.9 and 3.5 GB, inverted zarr to zarr and checked against memory."""
    small, large = bench_scale.measure(48), bench_scale.measure(192)
    # 0.2 GiB of growth from 50 to 400 rows was measured: the task graph
    assert large["peak_memory_gib"] < small["peak_memory_gib"] + 0.3 < large["input_gb"] / 2
    assert large["cpu_seconds"] == pytest.approx(4 * small["cpu_seconds"], rel=0.25)
