"""Topics: v2 topics are prefix-free, and no v1 client is handed another stream's rows."""

from itertools import permutations

from hypothesis import given
from hypothesis import strategies as st

from flux.limits import MAX_TOPIC_BYTES
from flux.model import INTERVALS_MS, ROW_INTERVALS, StreamKey
from flux.transport.topics import BEAT, V1Topics, stream_topic, v1_shadowed, v1_topic, v2_prefix, v2_topic

KEY = StreamKey("SIM", "BTCUSDT", "1m")

sources = st.from_regex(r"[A-Za-z0-9_-]{1,32}", fullmatch=True)
symbols = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=64).filter(
    lambda text: text == text.strip(" ")
)
keys = st.builds(StreamKey, sources, symbols, st.sampled_from([*INTERVALS_MS, *ROW_INTERVALS]))
# Few letters, so that one topic often begins another.
close_keys = st.builds(
    StreamKey,
    st.sampled_from(["A", "AB"]),
    st.from_regex(r"(B|C)(\.(1m|1M|1mB|B|C)){0,3}", fullmatch=True),
    st.sampled_from(["1m", "1M", "trade"]),
)


def test_the_topics_are_those_of_the_wire() -> None:
    assert v1_topic(KEY) == b"candles.SIM.BTCUSDT.1m"
    assert v2_topic("candles", KEY) == b"v2\x1fcandles\x1fSIM\x1f1m\x1fBTCUSDT\x1f"
    assert v2_topic("forming", KEY) == b"v2\x1fforming\x1fSIM\x1f1m\x1fBTCUSDT\x1f"
    assert stream_topic(KEY) == v2_topic("candles", KEY)
    assert stream_topic(KEY._replace(interval="trade")) == b"v2\x1ftrades\x1fSIM\x1ftrade\x1fBTCUSDT\x1f"
    assert stream_topic(KEY._replace(interval="quote")) == b"v2\x1fquotes\x1fSIM\x1fquote\x1fBTCUSDT\x1f"
    assert BEAT == b"v2\x1fbeat\x1f"


def test_a_prefix_takes_a_kind_a_source_or_an_interval() -> None:
    assert v2_prefix("candles") == b"v2\x1fcandles\x1f"
    assert v2_prefix("candles", "SIM") == b"v2\x1fcandles\x1fSIM\x1f"
    assert v2_prefix("candles", "SIM", "1m") == b"v2\x1fcandles\x1fSIM\x1f1m\x1f"
    assert v2_topic("candles", KEY).startswith(v2_prefix("candles", "SIM", "1m"))
    assert not v2_topic("candles", KEY).startswith(v2_prefix("candles", "SI"))


@given(keys, keys)
def test_no_v2_topic_begins_another_and_no_v1_subscription_matches(one: StreamKey, other: StreamKey) -> None:
    mine, theirs = stream_topic(one), stream_topic(other)
    assert mine.startswith(theirs) == (one == other)
    assert not mine.startswith(v1_topic(other))
    assert not mine.startswith(b"candles")
    assert len(mine) <= MAX_TOPIC_BYTES
    assert len(v1_topic(one)) <= MAX_TOPIC_BYTES


def test_a_stream_behind_a_shorter_topic_is_kept_off_v1() -> None:
    short, long = StreamKey("A", "B", "1m"), StreamKey("A", "B.1m", "1m")
    assert v1_shadowed([long, short]) == {long: short}
    glued = StreamKey("A", "B.1mX", "5m")
    assert v1_shadowed([glued, short]) == {glued: short}
    assert v1_shadowed([long, glued]) == {}


def test_trades_and_quotes_are_never_in_the_way() -> None:
    assert v1_shadowed([StreamKey("A", "B", "trade"), StreamKey("A", "B.trade", "1m")]) == {}


@given(st.lists(close_keys, max_size=8, unique=True))
def test_no_published_v1_topic_begins_with_another_streams_topic(some: list[StreamKey]) -> None:
    shadowed = v1_shadowed(some)
    candles = [key for key in some if key.interval != "trade"]
    expected = {
        key
        for key in candles
        if any(v1_topic(key).startswith(v1_topic(other)) for other in candles if other != key)
    }
    assert set(shadowed) == expected


def test_streams_may_come_in_any_order() -> None:
    some = [StreamKey("A", symbol, "1m") for symbol in ("B", "B.1m", "B.1m.1m", "C")]
    for order in permutations(some):
        topics = V1Topics()
        told = [key for key in order for key in topics.add(key)]
        assert sorted(told) == some[1:3], "each stream that goes off v1 is told once"
        assert set(topics.shadowed) == set(some[1:3])
        assert topics.add(some[0]) == [], "a stream taken twice changes nothing"
