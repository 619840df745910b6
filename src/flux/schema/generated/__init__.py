"""Made by tools/gen_schema from schemas/market_data.fbs: do not edit."""

FLATC_VERSION = "2.0.8"
SCHEMA_SHA256 = "5b1afd027077acd98a9eb912b93946745a4fdf66c2e9ccef7d39df12f6a94b35"
