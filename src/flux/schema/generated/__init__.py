"""Made by tools/gen_schema from schemas/market_data.fbs: do not edit."""

FLATC_VERSION = "2.0.8"
SCHEMA_SHA256 = "ec27d387488a4b2e7ad0255ca8d421712a77dbe54664d05c018c468564515a41"
