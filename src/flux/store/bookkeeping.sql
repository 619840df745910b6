-- What the server's store keeps beside the rows of tables.sql.

-- Who a stream_id is; given once, never reused.
CREATE TABLE streams (
    stream_id UINTEGER NOT NULL,
    source_id VARCHAR  NOT NULL,
    symbol    VARCHAR  NOT NULL,
    interval  VARCHAR  NOT NULL
);

-- First and last sequence here and the highest time seen, apart from the rows: opening costs the same however many
-- rows there are, and a row that goes away resets nothing.
CREATE TABLE heads (
    stream_id      UINTEGER NOT NULL,
    first_sequence UBIGINT  NOT NULL,
    last_sequence  UBIGINT  NOT NULL,
    latest_ts      BIGINT   NOT NULL  -- ts_ms of candles, ts_ns of trades and quotes
);

-- How far in the journal these tables are; moves in the transaction that brings the rows. No row: nothing yet.
CREATE TABLE position (
    file     UBIGINT NOT NULL,
    "offset" UBIGINT NOT NULL
);

CREATE TABLE meta (
    format_version UINTEGER NOT NULL,
    store_id       UBIGINT  NOT NULL
);
