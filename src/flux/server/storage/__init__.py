"""The data directory: whose it is, how a start finds it, how it is mended, and the database filled from it."""
