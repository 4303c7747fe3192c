"""The whole loop in minutes, on generated headlines: served, drifting, watched, replaced."""
