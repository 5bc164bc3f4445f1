"""Claims of helpers.merge on synthetic truth."""

import ast

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from shapely.geometry import box

from helpers import contrasts, io, merge, space, thaw
from helpers.merge.posterior import _slope_weights
from helpers.space import widening, zone_covariance

YEAR = 365.25
DESC, ASC = (0.619, -0.115, 0.777), (-0.616, -0.109, 0.780)
KNOTS = ["1997-01-01", "2000-10-01", "2003-01-01", "2011-06-01", "2014-10-01", "2024-01-01"]
TRUE = np.array([-1.0, -1.0, -8.0, -10.0, -14.0])  # mm/yr between the knots


def grid(n=4, m=5, step=500.0, x0=0.0, y0=0.0):
    return {"y": y0 - step * np.arange(n), "x": x0 + step * np.arange(m)}


def rate_track(east, north, up, los, std=1.0, coords=None, sensor="a"):
    """A LOS rate that sees the given motion exactly."""
    coords = coords or grid()
    shape = (len(coords["y"]), len(coords["x"]))
    full = [
        xr.DataArray(np.broadcast_to(v, shape).astype(float), coords, ["y", "x"]) for v in (east, north, up)
    ]
    rate = sum(v * c for v, c in zip(full, los, strict=True))
    out = xr.Dataset({"rate": rate, "rate_std": xr.full_like(rate, std)}, attrs={"sensor": sensor})
    for name, c in zip(("los_east", "los_north", "los_up"), los, strict=True):
        out[name] = xr.zeros_like(rate) + c
    return out


def ground(dates, knots=KNOTS, rates=TRUE, amplitude=0.0):
    """Piecewise linear position (mm) with an annual wave."""
    t = np.asarray(dates, "datetime64[D]").astype(float) / YEAR
    borders = np.asarray(pd.DatetimeIndex(knots).values, "datetime64[D]").astype(float) / YEAR
    position = np.concatenate([[0.0], np.cumsum(np.diff(borders) * rates)])
    return np.interp(t, borders, position) + amplitude * np.sin(2 * np.pi * t)


def series_track(start, end, days, sensor, noise=0.0, std=None, rng=None, shape=(1, 1), los_up=0.78, **kw):
    dates = np.arange(np.datetime64(start), np.datetime64(end), np.timedelta64(days, "D")).astype(
        "datetime64[ns]"
    )
    truth = ground(dates, **kw) * los_up
    values = np.broadcast_to(truth[:, None, None], (truth.size, *shape)).copy()
    if rng is not None:
        values += rng.normal(0, noise, values.shape)
    values = values - values[:1] if rng is None else values
    coords = {"time": dates, **grid(*shape)}
    out = xr.Dataset(
        {
            "displacement": (("time", "y", "x"), values),
            "displacement_std": (("time", "y", "x"), np.full(values.shape, noise if std is None else std)),
            "los_up": (("y", "x"), np.full(shape, los_up)),
            "los_east": (("y", "x"), np.full(shape, 0.6)),
        },
        coords=coords,
        attrs={"sensor": sensor},
    )
    return out


def archive(noise=0.0, rng=None, shape=(1, 1), **kw):
    """Three generations with the two real gaps."""
    spans = [("1997-01-05", "2000-10-01", 35, "ers"), ("2003-01-01", "2010-10-01", 35, "envisat")]
    spans += [("2007-01-01", "2011-05-20", 46, "alos1"), ("2014-10-05", "2023-12-20", 12, "s1_desc")]
    return [series_track(*s, noise=noise, rng=rng, shape=shape, **kw) for s in spans]


# ------------------------------------------------------------------------------------ decompose
def test_two_directions_give_back_the_motion_they_were_made_of():
    """Noise-free ascending and descending rates decompose exactly when nothing moves north."""
    east = np.linspace(-10, 10, 20).reshape(4, 5)
    up = np.linspace(-15, 5, 20).reshape(4, 5)
    out = merge.decompose([rate_track(east, 0, up, DESC), rate_track(east, 0, up, ASC, sensor="b")])
    np.testing.assert_allclose(out.east, east, atol=1e-9)
    np.testing.assert_allclose(out.up, up, atol=1e-9)


def test_sd_and_north_leak_are_those_of_the_geometry():
    """At 39 degrees: sd(up) 0.91 and sd(east) 1.14 per unit of LOS sd; north leaks -0.15 into up, 0 into east."""
    out = merge.decompose([rate_track(0, 0, 0, DESC), rate_track(0, 0, 0, ASC)])
    assert float(out.up_std[0, 0]) == pytest.approx(0.91, abs=0.005)
    assert float(out.east_std[0, 0]) == pytest.approx(1.14, abs=0.01)
    assert float(out.north_leak_up[0, 0]) == pytest.approx(-0.15, abs=0.01)
    assert float(out.north_leak_east[0, 0]) == pytest.approx(0.0, abs=0.01)
    leak = merge.decompose([rate_track(0, 7.0, 0, DESC), rate_track(0, 7.0, 0, ASC)])
    np.testing.assert_allclose(leak.up, 7.0 * out.north_leak_up, atol=1e-9)


def test_sd_of_the_decomposition_covers_over_noise_draws():
    """z of up and east has sd 1 over independent pixels with unequal noise in the two tracks."""
    rng = np.random.default_rng(3)
    coords = grid(80, 80)
    a = rate_track(3.0, 0, -8.0, DESC, std=1.0, coords=coords)
    b = rate_track(3.0, 0, -8.0, ASC, std=2.5, coords=coords)
    for t in (a, b):
        t["rate"] = t.rate + rng.normal(0, 1, t.rate.shape) * t.rate_std
    out = merge.decompose([a, b])
    for name, truth in (("up", -8.0), ("east", 3.0)):
        z = (out[name] - truth) / out[name + "_std"]
        assert float(z.std()) == pytest.approx(1.0, abs=0.03)
        assert abs(float(z.mean())) < 4 / 80


def test_d5_names_taken_from_numpy_exist():
    """D5: no name that this numpy has dropped, in any branch of a helper (a peer died of np.bool8)."""
    for module in (io.ROOT / "src" / "helpers").rglob("*.py"):
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "np":
                assert hasattr(np, node.attr), f"{module.name}, line {node.lineno}: np.{node.attr}"


def test_d12_every_pixel_has_its_own_geometry():
    """D12: 100 mm/yr down across a swath of 16 degrees of incidence: exact everywhere, without the edges of blocks."""
    shape, tracks = (40, 60), []
    incidence = np.deg2rad(np.linspace(30, 46, shape[1]) + 0.05 * np.arange(shape[0])[:, None])
    for heading, sensor in ((-168.0, "a"), (-12.0, "b")):
        look = np.deg2rad(heading + 90)  # azimuth of the look direction, to the right of the flight
        los = (-np.sin(incidence) * np.sin(look), -np.sin(incidence) * np.cos(look), np.cos(incidence))
        tracks.append(rate_track(15.0, 0, -100.0, los, coords=grid(*shape), sensor=sensor))
    out = merge.decompose(tracks)
    assert float(abs(out["up"] + 100).max()) < 1e-9
    assert float(abs(out["east"] - 15).max()) < 1e-9


def test_same_look_direction_cannot_be_decomposed_for_free():
    """Two descending tracks give a huge sd or NaN, never a confident number."""
    near = (0.618, -0.115, 0.778)
    out = merge.decompose([rate_track(0, 0, -5.0, DESC), rate_track(0, 0, -5.0, near)])
    assert not (out.up_std < 100).any()


def test_tracks_on_other_grids_come_to_the_first():
    """A plane sampled on a shifted, finer grid is recovered on the first grid; outside it is NaN."""
    a_grid = grid(12, 10, 500.0)
    b_grid = grid(60, 50, 100.0, x0=730.0, y0=-410.0)

    def plane(c):
        return -10 + 1e-3 * c["x"][None, :] - 5e-4 * c["y"][:, None]

    a = rate_track(2.0, 0, plane(a_grid), DESC, coords=a_grid)
    b = rate_track(2.0, 0, plane(b_grid), ASC, coords=b_grid, sensor="b")
    out = merge.decompose([a, b])
    assert out.up.shape == (12, 10)
    inside = np.isfinite(out.up)
    assert 40 < int(inside.sum()) < 120
    np.testing.assert_allclose(out.up.where(inside, 0), xr.where(inside, plane(a_grid), 0), atol=1e-6)


def test_a_track_in_another_projection_is_reprojected():
    """Geographic and UTM grids of one place meet; a constant field stays constant."""
    utm = {"y": 4_220_000.0 - 500 * np.arange(20), "x": 500_000.0 + 500 * np.arange(20)}
    degrees = {"y": 38.2 - 0.004 * np.arange(60), "x": 98.9 + 0.005 * np.arange(80)}
    a = rate_track(0, 0, -5.0, DESC, coords=utm).rio.write_crs("EPSG:32647")
    b = rate_track(0, 0, -5.0, ASC, coords=degrees, sensor="b").rio.write_crs("EPSG:4326")
    out = merge.decompose([a, b])
    assert out.up.shape == (20, 20)
    assert float(np.isfinite(out.up).mean()) > 0.9
    np.testing.assert_allclose(out.up.values[np.isfinite(out.up)], -5.0, atol=1e-3)


@pytest.mark.parametrize("count", [0, 1])
def test_decompose_needs_two_tracks(count):
    """One or no track is an error that names the way out."""
    with pytest.raises(ValueError, match="two directions"):
        merge.decompose([rate_track(0, 0, 0, DESC)] * count)


def test_bad_tracks_are_named():
    """A track without los_up, and grids that do not overlap, are errors that say which and what."""
    good = rate_track(0, 0, 0, DESC)
    with pytest.raises(ValueError, match=r"b: no variable los_up"):
        merge.decompose([good, rate_track(0, 0, 0, ASC, sensor="b").drop_vars("los_up")])
    with pytest.raises(ValueError, match="does not overlap"):
        merge.decompose([good, rate_track(0, 0, 0, ASC, coords=grid(x0=1e6), sensor="b")])


def test_a_pixel_seen_by_one_track_only_is_nan():
    """NaN in one of two tracks leaves the pixel undetermined."""
    a, b = rate_track(1.0, 0, -5.0, DESC), rate_track(1.0, 0, -5.0, ASC)
    b["rate"][1, 2] = np.nan
    out = merge.decompose([a, b])
    assert np.isnan(out.up[1, 2]) and np.isnan(out.east_std[1, 2])
    assert int(np.isfinite(out.up).sum()) == 19


def test_descending_alone_misreads_creep_by_080():
    """Vertical from one track errs by 0.80 v_E, and its sd is that of the line of sight over los_up."""
    track = rate_track(10.0, 0, -5.0, DESC)
    alone = merge.project_up(track)
    assert float((alone.up + 5.0)[0, 0]) == pytest.approx(0.80 * 10, abs=0.05)
    assert float(alone.up_std[0, 0]) == pytest.approx(1.0 / 0.777, rel=1e-6)


# ----------------------------------------------------------------------------------------- join
def test_noise_free_record_gives_back_every_observed_rate():
    """Rates of observed epochs return within 0.02 mm/yr, the seasonal wave and the datum of each sensor absorbed."""
    out = merge.join(archive(amplitude=8.0), knots=KNOTS, deviation_std_mm=0.1)
    assert next(iter(out.epoch.values)) == "1997-01-01/2000-10-01"
    np.testing.assert_allclose(out.rate[[0, 2, 4], 0, 0], TRUE[[0, 2, 4]], atol=0.02)


def test_the_rate_of_an_epoch_is_its_least_squares_slope():
    """For rates that change within the epoch the weights give the slope fitted to the path, not its mean rate."""
    borders = np.array([0.0, 1.0, 2.5, 4.0, 5.0])
    rates = np.array([0.0, -2.0, -10.0, 3.0])
    t = np.linspace(0, 5, 20001)
    path = np.interp(t, borders, np.concatenate([[0], np.cumsum(rates * np.diff(borders))]))
    weights = _slope_weights(0.0, 5.0, borders)
    assert weights.sum() == pytest.approx(1)
    assert weights @ rates == pytest.approx(np.polyfit(t, path, 1)[0], abs=1e-3)
    assert _slope_weights(1.0, 2.5, borders).tolist() == [0, 1, 0, 0]


def test_one_sensor_alone_stays_itself():
    """A single precise sensor comes back as its own series over los_up, first date 0 with sd 0."""
    track = series_track("2015-01-01", "2020-01-01", 12, "s1", std=0.05)
    rng = np.random.default_rng(0)
    track["displacement"] = track.displacement + rng.normal(0, 4, track.displacement.shape)
    out = merge.join([track], knots=["2015-01-01", "2020-01-01"])
    own = (track.displacement - track.displacement[0]) / track.los_up
    np.testing.assert_allclose(out.displacement_up.sel(time=track.time), own, atol=0.02)
    assert float(out.displacement_up[0, 0, 0]) == 0 and float(out.displacement_up_std[0, 0, 0]) == 0


def test_sd_opens_where_no_sensor_looked():
    """The change across each gap is far less certain than a change of the same length within a sensor's life."""
    rng = np.random.default_rng(1)
    out = merge.join(archive(noise=3.0, rng=rng), knots=KNOTS)
    std = out.displacement_up_std[:, 0, 0]

    def at(d):
        return float(std.sel(time=d, method="nearest"))

    assert at("2002-12-01") > 2 * at("2000-09-01")
    assert at("2014-09-01") > 1.5 * at("2011-05-01")
    inside = float(std.sel(time=slice("2015", "2023")).diff("time").sum())
    assert abs(inside) < at("2014-09-01") - at("2011-05-01")
    weight = out.data_weight[:, 0, 0].values
    assert weight[[0, 2, 4]].min() > 0.9 and weight[[1, 3]].max() < 0.1


def test_intervals_of_rates_and_record_cover_the_truth_drawn_from_the_model():
    """Over 400 independent draws of rates and noise, 95 % intervals cover 95 % (gap epochs and positions too)."""
    rng = np.random.default_rng(11)
    n = 400
    spans = [("1997-01-05", "2000-10-01", 35, "ers"), ("2003-01-01", "2010-10-01", 35, "envisat")]
    spans += [("2014-10-05", "2023-12-20", 24, "s1_desc")]
    first = rng.normal(0, 50, n)  # the prior's own first rate: 5 x the jump
    rates = first[:, None] + np.concatenate(
        [np.zeros((n, 1)), np.cumsum(rng.normal(0, 10, (n, 4)), axis=1)], axis=1
    )
    tracks = []
    for start, end, days, name in spans:
        t = series_track(start, end, days, name, shape=(1, n), std=4.0)
        for i in range(n):
            t["displacement"][:, 0, i] = 0.78 * ground(t.time.values, rates=rates[i]) + rng.normal(0, 50)
        # deviation of the ground (3 mm up) and noise of the sensor (4 mm along the line of sight)
        t["displacement"] = t.displacement + rng.normal(0, 4, t.displacement.shape)
        t["displacement"] = t.displacement + 0.78 * rng.normal(0, 3, t.displacement.shape)
        tracks.append(t)
    # the walk is off: the drawn rates jump at the knots only
    out = merge.join(
        tracks,
        knots=KNOTS,
        deviation_std_mm=3.0,
        prior=merge.GroundPrior(rate_walk_mm_yr=1e-3, rate_change_std_mm_yr=10.0),
    )
    z = (out.rate.values[:, 0].T - rates) / out.rate_std.values[:, 0].T
    hits = (np.abs(z) < 1.96).mean(axis=0)
    margin = 4 * np.sqrt(0.05 * 0.95 / n)
    assert np.all(np.abs(hits - 0.95) < margin), hits
    assert z.std() == pytest.approx(1.0, abs=0.08)
    # positions across the gaps, against the smooth ground at both ends
    when = np.array(["1997-01-05", "2012-11-01", "2019-06-01"], "datetime64[D]")
    truth = np.array([ground(when, rates=r) for r in rates])
    near = out.sel(time=when.astype("datetime64[ns]"), method="nearest")
    error = near.displacement_up.values[:, 0].T - (truth - truth[:, :1])
    drift = np.array([ground(near.time.values, rates=r) for r in rates]) - truth
    error = error - (drift - drift[:, :1])
    z = error[:, 1:] / np.sqrt(near.displacement_up_std.values[1:, 0].T ** 2)
    assert np.all(np.abs((np.abs(z) < 1.96).mean(axis=0) - 0.95) < margin + 0.02)


@settings(max_examples=15, deadline=None)
@given(shift=st.floats(-500, 500), which=st.integers(0, 3))
def test_a_constant_added_to_a_sensor_moves_only_its_offset(shift, which):
    """The datum of a sensor is no information: only offset(sensor) follows it."""
    tracks = archive(noise=3.0, rng=np.random.default_rng(5))
    before = merge.join(tracks, knots=KNOTS)
    tracks[which]["displacement"] = tracks[which].displacement + shift
    after = merge.join(tracks, knots=KNOTS)
    np.testing.assert_allclose(after.rate, before.rate, atol=1e-5)
    np.testing.assert_allclose(after.displacement_up, before.displacement_up, atol=1e-4)
    moved = (after.offset - before.offset)[:, 0, 0].values
    np.testing.assert_allclose(moved, np.where(np.arange(4) == which, shift / 0.78, 0.0), atol=1e-3)


def test_a_sensor_with_its_own_rate_error_does_not_buy_certainty():
    """rate_std of a track bounds the epoch rate's sd from below, however many dates there are."""
    track = series_track("2015-01-01", "2023-01-01", 12, "s1", std=1.0)
    free = merge.join([track], knots=["2015-01-01", "2023-01-01"])
    track["rate_std"] = xr.full_like(track.los_up, 2.0)
    tied = merge.join([track], knots=["2015-01-01", "2023-01-01"])
    assert float(free.rate_std[0, 0, 0]) < 1.0
    assert 2.0 / 0.78 * 0.95 < float(tied.rate_std[0, 0, 0]) < 3.2


def test_reference_errors_are_kept_apart_and_shared_out_by_sensor():
    """What a sensor's scene shares is in reference_rate_std, not in rate_std; two equal sensors carry half each."""
    tracks = [series_track("2015-01-01", "2020-01-01", 24, name, std=2.0) for name in ("a", "b")]
    tracks[1]["time"] = tracks[1].time + np.timedelta64(7, "D")
    knots = ["2015-01-01", "2020-02-01"]
    plain = merge.join(tracks, knots=knots)
    for t in tracks:
        t.attrs["reference_rate_std"] = 0.78 * 2.0
    out = merge.join(tracks, knots=knots)
    np.testing.assert_allclose(out.sensor_contribution.sum("sensor"), 1.0, atol=0.02)
    np.testing.assert_allclose(out.sensor_contribution.squeeze(), 0.5, atol=0.03)
    np.testing.assert_allclose(out.reference_rate_std, 2.0 / np.sqrt(2), rtol=0.03)
    np.testing.assert_allclose(out.rate_std, plain.rate_std, rtol=0.05)
    # adding a rate to one sensor moves the joined rate by its share
    tracks[0]["displacement"] = tracks[0].displacement + 0.78 * 3.0 * (
        (tracks[0].time - tracks[0].time[0]) / np.timedelta64(1, "D") / YEAR
    )
    moved = merge.join(tracks, knots=knots).rate - out.rate
    np.testing.assert_allclose(moved, 3.0 * out.sensor_contribution.sel(sensor="a"), rtol=1e-3)


@pytest.mark.parametrize(("end", "keep", "days"), [("2021-01-01", None, 40.0), ("2018-10-01", 10, 600.0)])
def test_ground_that_remembers_its_deviation_needs_the_correlation_time(end, keep, days):
    """With deviations correlated in time the rate's z has sd near 1 when told so, and above 1 when not: for a dense
    series of many correlation times, and for ten dates in hardly two of them, where a white error that grew as for an
    endless series would leave the rate to the prior."""
    rng = np.random.default_rng(12)
    n = 300
    track = series_track("2015-06-01", end, 12, "s1", shape=(1, n), std=1.0, los_up=1.0)
    if keep:
        summer = np.flatnonzero(track.time.dt.month.isin([6, 7, 8, 9]))
        track = track.isel(time=summer[np.linspace(0, summer.size - 1, keep).astype(int)])
    t = (track.time.values - track.time.values[0]) / np.timedelta64(1, "D")
    memory = np.linalg.cholesky(np.exp(-np.abs(t[:, None] - t) / days))
    deviation = 5 * memory @ rng.normal(size=(t.size, n))
    noise = rng.normal(0, 1, deviation.shape)
    track["displacement"] = track.displacement + (deviation + noise)[:, None]

    def z_std(days):
        fixed = merge.GroundPrior(rate_walk_mm_yr=1e-3, seasonal_change_std_mm=1e-3)
        out = merge.join([track], knots=["2015-06-01", end], deviation_days=days, prior=fixed)
        return float(((out.rate + 14.0) / out.rate_std).std())

    assert z_std(days) == pytest.approx(1.0, abs=0.15)
    assert z_std(0.0) > 1.2


def test_a_stated_rate_error_that_the_noise_explains_counts_once():
    """A track whose rate_std is what its own noise implies joins to that rate_std, not to sqrt(2) times it."""
    track = series_track("2015-01-01", "2019-01-01", 35, "s1", std=3.0, los_up=1.0)
    t = (track.time - track.time[0]).values / np.timedelta64(1, "D") / YEAR
    columns = np.column_stack([np.ones_like(t), t, np.sin(2 * np.pi * t), np.cos(2 * np.pi * t)])
    own = float(np.sqrt(np.linalg.inv(columns.T @ columns)[1, 1]) * np.hypot(3.0, 5.0))
    track["rate_std"] = xr.full_like(track.los_up, own)
    out = merge.join(
        [track], knots=["2015-01-01", "2019-01-01"], prior=merge.GroundPrior(rate_walk_mm_yr=0.1)
    )
    assert float(out.rate_std[0, 0, 0]) == pytest.approx(own, rel=0.08)


def test_increments_with_a_covariance_weigh_as_the_equal_series_of_independent_dates():
    """Steps of a series with white dates have a tridiagonal covariance; both descriptions give the same rates."""
    rng = np.random.default_rng(2)
    white = series_track("2015-01-01", "2019-01-01", 24, "s1", noise=3.0, rng=rng, shape=(2, 2))
    n = white.sizes["time"]
    step = np.eye(n) - np.eye(n, k=-1)
    steps = white.drop_vars("displacement_std")
    steps["increment_cov"] = (("time", "time2"), step @ (9.0 * np.eye(n)) @ step.T)
    steps["displacement"] = steps.displacement - steps.displacement[0]
    steps["displacement"][5, 0, 0] = np.nan
    white["displacement"][5, 0, 0] = np.nan
    knots = ["2015-01-01", "2017-01-01", "2019-01-01"]
    a, b = merge.join([white], knots=knots), merge.join([steps], knots=knots)
    np.testing.assert_allclose(a.rate, b.rate, atol=0.02)
    np.testing.assert_allclose(a.rate_std, b.rate_std, rtol=0.02)
    steps["increment_cov"] = steps.increment_cov * np.nan
    with pytest.raises(ValueError, match="increment_cov"):
        merge.join([steps], knots=knots)


def test_missing_dates_pixels_and_sensors_are_left_out():
    """A pixel without data is NaN, one without a sensor lacks only that offset, one missing date changes little."""
    tracks = archive(noise=3.0, rng=np.random.default_rng(4), shape=(2, 2))
    tracks[0]["displacement"][:, 0, 1] = np.nan
    tracks[3]["displacement"][7, 1, 0] = np.nan
    for t in tracks:
        t["displacement"][:, 1, 1] = np.nan
    out = merge.join(tracks, knots=KNOTS)
    assert np.isnan(out.displacement_up[:, 1, 1]).all() and np.isnan(out.rate[:, 1, 1]).all()
    assert np.isnan(out.offset.sel(sensor="ers")[0, 1]) and np.isfinite(out.rate[:, 0, 1]).all()
    assert float(out.data_weight[0, 0, 1]) < 0.3 < 0.9 < float(out.data_weight[0, 0, 0])
    assert np.isfinite(out.displacement_up[:, 1, 0]).all()


def test_steep_pixels_are_masked_unless_their_east_rate_is_known():
    """Creep on a steep pixel reads as subsidence: masked without `east`, right with it."""
    track = series_track("2015-01-01", "2020-01-01", 24, "s1", std=0.1, shape=(1, 2))
    t = (track.time - track.time[0]) / np.timedelta64(1, "D") / YEAR
    track["displacement"] = track.displacement + 0.6 * 10.0 * t * xr.DataArray([0.0, 1.0], dims="x")
    track["slope_deg"] = (("y", "x"), [[3.0, 25.0]])
    knots = ["2015-01-01", "2020-01-01"]
    out = merge.join([track], knots=knots)
    assert np.isnan(out.rate[0, 0, 1]) and float(out.rate[0, 0, 0]) == pytest.approx(-14, abs=0.2)
    east = xr.DataArray([[0.0, 10.0]], dims=("y", "x"), coords={"y": track.y, "x": track.x})
    np.testing.assert_allclose(merge.join([track], knots=knots, east=east).rate[0, 0], -14, atol=0.2)


def test_dask_in_lazy_out_and_the_same_numbers():
    """Blocks give what arrays give, and nothing is computed before it is asked for."""
    tracks = archive(noise=3.0, rng=np.random.default_rng(6), shape=(4, 4))
    eager = merge.join(tracks, knots=KNOTS)
    lazy = merge.join([t.chunk({"y": 2, "x": 2}) for t in tracks], knots=KNOTS)
    assert lazy.rate.chunks is not None and lazy.displacement_up.chunks is not None
    for v in ("rate", "rate_std", "displacement_up", "displacement_up_std", "offset"):
        np.testing.assert_allclose(lazy[v], eager[v], atol=1e-8, err_msg=v)


def test_bad_input_to_join_is_named():
    """Empty list, no los_up, unsorted knots or dates, equal names and grids apart each say what is wrong."""
    a = series_track("2015-01-01", "2016-01-01", 24, "s1", std=1.0)
    knots = ["2015-01-01", "2016-01-01"]
    with pytest.raises(ValueError, match="empty"):
        merge.join([], knots=knots)
    with pytest.raises(ValueError, match="s1: no variable los_up"):
        merge.join([a.drop_vars("los_up")], knots=knots)
    with pytest.raises(ValueError, match="neither displacement_std nor increment_cov"):
        merge.join([a.drop_vars("displacement_std")], knots=knots)
    with pytest.raises(ValueError, match="knots must increase"):
        merge.join([a], knots=knots[::-1])
    with pytest.raises(ValueError, match="unsorted"):
        merge.join([a.isel(time=slice(None, None, -1))], knots=knots)
    with pytest.raises(ValueError, match="two tracks"):
        merge.join([a, a], knots=knots)
    far = a.assign_coords(x=a.x + 1e6).assign_attrs(sensor="far")
    with pytest.raises(ValueError, match="far: its grid does not overlap"):
        merge.join([a, far], knots=knots)


def test_units_signs_and_shared_errors_are_checked_before_work():
    """Metres, a look vector from above and an unknown reference error each end in a sentence, not in a rate."""
    knots = ["2015-01-01", "2016-01-01"]
    good, metres = (series_track("2015-01-01", "2016-01-01", 24, s, std=1.0) for s in ("s1", "b"))
    metres["displacement"] = (metres.displacement / 1000).assign_attrs(units="m")
    with pytest.raises(ValueError, match=r"b: displacement is in 'm', expected 'mm'"):
        merge.join([good, metres], knots=knots)
    with pytest.raises(ValueError, match="s1: los_up is negative"):
        merge.join([good.assign(los_up=-good.los_up)], knots=knots)
    with pytest.raises(ValueError, match="s1: reference_rate_std is nan"):
        merge.join([good.assign_attrs(reference_rate_std=np.nan)], knots=knots)


def test_decompose_says_what_its_tracks_cannot_share():
    """A rate held by a constraint (sd 0) is refused; rates of disjoint intervals are announced."""
    a, b = rate_track(0, 0, -5.0, DESC), rate_track(0, 0, -5.0, ASC, sensor="b")
    with pytest.raises(ValueError, match="b: rate_std is 0"):
        merge.decompose([a, b.assign(rate_std=0 * b.rate_std)])
    a.attrs.update(rate_start="2015-01-01", rate_end="2018-01-01")
    b.attrs.update(rate_start="2019-01-01", rate_end="2021-01-01")
    with pytest.warns(UserWarning, match="disjoint intervals"):
        merge.decompose([a, b])


def test_a_polygon_meets_a_grid_on_either_side_of_180_degrees():
    """A grid past 180 degrees holds a polygon given at -179; a grid whose longitudes jump is refused."""
    coords = {"y": 65.95 - 0.1 * np.arange(10), "x": 179.05 + 0.1 * np.arange(20)}
    field = xr.DataArray(np.zeros((10, 20)), coords, ("y", "x")).rio.write_crs("EPSG:4326")
    assert int(space.mask_of(box(-179.8, 65.2, -179.4, 65.6), field).sum()) == 16
    jump = field.assign_coords(x=(field.x + 180) % 360 - 180)
    with pytest.raises(ValueError, match="jump"):
        space.mask_of(box(-179.8, 65.2, -179.4, 65.6), jump)


def test_a_coarser_grid_keeps_every_cell_that_is_half_seen():
    """An aligned factor 4 keeps all 800 cells, edges too, as plain means; less than half of valid cells gives NaN."""
    fine, coarse = grid(80, 160, 25.0), grid(20, 40, 100.0, x0=37.5, y0=-37.5)
    values = np.random.default_rng(0).normal(size=(80, 160))
    values[:2, :4], values[:3, 4:8] = np.nan, np.nan
    track = xr.Dataset({"rate": (("y", "x"), values)}, coords=fine)
    like = xr.DataArray(np.zeros((20, 40)), coarse, ("y", "x"))
    out = space.resample(track, like).rate
    expected = track.rate.coarsen(y=4, x=4).mean().values
    expected[0, 1] = np.nan
    np.testing.assert_allclose(out, expected, atol=1e-12)
    assert int(out.notnull().sum()) == 799


def test_latitude_is_that_of_the_ground():
    """A projected grid's latitude is that of its transformed centre; without a coordinate system it is refused."""
    field = xr.DataArray(
        np.zeros((3, 3)), {"y": 7.2e6 - grid(3, 3)["y"], "x": 5e5 + grid(3, 3)["x"]}, ("y", "x")
    )
    assert space.latitude_of(field.rio.write_crs("EPSG:32647")) == pytest.approx(64.9, abs=0.1)
    with pytest.raises(ValueError, match="no coordinate system"):
        space.latitude_of(field)


# ------------------------------------------------------------------------------------- thinning
def test_a_calendar_imposed_on_a_series_reproduces_its_differences():
    """Each thinned pair holds the series' own difference between the dates nearest to the moved calendar."""
    series = series_track("2016-01-01", "2022-01-01", 12, "s1", std=1.0, amplitude=10.0).displacement
    dates = np.array(["1997-06-01", "1997-08-10", "1998-06-20", "1998-09-01"], "datetime64[ns]")
    stack = xr.Dataset(
        {"unwrapped_phase": (("pair", "y", "x"), np.zeros((3, 1, 1), "f4"))},
        coords={
            "reference": ("pair", dates[:3]),
            "secondary": ("pair", dates[1:]),
            "y": series.y,
            "x": series.x,
        },
        attrs={"sensor": "ers", "wavelength_m": 0.05656},
    )
    out = merge.thin(series, stack, 2018)
    assert pd.DatetimeIndex(out.reference.values).year.tolist() == [2018, 2018, 2019]
    gap = out.reference.values - (dates[:3] + np.timedelta64(21 * 365 + 5, "D"))
    assert np.all(np.abs(gap / np.timedelta64(1, "D")) <= 12)
    motion = series.sel(time=out.secondary.values).values - series.sel(time=out.reference.values).values
    np.testing.assert_allclose(-0.05656 / (4 * np.pi) * out.unwrapped_phase * 1000, motion, atol=1e-4)
    with pytest.raises(ValueError, match="no pair of ers"):
        merge.thin(series, stack, 2035)


# ------------------------------------------------------------------------------------ statements
def noise_field(rng, n, length, step=500.0, spin=None):
    """Gaussian field with exponential correlation on a grid (sd 1)."""
    y, x = np.meshgrid(np.arange(n) * step, np.arange(n) * step, indexing="ij")
    points = np.stack([y.ravel(), x.ravel()], axis=1)
    distance = np.sqrt(((points[:, None] - points[None]) ** 2).sum(-1))
    factor = np.linalg.cholesky(np.exp(-distance / length) + 1e-9 * np.eye(n * n))
    draws = factor @ rng.normal(size=(n * n, spin or 1))
    coords = grid(n, n, step)
    return xr.DataArray(
        draws.T.reshape(-1, n, n), {"draw": np.arange(spin or 1), **coords}, ["draw", "y", "x"]
    )


def test_sd_of_a_zone_mean_is_that_of_correlated_pixels():
    """Over 600 fields the sd of the zone mean equals its stated sd; independent pixels would claim far less."""
    rng = np.random.default_rng(8)
    fields = noise_field(rng, 16, 2000.0, spin=600)
    zones = xr.full_like(fields[0], 1.0).where(fields.x > 2000)
    one = space.zone_mean(fields[0], xr.ones_like(fields[0]), zones, length_m=2000.0)
    inside = fields.where(zones == 1)
    found = float(inside.mean(("y", "x")).std())
    assert one["std"].iloc[0] == pytest.approx(found, rel=0.1)
    n = int((zones == 1).sum())
    assert one.n_pixels.iloc[0] == n and one.n_effective.iloc[0] < n / 5


def test_independent_pixels_count_fully_and_empty_zones_are_nan():
    """Without correlation n_effective is the number of valid pixels; a zone without pixels gives NaN."""
    field = xr.DataArray(np.zeros((4, 5)), grid(), ["y", "x"])
    field[0, 0] = np.nan
    zones = xr.DataArray(np.full((4, 5), "mined", dtype=object), grid(), ["y", "x"])
    zones[3] = "empty"
    out = space.zone_mean(field.where(zones == "mined"), xr.ones_like(field), zones, length_m=1e-6)
    assert out.loc["mined", "n_effective"] == pytest.approx(14) and np.isnan(out.loc["empty", "mean"])


def test_alternative_references_are_whole_apart_and_best_first():
    """Patches avoid NaN cells, keep their distance, and come in the order of their fitness."""
    rng = np.random.default_rng(13)
    unfit = xr.DataArray(rng.random((40, 60)), grid(40, 60), ["y", "x"]).rolling(y=7, x=7, center=True).mean()
    unfit[:, 30:34] = np.nan
    patches = contrasts.alternative_references(unfit, n=6)
    assert len(patches) == 6
    means = [float(unfit.isel(p).mean(skipna=False)) for p in patches]
    assert np.isfinite(means).all() and means == sorted(means)
    centres = np.array([[p["y"].start, p["x"].start] for p in patches])
    apart = np.abs(centres[:, None] - centres[None]).max(axis=2)
    assert apart[~np.eye(6, dtype=bool)].min() >= 6
    assert contrasts.alternative_references(unfit * np.nan) == []


def test_correlation_length_is_found():
    """The median over 20 fields of 40 x 40 pixels is within 35 % of the truth; white noise gives less than a pixel."""
    rng = np.random.default_rng(9)
    found = [space.correlation_length(f) for f in noise_field(rng, 40, 1500.0, spin=20)]
    assert np.median(found) == pytest.approx(1500, rel=0.35)
    white = xr.DataArray(rng.normal(size=(40, 40)), grid(40, 40), ["y", "x"])
    assert space.correlation_length(white) < 500


def test_covariance_of_zones_is_that_of_the_fields():
    """Over 600 fields the variance of the difference of two neighbouring zones is what their covariance says."""
    rng = np.random.default_rng(31)
    fields = noise_field(rng, 14, 2500.0, spin=600)
    left, middle = fields.x < 2400, (fields.x >= 2400) & (fields.x < 4500)
    masks = [np.broadcast_to(m.values, fields.shape[1:]) for m in (left, middle)]
    covariance = zone_covariance(2.0 * xr.ones_like(fields[0]), masks, 2500.0)
    means = [2.0 * fields.where(m).mean(("y", "x")).values for m in (left, middle)]
    np.testing.assert_allclose(covariance, np.cov(means), rtol=0.15)
    apart = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    assert np.var(means[0] - means[1]) == pytest.approx(apart, rel=0.15)
    assert apart < 0.9 * (covariance[0, 0] + covariance[1, 1])


@pytest.mark.parametrize("stated", [0.5, 1.0, 2.0])
def test_size_of_errors_is_found_whatever_was_stated(stated):
    """Fields of sd 1 give 1 / stated, though each field's own mean was taken off: within 5 % over 60 fields."""
    fields = noise_field(np.random.default_rng(32), 24, 1500.0, spin=60)
    std = stated * xr.ones_like(fields[0])
    found = [space.error_scale(f, std, 1500.0) for f in fields]
    assert np.sqrt(np.mean(np.square(found))) == pytest.approx(1 / stated, rel=0.05)


@pytest.mark.parametrize("freedom", [1, 2, 4])
def test_an_uncertain_variance_widens_the_sd(freedom):
    """Variance found in nine blocks of few degrees of freedom: 1.96 widened sd hold 94.5 to 95.5 % of errors of sd 1.

    Unwidened ones hold less. Equal blocks widen nothing; blocks that say nothing count as three degrees of freedom.
    """
    blocks = np.random.default_rng(33).chisquare(freedom, (4000, 9)) / freedom
    found = np.sqrt(blocks.mean(axis=1))
    factor = [widening(d.mean(), (d.sum() - d) / 8) for d in blocks]
    held, unwidened = ((2 * stats.norm.cdf(1.96 * sd) - 1).mean() for sd in (found * factor, found))
    assert 0.945 < held < 0.955 and unwidened < 0.944
    assert widening(2.0, [2.0] * 9) == pytest.approx(1.0)
    assert widening(2.0, [2.0, np.nan, 2.0]) == pytest.approx(stats.t.ppf(0.975, 3) / 1.96, rel=1e-4)


@pytest.mark.slow
def test_zone_errors_found_on_one_field_cover_with_their_uncertainty():
    """Over 200 fields with errors as large as twenty pixels 95 % of a zone's mean error lies within 1.96 sd, though
    length and size are found on each field alone; without the widening fewer do."""
    rng = np.random.default_rng(34)
    held = {"widened": [], "as found": []}
    for _ in range(200):
        epochs, zones, _ = record_of(rng, 24, (1.0, 0.1), 0.0, (0.0, 0.0), 0.0)
        ground = xr.zeros_like(zones[0])
        ground[:, 10:14] = True  # a zone amid the ground that tells its errors
        zones = xr.concat([ground, ~ground], zones["zone"])
        rates = contrasts.zone_rates(epochs, zones, quiet=zones.sel(zone="control"))
        c = contrasts.zone_contrast(rates, "mined", "after", since="before", minus="control")
        v = np.array([1.0, -1.0])
        raw = np.sqrt(v @ rates["fit_covariance"].sum("label").values @ v)
        held["widened"].append(abs(c["difference"]) < 1.96 * c["std"])
        held["as found"].append(abs(c["difference"]) < 1.96 * raw)
    share = {k: np.mean(v) for k, v in held.items()}
    assert 0.91 <= share["widened"] <= 0.985 and share["as found"] < share["widened"], share


@pytest.mark.parametrize("statistic", ["mean", "median", "share", "robust sd"])
def test_scores_of_one_scene_cover_what_many_scenes_give(statistic):
    """Errors alike over a tenth of a block: over 300 fields the limits by leaving out ninths hold 91 to 98 % of the
    time, those of a share, which is skewed, 88 to 98 %; pixels counted as independent hold less than half."""
    of_map = {
        "mean": np.mean, "median": np.median, "share": lambda f: (f > 1).mean(),
        "robust sd": lambda f: 1.4826 * np.median(np.abs(f - np.median(f))),
    }[statistic]  # fmt: skip
    expected = {"mean": 0.0, "median": 0.0, "share": stats.norm.sf(1), "robust sd": 1.0}[statistic]
    rng = np.random.default_rng(35)
    found = [space.block_interval(of_map, field) for field in noise_field(rng, 45, 750.0, spin=300)]
    held = np.mean([low <= expected <= high for _, low, high in found])
    assert (0.88 if statistic == "share" else 0.91) <= held <= 0.98, held
    if statistic == "mean":
        assert np.mean([abs(v) < 1.96 / 45 for v, _, _ in found]) < 0.5


def test_a_score_without_ground_to_leave_out_has_no_interval():
    """Pixels in fewer than three ninths give the value alone, none give nothing."""
    field = xr.DataArray(np.full((9, 9), np.nan), grid(9, 9), ("y", "x"))
    assert np.isnan(space.block_interval(np.mean, field)).all()
    field[4, 4] = 2.0
    value, low, high = space.block_interval(np.mean, field)
    assert value == 2.0 and np.isnan([low, high]).all()


def record_of(rng, n, sigma, step, references, seasonal):
    """A record (label, y, x) of two epochs and sensors with known errors, and its zones."""
    coords = grid(n, n)
    shape, labels, sensors = ("label", "y", "x"), ["before", "after"], ["old", "new"]
    noise = noise_field(rng, n, 1500.0, spin=2).values * np.array(sigma)[:, None, None]
    share = np.zeros((2, 2, n, n))
    share[0, 0] = share[1, 1] = 1.0
    common = rng.normal(0, references)
    rate = np.array([0.0, step])[:, None, None] + noise + common[:, None, None]
    left = np.broadcast_to(np.arange(n) < n // 2, (n, n))
    zones = xr.DataArray(
        np.stack([left, ~left]), {"zone": ["mined", "control"], **coords}, ["zone", "y", "x"]
    )
    start = rng.normal(0, seasonal, (2000, 2))
    rate[0] += np.where(left, *rng.normal(0, seasonal, 2))
    epochs = xr.Dataset(
        {
            "rate": (shape, rate), "rate_std": (shape, np.ones((2, n, n)) * np.array(sigma)[:, None, None]),
            "geometry_std": (shape, np.zeros((2, n, n))), "sensor_contribution": (("label", "sensor", "y", "x"), share),
            "sensor_reference_std": ("sensor", np.array(references)),
        },
        coords={"label": labels, "sensor": sensors, **coords},
    )  # fmt: skip
    thinning = xr.Dataset(
        {"zone_difference": (("sensor", "start", "zone"), start[None])},
        coords={"sensor": ["old"], "start": np.arange(2000), "zone": ["mined", "control"]},
    )
    return epochs, zones, thinning


def test_the_reference_cancels_between_zones_and_sampling_does_not():
    """Against the control zone the reference error is 0; the parts of the budget add up to the sd."""
    epochs, zones, thinning = record_of(np.random.default_rng(20), 12, (1.0, 0.3), -4.0, (3.0, 0.2), 0.5)
    rates = contrasts.zone_rates(epochs, zones, quiet=xr.ones_like(zones[0]), thinning=thinning)
    assert float(rates.rate_std.sel(zone="mined", label="before")) > 3.0
    alone = contrasts.zone_contrast(rates, "mined", "after", since="before")
    against = contrasts.zone_contrast(rates, "mined", "after", since="before", minus="control")
    assert alone["reference_std"] == pytest.approx(np.hypot(3.0, 0.2))
    assert against["reference_std"] == pytest.approx(0, abs=1e-9) and against[
        "sampling_std"
    ] == pytest.approx(0.5 * np.sqrt(2), rel=0.1)
    parts = [against[f"{k}_std"] ** 2 for k in ("fit", "reference", "geometry", "sampling")]
    assert against["std"] ** 2 == pytest.approx(sum(parts))
    before = contrasts.zone_contrast(rates, "mined", "before")
    assert before["difference"] == pytest.approx(float(rates.rate.sel(zone="mined", label="before")))


@pytest.mark.slow
def test_contrasts_of_zones_cover():
    """Over 150 records 95 % intervals of a contrast cover 91-99 %, alone and less the control zone, where they are
    shorter. Zones are strips; the half of the scene that shares the control zone's sampling tells the errors."""
    rng = np.random.default_rng(21)
    hits, lengths = {None: [], "control": []}, {None: [], "control": []}
    for _ in range(150):
        epochs, halves, thinning = record_of(rng, 24, (1.0, 0.3), -4.0, (3.0, 0.2), 0.5)
        strips = [
            halves.x.isin(halves.x[k : k + 4]) & halves.sel(zone=z)
            for k, z in ((4, "mined"), (16, "control"))
        ]
        zones = xr.concat(strips, halves["zone"]).transpose("zone", "y", "x")
        rates = contrasts.zone_rates(
            epochs, zones, quiet=halves.sel(zone="control", drop=True), thinning=thinning
        )
        for minus in hits:
            c = contrasts.zone_contrast(rates, "mined", "after", since="before", minus=minus)
            truth = -4.0 if minus is None else 0.0
            hits[minus].append(c["lower"] <= truth <= c["upper"])
            lengths[minus].append(c["std"])
    assert all(0.91 <= np.mean(h) <= 0.99 for h in hits.values()), {k: np.mean(h) for k, h in hits.items()}
    assert np.mean(lengths["control"]) < 0.6 * np.mean(lengths[None])


def test_contrast_adds_every_error_and_states_what_it_could_find():
    """Variances add; an effect of minimal_detectable is found in 80 % of draws."""
    out = contrasts.contrast(-1.0, -9.0, {"fit": (3.0, 0.0), "reference": 4.0})
    assert out["difference"] == -8.0 and out["std"] == pytest.approx(5.0)
    assert out["share_fit"] == pytest.approx(9 / 25) and out["upper"] == pytest.approx(
        -8 + 1.96 * 5, abs=0.01
    )
    draws = np.random.default_rng(0).normal(out["minimal_detectable"], 5.0, 20000)
    assert (draws > 1.96 * 5.0).mean() == pytest.approx(0.8, abs=0.01)


def test_equivalence_errs_in_five_percent_at_the_margin():
    """With the truth on the margin, equivalence is claimed in 5 % of draws; well inside it is claimed often."""
    rng = np.random.default_rng(1)
    at = [contrasts.equivalence(v, 1.0, 5.0)["equivalent"] for v in rng.normal(5.0, 1.0, 4000)]
    assert np.mean(at) == pytest.approx(0.05, abs=0.012)
    inside = contrasts.equivalence(0.5, 1.0, 5.0)
    assert inside["equivalent"] and inside["claimable"] == pytest.approx(0.5 + 1.645, abs=0.01)
    with pytest.raises(ValueError, match="margin"):
        contrasts.equivalence(0.0, 1.0, 0.0)


def test_change_point_finds_the_date_and_spares_the_placebos():
    """A change of -10 mm/yr in 2008 is dated within its interval; a straight series alarms at about the level."""
    dates = pd.date_range("2003-01-01", "2016-01-01", freq="35D")
    t = (dates - dates[0]).days.to_numpy() / YEAR
    when = (pd.Timestamp("2008-07-01") - dates[0]).days / YEAR
    rng = np.random.default_rng(7)
    candidates = pd.date_range("2005-01-01", "2014-01-01", freq="180D")

    def scan(change):
        value = (
            -2 * t
            + change * np.clip(t - when, 0, None)
            + 6 * np.sin(2 * np.pi * t)
            + rng.normal(0, 5, t.size)
        )
        frame = pd.DataFrame({"date": dates, "value": value, "std": 5.0, "sensor": "a"})
        return contrasts.change_point(frame, candidates)

    found = [scan(-10.0) for _ in range(40)]
    hits = [f.attrs["lower"] <= pd.Timestamp("2008-07-01") <= f.attrs["upper"] for f in found]
    assert np.mean(hits) > 0.8
    assert np.mean([f.change[f.gain.idxmax()] for f in found]) == pytest.approx(-10, abs=1.0)
    alarms = np.mean([(np.abs(scan(0.0).z) > 1.96).mean() for _ in range(60)])
    assert alarms < 0.12
    with pytest.raises(ValueError, match="change_point"):
        contrasts.change_point(pd.DataFrame({"date": dates[:4], "value": 0.0, "std": 1.0}), candidates)


def test_noise_alone_shows_no_seasonal_change():
    """Series without a season, noisier before than after: the pooled signed drops differ in 5 % of draws and are 0 on
    average, where peak-to-peak would show a season that shrinks."""
    rng = np.random.default_rng(17)
    draws, noise = 400, {"before": 12.0, "after": 4.0}
    rows, swing = [], {}
    for epoch, first, days in (("before", 1998, 35), ("after", 2016, 12)):
        dates = pd.DatetimeIndex(
            np.concatenate(
                [pd.date_range(f"{y}-05-01", f"{y}-10-25", freq=f"{days}D") for y in range(first, first + 4)]
            )
        )
        values = rng.normal(0, noise[epoch], (dates.size, 1, draws))
        series = xr.DataArray(values, {"time": dates}, ("time", "y", "x"))
        found = thaw.drops(series, noise[epoch], {"full": ("05-15", "10-05")})
        table = found[["drop", "drop_std"]].isel(window=0, y=0, drop=True).to_dataframe().reset_index()
        rows.append(table.rename(columns={"x": "zone", "drop_std": "std"}).assign(epoch=epoch, sensor=epoch))
        swing[epoch] = float((series.max("time") - series.min("time")).mean())
    pooled = contrasts.pool_seasons(pd.concat(rows).dropna(), {"before": 0.0, "after": 0.0})
    both = {e: pooled.xs(e, level="epoch") for e in noise}
    difference = both["after"]["drop"] - both["before"]["drop"]
    std = np.hypot(both["after"]["std"], both["before"]["std"])
    alarms = (difference.abs() > 1.96 * std).mean()
    assert len(difference) == draws and abs(difference.mean()) < 4 * difference.sem()
    assert alarms < 0.05 + 4 * np.sqrt(0.05 * 0.95 / draws)
    assert swing["before"] - swing["after"] > 10
