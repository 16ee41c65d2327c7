"""kNN votes, their calibration, and judgement when not to trust them."""
