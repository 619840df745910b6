from flux import codec as codec
from flux import errors as errors
from flux import indicator as indicator
from flux import limits as limits
from flux import model as model
from flux import testing as testing
from flux import window as window
from flux.batch import Batch as Batch
from flux.batch import Candles as Candles
from flux.batch import Quotes as Quotes
from flux.batch import Trades as Trades
from flux.client.historical import Historical as Historical
from flux.client.live import Live as Live
from flux.errors import FluxError as FluxError
from flux.feed.push import Feed as Feed
from flux.model import CANDLE as CANDLE
from flux.model import QUOTE as QUOTE
from flux.model import TRADE as TRADE
from flux.model import CandleFlag as CandleFlag
from flux.model import Cursor as Cursor
from flux.model import Gap as Gap
from flux.model import StreamKey as StreamKey
from flux.model import TradeFlag as TradeFlag
from flux.ring import Ring as Ring
from flux.window import Window as Window
from flux.window import resample as resample

__version__: str
