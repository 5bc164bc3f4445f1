"""Readers of daily discharge: every format comes to one data model, exactly, and bad files are named."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from helpers.io import read_discharge


def write(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return path


def yearbook(year, cell=lambda month, day: "1.25", header="集水面积 4600 km2,流量 m3/s", days=31):
    """A yearbook table; ``cell`` gives the text of each day that exists."""
    lines = [f"{year}年 试验站 逐日平均流量表,{header}", ",".join(["日", *(f"{m}月" for m in range(1, 13))])]
    for day in range(1, days + 1):
        exists = [day <= pd.Period(f"{year}-{m}").days_in_month for m in range(1, 13)]
        lines.append(",".join([str(day), *(cell(m, day) if exists[m - 1] else "" for m in range(1, 13))]))
    lines += [
        "平均" + ",1.3" * 12,
        "最大" + ",99" * 12,
        "日期" + ",15" * 12,
        "最小" + ",0.1" * 12,
        "日期" + ",3" * 12,
    ]
    return "\n".join([*lines, "年统计,最大流量 99,最小流量 0.1,平均流量 1.3"]) + "\n"


# ---- one data model -------------------------------------------------------------------------------------


def test_plain_csv_gets_a_complete_calendar(tmp_path):
    """Unsorted rows are sorted, absent days become NaN, nothing is interpolated."""
    path = write(tmp_path / "g.csv", "date,flow\n2001-01-05,3.0\n2001-01-01,1.0\n2001-01-02,\n")
    q = read_discharge(path, drainage_area_km2=120)
    assert q.name == "discharge" and q.dims == ("time",) and q.attrs["units"] == "m3/s"
    assert q.attrs["drainage_area_km2"] == 120.0 and q.attrs["station"] == "g"
    assert list(q.time.values) == list(pd.date_range("2001-01-01", "2001-01-05").values)
    np.testing.assert_array_equal(q.values, [1.0, np.nan, np.nan, np.nan, 3.0])


@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        ("q_m3s", 2.0, 2.0),
        ("flow_cfs", 1000.0, 28.316846592),
        ("q_m3d", 86400.0, 1.0),
        ("flow (l/s)", 1500.0, 1.5),
        ("discharge_mm_d", 86.4, 1000.0),
    ],
)
def test_unit_in_the_column_name_is_converted_exactly(tmp_path, column, value, expected):
    """Conversion factors are exact: 1 cfs = 0.3048^3 m3/s, 1 mm/day over A km2 = A/86.4 m3/s."""
    path = write(tmp_path / "g.csv", f"date,{column}\n2001-01-01,{value}\n2001-01-02,{value}\n")
    q = read_discharge(path, drainage_area_km2=1000.0)
    np.testing.assert_allclose(q, expected, rtol=1e-15)
    assert "units_assumed" not in q.attrs


def test_unstated_unit_is_marked_assumed(tmp_path):
    """A bare ``flow`` is taken as m3/s and says so; units= overrides without the mark."""
    path = write(tmp_path / "g.csv", "date,flow\n2001-01-01,1\n2001-01-02,2\n")
    assert read_discharge(path).attrs["units_assumed"] == "true"
    np.testing.assert_allclose(read_discharge(path, units="l/s"), [1e-3, 2e-3], rtol=1e-15)
    assert "units_assumed" not in read_discharge(path, units="l/s").attrs


def test_column_by_name_position_or_year_month_day(tmp_path):
    """The flow column is found by name or position; Year, Month, Day serve as date."""
    text = "Year,Month,Day,stage,Q\n2004,2,28,1.1,5\n2004,2,29,1.2,6\n2004,3,1,1.3,7\n"
    path = write(tmp_path / "g.csv", text)
    np.testing.assert_array_equal(read_discharge(path), [5, 6, 7])
    np.testing.assert_array_equal(read_discharge(path, column=-1), [5, 6, 7])
    np.testing.assert_array_equal(read_discharge(path, column="stage"), [1.1, 1.2, 1.3])


def test_missing_marks_are_not_flow(tmp_path):
    """-999 and its kin become NaN; zero stays zero."""
    path = write(tmp_path / "g.csv", "date,q\n2001-01-01,-999\n2001-01-02,0\n2001-01-03,NA\n2001-01-04,2\n")
    np.testing.assert_array_equal(read_discharge(path), [np.nan, 0.0, np.nan, 2.0])


def test_caravan_needs_the_area_and_uses_it(tmp_path):
    """Caravan's streamflow is mm/day: 8.64 mm/day over 10 km2 is 1 m3/s, and no area is an error."""
    path = write(
        tmp_path / "c.csv", "date,total_precipitation_sum,streamflow\n2001-01-01,1,8.64\n2001-01-02,1,4.32\n"
    )
    with pytest.raises(ValueError, match="drainage_area_km2"):
        read_discharge(path)
    q = read_discharge(path, drainage_area_km2=10)
    np.testing.assert_allclose(q, [1.0, 0.5], rtol=1e-15)
    assert q.attrs["source_format"] == "caravan"


def test_caravan_netcdf_is_its_csv(tmp_path):
    """The netCDF of a gauge reads as its CSV does."""
    flow = np.array([8.64, np.nan, 4.32])
    days = pd.date_range("2001-01-01", periods=3, name="date")
    xr.Dataset({"streamflow": ("date", flow)}, {"date": days}).to_netcdf(tmp_path / "c.nc", engine="h5netcdf")
    np.testing.assert_allclose(
        read_discharge(tmp_path / "c.nc", drainage_area_km2=10), [1.0, np.nan, 0.5], rtol=1e-15
    )
    xr.Dataset({"q": ("date", flow)}, {"date": days}).to_netcdf(tmp_path / "d.nc", engine="h5netcdf")
    with pytest.raises(ValueError, match="streamflow"):
        read_discharge(tmp_path / "d.nc", drainage_area_km2=10)


def test_old_grdc_files_take_the_original_value(tmp_path):
    """Three value columns (Original; Calculated; Flag), latin-1 header, CRLF: the original value is read."""
    text = (
        "# GRDC-No.:              1234567\r\n# River:                 RÍO\r\n# Catchment area (km²):      0.0\r\n"
        "# Unit of measure:                  m³/s\r\n# DATA\r\nYYYY-MM-DD;hh:mm; Original; Calculated; Flag\r\n"
        "2001-01-01;--:--;      1.500;   -999.000;  -999\r\n2001-01-02;--:--;   -999.000;   -999.000;  -999\r\n"
        "2001-01-03;--:--;      2.500;   -999.000;  -999\r\n"
    )
    q = read_discharge(write(tmp_path / "g.txt", text, "latin-1"))
    np.testing.assert_array_equal(q, [1.5, np.nan, 2.5])
    assert q.attrs["station"] == "1234567" and np.isnan(q.attrs["drainage_area_km2"])
    bad = write(tmp_path / "h.txt", text.replace("m³/s", "mm"), "latin-1")
    with pytest.raises(ValueError, match="unit"):
        read_discharge(bad)


def test_day_month_order_is_found_or_asked_for(tmp_path):
    """31/1 and 1/31 tell day from month; 1/2 alone does not and must be said."""
    days = pd.date_range("2001-01-01", "2001-01-31")
    for form in ("%d/%m/%Y", "%m/%d/%y"):
        text = "date,q\n" + "".join(f"{d.strftime(form)},{d.day}\n" for d in days)
        np.testing.assert_array_equal(read_discharge(write(tmp_path / "g.csv", text)), days.day)
    path = write(tmp_path / "g.csv", "date,q\n01/02/2001,1\n02/02/2001,2\n")
    with pytest.raises(ValueError, match="date_format"):
        read_discharge(path)
    assert read_discharge(path, date_format="%d/%m/%Y").sizes["time"] == 2


# ---- Chinese yearbook and matrix ------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gbk"])
def test_yearbook_folder_in_both_encodings(tmp_path, encoding):
    """A folder of yearly tables, a leap year among them, joins to one series; footer rows are no data."""
    for year in (2003, 2004):
        write(tmp_path / f"{year}.csv", yearbook(year, lambda m, d: f"{m}.{d:02d}"), encoding)
    q = read_discharge(tmp_path)
    assert q.sizes["time"] == 731 and int(q.isnull().sum()) == 0
    assert float(q.sel(time="2004-02-29")) == 2.29 and float(q.sel(time="2003-12-31")) == 12.31
    assert q.attrs["drainage_area_km2"] == 4600.0 and q.attrs["station"] == "试验站"


def test_yearbook_text_cells(tmp_path):
    """河干 is zero flow, 连底冻 zero flow under ice, blank and - missing; marks of doubt keep the number."""
    special = {
        (1, 1): "河干",
        (1, 2): "连底冻",
        (1, 3): "-",
        (1, 4): "",
        (1, 5): "3.1冰",
        (1, 6): "4.2※",
        (1, 7): "冰",
    }
    path = write(tmp_path / "2003.csv", yearbook(2003, lambda m, d: special.get((m, d), "1.25")))
    q = read_discharge(path)
    np.testing.assert_array_equal(q[:8], [0, 0, np.nan, np.nan, 3.1, 4.2, np.nan, 1.25])
    np.testing.assert_array_equal(q.ice[:8], [False, True, False, False, True, False, True, False])


def test_yearbook_with_an_absent_year(tmp_path):
    """A year without a table is a year of NaN."""
    for year in (2001, 2003):
        write(tmp_path / f"{year}.csv", yearbook(year))
    q = read_discharge(tmp_path)
    assert int(q.sel(time="2002").isnull().sum()) == 365 and q.sizes["time"] == 3 * 365


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.replace("\n30,1.25,,", "\n30,1.25,9.9,"), "no day 30 in month 2"),
        (lambda t: t.replace("\n17,1.25", "\n17,abc"), "2003-1-17"),
        (lambda t: t.replace("\n17,", "\n16,"), "'16'"),
        (lambda t: t.replace("5月", "夏"), "twelve months"),
        (lambda t: "\n".join(line for line in t.splitlines() if not line.startswith("9,")), "30 of 31"),
    ],
)
def test_yearbook_errors_name_the_cell(tmp_path, change, message):
    """A value on a day that does not exist, an unknown mark or a lost row names file and place."""
    path = write(tmp_path / "2003.csv", change(yearbook(2003)))
    with pytest.raises(ValueError, match=message) as error:
        read_discharge(path, format="yearbook")
    assert "2003.csv" in str(error.value)


def test_two_stations_in_one_yearbook_folder(tmp_path):
    """Different areas in one folder are two stations, not one series."""
    write(tmp_path / "2003.csv", yearbook(2003))
    write(tmp_path / "2004.csv", yearbook(2004, header="集水面积 900 km2"))
    with pytest.raises(ValueError, match="two stations"):
        read_discharge(tmp_path)


def test_matrix_knows_leap_years(tmp_path):
    """Row 60 of a leap year is 29 February, of another year 1 March; a value on day 366 of 2001 is an error."""
    rows = [f"{d},{d},{d if d <= 365 else ''}" for d in range(1, 367)]
    path = write(tmp_path / "m.csv", ",2000,2001\n" + "\n".join(rows) + "\n")
    q = read_discharge(path)
    assert q.sizes["time"] == 731 and q.attrs["source_format"] == "matrix"
    assert float(q.sel(time="2000-02-29")) == 60 and float(q.sel(time="2001-03-01")) == 60
    assert float(q.sel(time="2000-12-31")) == 366
    write(path, ",2000,2001\n" + "\n".join(f"{d},{d},{d}" for d in range(1, 367)) + "\n")
    with pytest.raises(ValueError, match="2001 is no leap year"):
        read_discharge(path)


# ---- bad input ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("date,q\n2001-01-01,1\n2001-01-01,2\n", "2001-01-01 has 2 values"),
        ("date,q\n2001-01-01,1\n2001-01-02,-3\n", "neither a discharge nor a known missing mark"),
        ("date,q\n2001-01-01,-999\n2001-01-02,\n", "no value"),
        ("date,q\n2001-01-01,1\n2001-02-30,2\n", "date cannot be read"),
        ("date,q\n2001-01-01,1\n2001-01-02,broken\n", "'broken'"),
        ("date,q,flow\n2001-01-01,1,1\n2001-01-02,2,2\n", "2 columns may hold the discharge"),
        ("when,q\n2001-01-01,1\n", "0 columns may hold the date"),
        ("hello world\n", "not recognised"),
        ("", "empty"),
    ],
)
def test_bad_files_are_refused_by_name(tmp_path, text, message):
    """Every refusal names the file and what was found."""
    path = write(tmp_path / "gauge_7.csv", text)
    with pytest.raises(ValueError, match=message) as error:
        read_discharge(path)
    assert "gauge_7.csv" in str(error.value)


def test_equal_duplicates_are_merged(tmp_path):
    """The same day twice with the same value, or once missing, is one day."""
    path = write(tmp_path / "g.csv", "date,q\n2001-01-01,1\n2001-01-01,1\n2001-01-02,\n2001-01-02,5\n")
    np.testing.assert_array_equal(read_discharge(path), [1, 5])


def test_absent_files_and_unknown_names(tmp_path):
    """No file, no table in a folder, an unknown format or unit: each says so."""
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_discharge(tmp_path / "nowhere.csv")
    with pytest.raises(FileNotFoundError, match=r"\*\.csv"):
        read_discharge(tmp_path)
    path = write(tmp_path / "g.csv", "date,q\n2001-01-01,1\n")
    with pytest.raises(ValueError, match="format"):
        read_discharge(path, format="hydat")
    with pytest.raises(ValueError, match="unit"):
        read_discharge(path, units="gallons")
    with pytest.raises(ValueError, match="positive"):
        read_discharge(path, drainage_area_km2=0)


def test_usgs_text_is_missing_and_ice_is_marked(tmp_path):
    """Ice, Eqp and *** are no numbers; Ice also marks the day."""
    rows = [
        ("01", "10", "A"),
        ("02", "Ice", "A"),
        ("03", "Eqp", "P"),
        ("04", "***", "P"),
        ("05", "20", "A:e"),
    ]
    text = "# note\nagency_cd\tsite_no\tdatetime\t1_00060_00003\t1_00060_00003_cd\n5s\t15s\t20d\t14n\t10s\n"
    text += "".join(f"USGS\t0123\t2001-01-{d}\t{v}\t{c}\n" for d, v, c in rows)
    q = read_discharge(write(tmp_path / "g.rdb", text))
    np.testing.assert_allclose(q, [0.28316846592, np.nan, np.nan, np.nan, 0.56633693184], rtol=1e-15)
    np.testing.assert_array_equal(q.ice, [False, True, False, False, False])
    assert q.attrs["station"] == "0123"


# ---- real files -----------------------------------------------------------------------------------------


def test_real_grdc(mirror):
    """A GRDC file of the archive: station, area and -999 as missing, counted from the text itself."""
    path = mirror / "formats" / "GRDC_example.txt"
    values = [
        line.split(";")[2] for line in path.read_text("latin-1").splitlines() if line[:2] in ("19", "20")
    ]
    q = read_discharge(path)
    assert q.sizes["time"] == len(values)
    assert int(q.isnull().sum()) == sum(float(v) == -999 for v in values)
    assert q.attrs["station"] == "4203870" and q.attrs["drainage_area_km2"] == 1910.0


def test_real_usgs_and_wsc(mirror):
    """RDB and dataRetrieval files come in exact m3/s; WSC's two stations must be told apart, B is ice."""
    folder = mirror / "formats"
    last = (folder / "11475560_elder_creek.rdb").read_text().splitlines()[-1].split("\t")
    q = read_discharge(folder / "11475560_elder_creek.rdb")
    assert float(q[-1]) == pytest.approx(float(last[3]) * 0.028316846592, rel=1e-15)
    assert float(read_discharge(folder / "USGS_example.csv")[0]) == pytest.approx(
        1200 * 0.028316846592, rel=1e-15
    )
    two = folder / "wsc_daily_03NE011_03NE012.csv"
    with pytest.raises(ValueError, match="03NE011, 03NE012"):
        read_discharge(two)
    q = read_discharge(two, station="03NE011")
    assert float(q.sel(time="2003-07-15")) == 9.90 and q.ice.any() and not q.ice.sel(time="2003-07").any()


def test_real_matrix_equals_its_daily_form(mirror):
    """The day-of-year matrices of the Heihe gauges and their daily copies agree on every day."""
    for name in ("Qilian", "Zhamashike"):
        matrix = read_discharge(mirror / "heihe" / "raw" / f"{name}_runoff_00_14.csv")
        daily = read_discharge(mirror / "heihe" / f"{name}_daily_2000_2014.csv")
        np.testing.assert_array_equal(matrix, daily)
        assert (matrix.time == daily.time).all() and matrix.sizes["time"] == 5479


def test_real_kuparuk_in_two_units(mirror):
    """m3/day and m3/s files of the Kuparuk River are one record."""
    per_day = read_discharge(mirror / "kuparuk" / "dailyflow.csv", column="q_m3d")
    per_second = read_discharge(mirror / "kuparuk" / "kuparuk_m3s.csv")
    np.testing.assert_allclose(per_day, per_second, rtol=1e-5)


# ---- what a table says of itself is obeyed or refused ----------------------------------------------------

DAYS = ("2001-01-01", "2001-01-02", "2001-01-03")


def rows(*values, days=DAYS, end=""):
    """One line a day."""
    return "".join(
        f"{day},{','.join(map(str, v if isinstance(v, tuple) else (v,)))}{end}\n"
        for day, v in zip(days, values, strict=True)
    )


@pytest.mark.parametrize(
    ("text", "area", "expected"),
    [
        # 1 ft = 0.3048 m; 1 ML = 1000 m3; 1 l/s/km2 over 100 km2 = 0.1 m3/s
        (
            "time,value,unit_of_measure,qualifier\n" + rows(*[(20.2, "ft^3/s", "")] * 3),
            None,
            20.2 * 0.3048**3,
        ),
        ("date,releases_[ML]\n" + rows(175.33, 175.33, 175.33), None, 175.33e3 / 86400),
        ("date,q (l/s/km2)\n" + rows(10, 10, 10), 100, 1.0),
        ("date,Q_m3_per_day\n" + rows(86400, 86400, 86400), None, 1.0),
        ("date,discharge (m³ s⁻¹)\n" + rows(3, 3, 3), None, 3.0),
        ("date,streamflow\n" + rows(2, 2, 2), 5000, 2.0),
    ],
)
def test_stated_units_are_obeyed(tmp_path, text, area, expected):
    """A unit in a column, in the header or in brackets converts; two bare columns are m3/s, not Caravan's mm/day."""
    q = read_discharge(write(tmp_path / "g.csv", text), drainage_area_km2=area)
    np.testing.assert_allclose(q, expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("date,flow (gpm)\n" + rows(1, 2, 3), "gpm.*not known"),
        ("date,flow,unit\n" + rows((1, "furlong"), (2, "furlong"), (3, "furlong")), "furlong"),
        (
            "Parameter Type Name,Water Course Level\nUnit Name,meter\ndate,value\n" + rows(1, 2, 3),
            "Water Course Level.*no discharge",
        ),
        ("date,flow\n" + rows(999999, 1.2, 1.3), "999999 stands 1 times"),
        (
            "date,flow\n" + rows(1, 2, 3, days=("2001-01-15", "2001-02-14", "2001-03-15")) + "2001-04-15,2\n",
            "monthly",
        ),
        ("date,flow\n" + "".join(f"1/{d}/60,1\n" for d in range(1, 32)) + "1/1/30,1\n", "century"),
        ("date,flow\n2101-01-01,1\n", "future"),
        (
            "# GRDC-No.: 1\n# Unit of measure: m3/s\nYYYY-MM-DD;hh:mm; Value\n1979-01-00;--:--; 1.0\n",
            "monthly",
        ),
        ("ID,PARAM,TYPE,YEAR,DD,JAN,SYM\n01AA001,1,1,1990,1,2.0,\n", "Date column"),
        ("   \n", "empty"),
    ],
)
def test_what_is_no_daily_flow_is_refused(tmp_path, text, message):
    """An unknown unit, a water level, a fill value, months, days to come: each has its sentence."""
    with pytest.raises(ValueError, match=message):
        read_discharge(write(tmp_path / "g.csv", text))


def test_spreadsheet_leftovers_and_trailing_delimiters(tmp_path):
    """Empty rows and columns at the end, and one delimiter more than the header has, change nothing."""
    plain = "date,flow\n" + rows(1.5, 2.5, 3.5)
    expected = read_discharge(write(tmp_path / "a.csv", plain))
    for text in (
        plain + ",\n,\n",
        "date,flow,,\n" + rows(1.5, 2.5, 3.5, end=",,"),
        "date,flow\n" + rows(1.5, 2.5, 3.5, end=","),
    ):
        np.testing.assert_array_equal(read_discharge(write(tmp_path / "b.csv", text)), expected)
    matrix = "".join(f"{d},{d}\n" for d in range(1, 366)) + ",\n,\n"
    assert read_discharge(write(tmp_path / "m.csv", ",2001\n" + matrix)).sizes["time"] == 365
    with pytest.raises(ValueError, match="spreadsheet"):
        (tmp_path / "q.xlsx").write_bytes(b"PK\x03\x04" + bytes(50))
        read_discharge(tmp_path / "q.xlsx")


def test_years_of_two_digits(tmp_path):
    """1/1/60 to 12/31/75 is 1960 to 1975, not 1969 to 2068."""
    days = pd.date_range("1960-01-01", "1975-12-31")
    text = "date,q\n" + "".join(f"{d.month}/{d.day}/{d:%y},1\n" for d in days)
    q = read_discharge(write(tmp_path / "g.csv", text))
    assert q.time.values[0] == days.values[0] and q.sizes["time"] == len(days)


def test_levels_and_ice_symbols_of_a_tidy_table(tmp_path):
    """Rows of Level are left out, B marks ice."""
    text = "STATION_NUMBER,Date,Parameter,Value,Symbol\n" + "".join(
        f"08NM116,{day},{what},{value},{mark}\n"
        for day, flow, mark in zip(DAYS, (3.0, 2.0, 1.0), ("", "B", "B"), strict=True)
        for what, value in (("Flow", flow), ("Level", 90.0))
    )
    q = read_discharge(write(tmp_path / "g.csv", text))
    np.testing.assert_array_equal(q, [3, 2, 1])
    np.testing.assert_array_equal(q.ice, [False, True, True])
    assert q.attrs["station"] == "08NM116"


def test_camels_us(tmp_path):
    """GAGE yyyy mm dd flow flag, in cubic feet per second."""
    text = (
        "01013500 1980 01 01   655.00 A\n01013500 1980 01 02   640.00 A:e\n01013500 1980 01 03  -999.00 M\n"
    )
    q = read_discharge(write(tmp_path / "01013500_streamflow_qc.txt", text))
    np.testing.assert_allclose(q, np.array([655, 640, np.nan]) * 0.3048**3, rtol=1e-12)
    assert q.attrs["source_format"] == "camels_us" and q.attrs["station"] == "01013500"


def test_hours_are_averaged_on_request(tmp_path):
    """24 values a day are refused, or averaged with to_daily; a day of which a quarter is there is missing."""
    times = pd.date_range("2001-01-01", periods=54, freq="h")
    path = write(
        tmp_path / "g.csv",
        "datetime,flow\n" + "".join(f"{t:%Y-%m-%d %H:%M},{k}\n" for k, t in enumerate(times)),
    )
    with pytest.raises(ValueError, match="to_daily"):
        read_discharge(path)
    np.testing.assert_allclose(read_discharge(path, to_daily=True), [11.5, 35.5, np.nan])


def test_grdc_without_an_area_takes_no_other_line(tmp_path):
    """A blank catchment area is unknown, whatever stands on the next line."""
    text = (
        "# GRDC-No.: 1234567\n# Catchment area (km²):\n# Altitude (m ASL): 3300.0\n# Unit of measure: m3/s\n# DATA\n"
        "YYYY-MM-DD;hh:mm; Value\n2001-01-01;--:--; 1.0\n2001-01-02;--:--; 1.5\n"
    )
    assert np.isnan(read_discharge(write(tmp_path / "g.txt", text)).attrs["drainage_area_km2"])
