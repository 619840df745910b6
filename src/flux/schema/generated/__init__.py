"""Made by tools/gen_schema from schemas/market_data.fbs: do not edit."""

FLATC_VERSION = "2.0.8"
SCHEMA_SHA256 = "15e3ae3e4da1826bfde1c4ab6ba20180f8e3792437b7e7dd0c6b5c6b3a2d2f8d"
