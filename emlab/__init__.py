"""emlab: a laboratory for individual user clouds."""
