"""The client's side: `Live` follows streams and misses nothing, `Historical` gets the same rows by
request.
"""
