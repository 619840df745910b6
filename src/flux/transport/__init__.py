"""How frames travel: topics, sockets, requests and the door of the pump.

Only `sockets.py`, `keys.py` and `pump.py` import zmq; everything above works with what they hand out.
"""
