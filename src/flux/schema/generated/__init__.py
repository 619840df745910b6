"""Made by tools/gen_schema from schemas/market_data.fbs: do not edit."""

FLATC_VERSION = "2.0.8"
SCHEMA_SHA256 = "fd66391a958251ca59e6ddfc80b30ececf2df6a834b9a116789726a4f4f9e0a8"
