-- Rows at rest, in the server's store and in a client's cache. One file, one writer.
--
-- Rows keep the names and the order of the row on the wire (schemas/market_data.fbs), behind the three columns that
-- say whose row it is. A row is written once and never changed; (stream_id, sequence) is unique because the one writer
-- knows the sequences, not because an index checks it: a primary key made inserting seven times slower. Each
-- transaction is written stream by stream, in order of sequence, so that min/max per block is index enough.

CREATE TABLE candles (
    stream_id   UINTEGER NOT NULL,
    sequence    UBIGINT  NOT NULL,
    epoch       UINTEGER NOT NULL,
    ts_ms       BIGINT   NOT NULL,  -- open of the interval, epoch ms UTC
    open        DOUBLE   NOT NULL,
    high        DOUBLE   NOT NULL,
    low         DOUBLE   NOT NULL,
    close       DOUBLE   NOT NULL,
    volume      DOUBLE   NOT NULL,
    turnover    DOUBLE   NOT NULL,  -- sum of price x size
    trade_count UINTEGER NOT NULL,
    flags       UINTEGER NOT NULL   -- CandleFlag
);

CREATE TABLE trades (
    stream_id UINTEGER NOT NULL,
    sequence  UBIGINT  NOT NULL,
    epoch     UINTEGER NOT NULL,
    ts_ns     BIGINT   NOT NULL,    -- epoch ns UTC
    price     DOUBLE   NOT NULL,
    size      DOUBLE   NOT NULL,
    trade_id  UBIGINT  NOT NULL,
    flags     UINTEGER NOT NULL,    -- 1 buy aggressor, 2 sell aggressor
    reserved  UINTEGER NOT NULL
);

CREATE TABLE quotes (
    stream_id UINTEGER NOT NULL,
    sequence  UBIGINT  NOT NULL,
    epoch     UINTEGER NOT NULL,
    ts_ns     BIGINT   NOT NULL,    -- epoch ns UTC
    bid       DOUBLE   NOT NULL,
    ask       DOUBLE   NOT NULL,
    bid_size  DOUBLE   NOT NULL,
    ask_size  DOUBLE   NOT NULL
);
