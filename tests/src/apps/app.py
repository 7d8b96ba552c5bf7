# A small application for gunicorn. The file `mode` says how it behaves.
import os
import time

DIRECTORY = os.path.dirname(os.path.abspath(__file__))


def app(environ, start_response):
    with open(os.path.join(DIRECTORY, "mode")) as file:
        mode = file.read()
    if mode == "slow":
        time.sleep(1)
    if mode == "broken":
        raise RuntimeError("no connection to the database")
    body = b"starting\n" if mode == "starting" else b"ready\n"
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
