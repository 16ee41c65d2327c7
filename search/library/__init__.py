"""Collections on disk: shards, versions, catalogue, reviews, jobs."""
