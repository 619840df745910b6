// What flatc's C++ says of frames, for test_codec_differential.py: judge_codec FRAMES VERDICTS
//
//   FRAMES:   size u32, bytes, size u32, bytes, ...        (without the checksum that follows a version 2 FlatBuffer)
//   VERDICTS: accepted u8, CRC-32C u32 of what a row message says (0 for others), for each frame
//
// A CRC is over: schema_version u32, type_hint u8, tag u8, correlation_id, whether there is a key u8, its three names,
// start_sequence u64, then version 1: each candle's six fields; version 2: epoch u32, store_id u64, origin_ns i64,
// recorded_ns i64, stream_id u32, the rows. A string is its size u32 (FFFFFFFF for null) and its bytes.
#include <cstdint>
#include <cstdio>
#include <vector>

#include "market_data_generated.h"

extern "C" uint32_t flux_crc32c(uint32_t crc, const void *data, size_t size);

using namespace flux::schema;

namespace {

struct Sum {
    uint32_t crc = 0;
    template <typename T> void value(T v) { crc = flux_crc32c(crc, &v, sizeof v); }
    void text(const flatbuffers::String *s) {
        value<uint32_t>(s ? s->size() : UINT32_MAX);
        if (s) crc = flux_crc32c(crc, s->data(), s->size());
    }
    void key(const StreamKey *key) {
        value<uint8_t>(key != nullptr);
        for (const auto *name : {key ? key->source_id() : nullptr, key ? key->symbol() : nullptr,
                                 key ? key->interval() : nullptr}) {
            value<uint32_t>(name ? name->size() : 0); // a name that a key leaves out reads ""
            if (name) crc = flux_crc32c(crc, name->data(), name->size());
        }
    }
    void candles(const CandleBatch *batch) {
        key(batch->key());
        value<uint64_t>(batch->start_sequence());
        if (batch->candles())
            for (const Candle *c : *batch->candles()) {
                value<int64_t>(c->ts_ms());
                for (double v : {c->open(), c->high(), c->low(), c->close(), c->volume()}) value(v);
            }
    }
    template <typename Batch> void rows(const Batch *batch) {
        key(batch->key());
        value<uint64_t>(batch->start_sequence());
        value<uint32_t>(batch->epoch());
        value<uint64_t>(batch->store_id());
        value<int64_t>(batch->origin_ns());
        value<int64_t>(batch->recorded_ns());
        value<uint32_t>(batch->stream_id());
        if (batch->rows())
            for (const auto *row : *batch->rows()) crc = flux_crc32c(crc, row, sizeof *row);
    }
};

uint32_t said(const Envelope *envelope) {
    Sum sum;
    sum.value<uint32_t>(envelope->schema_version());
    sum.value<int8_t>(static_cast<int8_t>(envelope->type_hint()));
    sum.value<uint8_t>(envelope->message_type());
    sum.text(envelope->correlation_id());
    switch (envelope->message_type()) {
    case MessageBody_CandleBatch: sum.candles(envelope->message_as_CandleBatch()); break;
    case MessageBody_CandleRowBatch: sum.rows(envelope->message_as_CandleRowBatch()); break;
    case MessageBody_TradeRowBatch: sum.rows(envelope->message_as_TradeRowBatch()); break;
    case MessageBody_QuoteRowBatch: sum.rows(envelope->message_as_QuoteRowBatch()); break;
    default: return 0;
    }
    return sum.crc;
}

} // namespace

int main(int, char **argv) {
    FILE *in = std::fopen(argv[1], "rb"), *out = std::fopen(argv[2], "wb");
    uint32_t size;
    std::vector<uint64_t> room; // aligned, as C++ wants a buffer
    while (in && out && std::fread(&size, sizeof size, 1, in) == 1) {
        room.resize(size / 8 + 1);
        auto *frame = reinterpret_cast<uint8_t *>(room.data());
        if (std::fread(frame, 1, size, in) != size) return 1;
        flatbuffers::Verifier verifier(frame, size);
        uint8_t accepted = VerifyEnvelopeBuffer(verifier);
        const Envelope *envelope = accepted ? GetEnvelope(frame) : nullptr;
        uint32_t crc = envelope && envelope->message() ? said(envelope) : 0;
        std::fwrite(&accepted, 1, 1, out);
        std::fwrite(&crc, sizeof crc, 1, out);
    }
    return !in || !out || std::fclose(out);
}
