"""Files of others in, this project's data model out: interferograms, discharge, climate, rasters."""
