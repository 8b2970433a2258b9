"""Which random numbers belong to what: one stream per purpose, so that no two share their draws."""
