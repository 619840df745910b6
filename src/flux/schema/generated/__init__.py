"""Made by tools/gen_schema from schemas/market_data.fbs: do not edit."""

FLATC_VERSION = "2.0.8"
SCHEMA_SHA256 = "4dd09aebf8f2cda5aa03d085662f5afb5f62328b33fea83eae983bebcb3e929f"
