"""Compiled loops of the recession analysis: runs, derivatives, per-event lines.

All kernels take flat float64 arrays; events lie one after another, event k in rows
``first[k]:first[k + 1]``.  Time is in days.
"""

import numpy as np
from numba import njit

RISE, BLOCKED, RECORD_END, STEEP = 0, 1, 2, 3


@njit(cache=True)
def rounding_steps(q):
    """Smallest step between the different values of each decade of flow; 0 where steps are no multiples of it."""
    decade = np.full(q.size, -1000, np.int64)
    positive = 0
    for i in range(q.size):
        if q[i] > 0.0 and np.isfinite(q[i]):
            decade[i] = int(np.floor(np.log10(q[i]) + 1e-9))
            positive += 1
    values = np.sort(q[decade > -1000])
    out = np.zeros(q.size)
    steps = np.zeros(700)
    step = 0.0
    i = 0
    while i < positive:
        d = int(np.floor(np.log10(values[i]) + 1e-9))
        unit = 10.0**d
        j = i
        distinct = 1
        least = np.inf
        while j + 1 < positive and int(np.floor(np.log10(values[j + 1]) + 1e-9)) == d:
            gap = values[j + 1] - values[j]
            # a margin, because unit conversion turns equal values into nearly equal ones
            if gap > 1e-9 * unit:
                distinct += 1
                least = min(least, gap)
            j += 1
        if distinct >= 10:
            step = least
            for m in range(i, j):
                count = (values[m + 1] - values[m]) / least
                if abs(count - np.round(count)) > 1e-3:
                    step = 0.0
                    break
        steps[d + 350] = step
        i = j + 1
    for i in range(q.size):
        if decade[i] > -1000:
            out[i] = steps[decade[i] + 350]
    return out


@njit(cache=True)
def find_runs(level, flow, usable, tolerance, step_ratio):
    """Falling runs of ``level`` (first day, last day, why it ended).

    With tolerance 0 each day must lie below the one before.  Otherwise a day may stand up to
    ``tolerance`` (a fraction) above the lowest so far, and the run ends at that lowest day: a slow
    steady rise is therefore never taken for a recession.
    """
    n = level.size
    first = np.empty(n, np.int64)
    last = np.empty(n, np.int64)
    why = np.empty(n, np.int64)
    count = 0
    i = 0
    while i < n - 1:
        if not (
            usable[i] and usable[i + 1] and level[i + 1] < level[i] and flow[i + 1] >= step_ratio * flow[i]
        ):
            i += 1
            continue
        j = i
        low = i
        reason = RECORD_END
        while j + 1 < n:
            if not usable[j + 1]:
                reason = BLOCKED
                break
            if tolerance == 0.0:
                falls = level[j + 1] < level[j]
            else:
                falls = level[j + 1] <= (1.0 + tolerance) * level[low]
            if not falls:
                reason = RISE
                break
            if flow[j + 1] < step_ratio * flow[j]:
                reason = STEEP
                break
            j += 1
            if level[j] < level[low]:
                low = j
        first[count] = i
        last[count] = low
        why[count] = reason
        count += 1
        i = j if j > i else i + 1
    return first[:count], last[:count], why[:count]


@njit(cache=True)
def _trim(flow, first, last, rule, days):
    """Put the days of a run that the rule leaves into ``days``; their number."""
    skip = rule.drop_first_days
    if rule.drop_first_days_high >= 0 and flow[first] > rule.high_flow:
        skip = rule.drop_first_days_high
    skip = max(skip, int(rule.drop_first_fraction * (last - first + 1)))
    n = 0
    for i in range(first + skip, last + 1 - rule.drop_last_days):
        steepens = i >= first + 2 and flow[i - 1] - flow[i] > flow[i - 2] - flow[i - 1]
        if not (rule.drop_steepening and steepens):
            days[n] = i
            n += 1
    return n


@njit(cache=True)
def _refusal(flow, step, winter, days, rule):
    """Why the days left of a run are no event (the order of `events.REASONS`), or 0."""
    if days.size == 0:
        return 4
    top, bottom, coarse = 0.0, np.inf, 0.0
    for i in days:
        top, bottom, coarse = max(top, flow[i]), min(bottom, flow[i]), max(coarse, step[i])
    if winter[days[0]] and days.size < rule.min_days_winter:
        return 6
    if days.size < rule.min_days and not (winter[days[0]] and rule.min_days_winter >= 0):
        return 5
    if top < rule.min_range * bottom:
        return 7
    # the whole drop, not each day's: choosing days by their drop is choosing by what is to be explained
    if top - bottom < rule.min_drop_quanta * coarse * (1 - 1e-9):
        return 8
    return 0


@njit(cache=True)
def select(flow, step, winter, runs, rule):
    """Trim each run (first day, last day, why it ended) by its rule and say why it is refused (0: kept).

    ``rule`` is the numbers of a rule set (`events.Limits`).  Returns the days kept, the event of each, and
    the reason by run (the order of `events.REASONS`).
    """
    first, last, why = runs
    reasons = np.zeros(first.size, np.int64)
    rows = np.empty(flow.size, np.int64)
    number = np.empty(flow.size, np.int64)
    days = np.empty(flow.size, np.int64)
    count = 0
    event = 0
    for k in range(first.size):
        if rule.drop_open and first[k] == 0:
            reasons[k] = 1
        elif rule.drop_open and why[k] == RECORD_END:
            reasons[k] = 2
        elif last[k] - first[k] + 1 < rule.min_run_days:
            reasons[k] = 3
        else:
            n = _trim(flow, first[k], last[k], rule, days)
            reasons[k] = _refusal(flow, step, winter, days[:n], rule)
        if reasons[k] == 0:
            rows[count : count + n] = days[:n]
            number[count : count + n] = event
            count += n
            event += 1
    return rows[:count], number[:count], reasons


@njit(cache=True)
def differences(t, q, first, scheme):
    """Brutsaert-Nieber (0), backward (1) or central (2) differences; NaN where a neighbour day is absent.

    dQ/dt = Q[i+1] - Q[i] at (Q[i] + Q[i+1]) / 2; Q[i] - Q[i-1] at Q[i]; (Q[i+1] - Q[i-1]) / 2 at Q[i].
    """
    q_mid = np.full(q.size, np.nan)
    dqdt = np.full(q.size, np.nan)
    opens = np.zeros(q.size + 1, np.bool_)  # no day before belongs to the same event
    opens[first] = True
    for i in range(q.size):
        before = not opens[i] and abs(t[i] - t[i - 1] - 1.0) < 1e-6
        after = not opens[i + 1] and abs(t[i + 1] - t[i] - 1.0) < 1e-6
        if scheme == 0 and after:
            dqdt[i] = q[i + 1] - q[i]
            q_mid[i] = 0.5 * (q[i + 1] + q[i])
        elif scheme == 1 and before:
            dqdt[i] = q[i] - q[i - 1]
            q_mid[i] = q[i]
        elif scheme == 2 and before and after:
            dqdt[i] = 0.5 * (q[i + 1] - q[i - 1])
            q_mid[i] = q[i]
    return q_mid, dqdt


@njit(cache=True)
def variable_steps(t, q, first, least_drop):
    """Step back from each day until the drop reaches ``least_drop`` there; mean flow of the days crossed."""
    q_mid = np.full(q.size, np.nan)
    dqdt = np.full(q.size, np.nan)
    for k in range(first.size - 1):
        for j in range(first[k] + 1, first[k + 1]):
            total = q[j]
            for i in range(j - 1, first[k] - 1, -1):
                total += q[i]
                drop = q[i] - q[j]
                if drop > 0.0 and drop >= least_drop[j]:
                    dqdt[j] = -drop / (t[j] - t[i])
                    q_mid[j] = total / (j - i + 1)
                    break
    return q_mid, dqdt


@njit(cache=True)
def _decay_cost(rate, y):
    """Squared misfit of y = c1 exp(-rate t) + c3 with the best c1, c3 (t = 1 .. n)."""
    n = y.size
    se = see = sy = sye = syy = 0.0
    ratio = np.exp(-rate)
    e = 1.0
    for i in range(n):
        e *= ratio
        se += e
        see += e * e
        sy += y[i]
        sye += y[i] * e
        syy += y[i] * y[i]
    # with e_i = exp(-rate i) the best c1 = S_ye / S_ee, and what is left is S_yy - S_ye^2 / S_ee
    vee = see - se * se / n
    vye = sye - sy * se / n
    vyy = syy - sy * sy / n
    if vee <= 0.0:
        return vyy
    return vyy - vye * vye / vee


@njit(cache=True)
def decay_rate(q, semilog):
    """Decay rate (1/step) of one event: log-linear through its first day, or an exponential plus a constant."""
    n = q.size
    if semilog:
        above = below = 0.0
        for i in range(1, n):
            if q[i] > 0.0:
                above += i * np.log(q[i] / q[0])
                below += i * i
        return max(-above / below, 1e-9) if below > 0.0 else 1e-9
    y = q / q.max()
    # coarse grid in log rate, then golden section: the cost is smooth but may be flat at either end
    low, high, steps = np.log(1e-3), np.log(10.0), 24
    best, best_cost = low, np.inf
    for s in range(steps + 1):
        x = low + (high - low) * s / steps
        cost = _decay_cost(np.exp(x), y)
        if cost < best_cost:
            best, best_cost = x, cost
    width = (high - low) / steps
    a, b = best - width, best + width
    g = 0.6180339887498949
    c, d = b - g * (b - a), a + g * (b - a)
    fc, fd = _decay_cost(np.exp(c), y), _decay_cost(np.exp(d), y)
    for _ in range(25):
        if fc < fd:
            b, d, fd = d, c, fc
            c = b - g * (b - a)
            fc = _decay_cost(np.exp(c), y)
        else:
            a, c, fc = c, d, fd
            d = a + g * (b - a)
            fd = _decay_cost(np.exp(d), y)
    return np.exp(0.5 * (a + b))


@njit(cache=True)
def exponential_steps(t, q, first, fraction, semilog):
    """Local straight lines over windows that lengthen along the event: mean flow, slope and R2."""
    q_mid = np.full(q.size, np.nan)
    dqdt = np.full(q.size, np.nan)
    r2 = np.full(q.size, np.nan)
    for k in range(first.size - 1):
        n = first[k + 1] - first[k]
        if n < 3:
            continue
        gamma = decay_rate(q[first[k] : first[k + 1]], semilog)
        for i in range(n):
            # window of m = 1 + ceil(fraction N exp(-1 / (gamma t))) days from day t = i + 1 (Roques et al. 2017)
            m = 1 + int(np.ceil(fraction * n * np.exp(-1.0 / (gamma * (i + 1)))))
            if i + m >= n:
                break
            a = first[k] + i
            st = sq = 0.0
            for j in range(a, a + m + 1):
                st += t[j]
                sq += q[j]
            st /= m + 1
            sq /= m + 1
            stt = stq = sqq = 0.0
            for j in range(a, a + m + 1):
                stt += (t[j] - st) ** 2
                stq += (t[j] - st) * (q[j] - sq)
                sqq += (q[j] - sq) ** 2
            # least squares over the window: dQ/dt = S_tQ / S_tt at the mean flow, R2 = S_tQ^2 / (S_tt S_QQ)
            q_mid[a] = sq
            dqdt[a] = stq / stt
            r2[a] = stq * stq / (stt * sqq) if sqq > 0.0 else 0.0
    return q_mid, dqdt, r2


@njit(cache=True)
def log_lines(q_mid, dqdt, weight, first):
    """Per event the weighted line ln(-dQ/dt) = intercept + b (ln q - center).

    Returns rows (intercept, b, center, intercept_std, b_std, n, smallest q, largest q); center is the
    weighted mean of ln q, where intercept and b are uncorrelated.
    """
    out = np.full((first.size - 1, 8), np.nan)
    for k in range(first.size - 1):
        n = 0
        sw = sx = sy = 0.0
        low, high = np.inf, 0.0
        for i in range(first[k], first[k + 1]):
            if dqdt[i] < 0.0 and q_mid[i] > 0.0 and weight[i] > 0.0:
                n += 1
                sw += weight[i]
                sx += weight[i] * np.log(q_mid[i])
                sy += weight[i] * np.log(-dqdt[i])
                low = min(low, q_mid[i])
                high = max(high, q_mid[i])
        out[k, 5] = n
        if n < 2:
            continue
        sx /= sw
        sy /= sw
        sxx = sxy = syy = 0.0
        for i in range(first[k], first[k + 1]):
            if dqdt[i] < 0.0 and q_mid[i] > 0.0 and weight[i] > 0.0:
                dx = np.log(q_mid[i]) - sx
                dy = np.log(-dqdt[i]) - sy
                sxx += weight[i] * dx * dx
                sxy += weight[i] * dx * dy
                syy += weight[i] * dy * dy
        out[k, 6] = low
        out[k, 7] = high
        if not sxx > 1e-12 * sw:
            continue
        # b = S_xy / S_xx with x = ln Q, y = ln(-dQ/dt); s^2 = (S_yy - b S_xy) / (n - 2)
        b = sxy / sxx
        out[k, 0] = sy
        out[k, 1] = b
        out[k, 2] = sx
        if n > 2:
            s2 = max(syy - b * sxy, 0.0) / (n - 2)
            out[k, 3] = np.sqrt(s2 / sw)
            out[k, 4] = np.sqrt(s2 / sxx)
    return out


@njit(cache=True)
def theil_sen_lines(lines, q_mid, dqdt, weight, first):
    """The lines of `log_lines` with the median of all pairs' slopes, and the level of the median residual."""
    out = lines.copy()
    for k in range(first.size - 1):
        if lines[k, 5] < 2 or not np.isfinite(lines[k, 1]):
            continue
        rows = np.arange(first[k], first[k + 1])
        rows = rows[(dqdt[rows] < 0.0) & (q_mid[rows] > 0.0) & (weight[rows] > 0.0)]
        x = np.log(q_mid[rows]) - lines[k, 2]
        y = np.log(-dqdt[rows]) - lines[k, 0]
        slopes = np.empty(x.size * (x.size - 1) // 2)
        m = 0
        for i in range(x.size):
            for j in range(i + 1, x.size):
                if x[i] != x[j]:
                    slopes[m] = (y[i] - y[j]) / (x[i] - x[j])
                    m += 1
        out[k, 1] = np.median(slopes[:m])
        out[k, 0] = lines[k, 0] + np.median(y - out[k, 1] * x)
    return out
