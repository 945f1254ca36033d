"""Counts its visitors. Redis may start later than this, or be away for a moment: a visit waits for it."""

import os
import time

import flask
import redis

app = flask.Flask(__name__)
store = redis.Redis(host=os.environ.get("REDIS_HOST", "redis"), socket_connect_timeout=2)


@app.get("/")
def visit():
    tries = 20
    while True:
        try:
            return f"Hello! You are visitor number {store.incr('visits')}.\n"
        except redis.exceptions.ConnectionError:
            tries -= 1
            if tries == 0:
                raise
            time.sleep(0.25)


app.run(host="0.0.0.0", port=5000)
