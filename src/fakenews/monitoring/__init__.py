"""A served model is watched: drift of what it is asked, decay of what it answers, alarms."""
