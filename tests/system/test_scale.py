"""A stack larger than memory: four times the rows take the same memory, and blocks give the numbers of memory.

`make test MARK=slow ARGS=tests/system/test_scale.py`; `python bench/bench_scale.py` measures larger stacks.
"""

import bench_scale
import pandas as pd
import pytest
from test_interruption import copy_of_checkout, make


@pytest.mark.slow
@pytest.mark.parametrize("step", ["invert", "correct"])
def test_memory_is_that_of_the_blocks_and_time_that_of_the_pixels(step):
    """48 and 192 rows of a Sentinel-1 frame, 0.9 and 3.5 GB, zarr to zarr; the inversion checked against memory."""
    small, large = bench_scale.measure(48, step), bench_scale.measure(192, step)
    # blocks in work vary by some 0.2 GiB from run to run
    assert large["peak_memory_gib"] < small["peak_memory_gib"] + 0.3
    assert large["cpu_seconds"] == pytest.approx(4 * small["cpu_seconds"], rel=0.25)


@pytest.mark.slow
def test_notebooks_by_blocks_give_the_numbers_of_memory(tmp_path):
    """01 to 03 with every stack kept on disk, whatever its size: each number of the results is the same."""
    folders = [tmp_path / name for name in ("memory", "blocks")]
    for folder, limit in zip(folders, ("2e9", "0"), strict=True):
        variables = copy_of_checkout(folder) | {"IN_MEMORY_BYTES": limit}
        status, words = make(folder, "03_constrained_sbas", "SIZE=quick", seconds=3600, **variables)
        assert status == 0, words[-3000:]
    assert list(folders[1].rglob("02_*_unwrapped.zarr")), "the stacks did not stay on disk"
    for name in ("02_sbas", "03_constrained_sbas"):
        one, other = (pd.read_csv(f / "build" / "quick" / "results" / f"{name}.csv") for f in folders)
        pd.testing.assert_frame_equal(one, other, rtol=1e-6)
