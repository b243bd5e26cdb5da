"""Raw entries in, trips, sections and places out: pure functions, which the cloud's short-lived job runs."""
