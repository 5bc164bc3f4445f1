"""Rows of `Work.register`: one number per lane each, by name."""

(
    SCALE,  # factor on the weights
    COUNT,  # pairs with data
    SQUARE,  # sum of squared residuals, mm2
    COSINE,  # sums of the residual phasors
    SINE,
    WEIGHTED,  # weight times displacement of the pair at hand
    UNIT,  # unit variance
    FACTOR,  # entry of the factor at hand
    FREE,  # rate without the prior
    FREE_STD,
    WEIGHT,  # weight of the prior
    CONFLICT,  # prior minus free rate, in standard deviations
    VALUE,  # displacement of the date at hand
    VARIANCE,  # its variance
    PART,  # one term of the variance
    NO_DATA,  # NaN where a pixel has no data, else 0
    UNFITTED,  # NaN where the model is not determined, else 0
    UNKNOWN,  # NaN where no variance can be propagated, else 0
    N_REGISTERS,
) = range(19)
