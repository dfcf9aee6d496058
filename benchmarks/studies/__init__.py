"""One-off studies behind the READMEs' figures, and the tables made of them: run from a clone, in no wheel."""
