"""A server that plays AWS with moto, writes down what it is asked, and has no spot machine left when told so.

Usage: recording_moto.py FOLDER. It writes its address to FOLDER/address and a line of JSON for each request to
FOLDER/requests; while FOLDER/no-spot exists, launches of spot machines fail as AWS's do.
"""

import json
import re
import sys
import urllib.parse
from collections.abc import Callable, Iterable
from io import BytesIO
from pathlib import Path
from typing import Any

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

NO_CAPACITY = (
    b"<?xml version='1.0'?><Response><Errors><Error><Code>InsufficientInstanceCapacity</Code>"
    b"<Message>There is no Spot capacity available that matches your request.</Message></Error></Errors>"
    b"<RequestID>0</RequestID></Response>"
)


class RecordingMoto:
    """A WSGI application around moto's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.moto = DomainDispatcherApplication(create_backend_app)

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = BytesIO(body)
        parameters = dict(urllib.parse.parse_qsl(body.decode(errors="replace")))
        # Credential=<key>/<date>/<region>/<service>/aws4_request
        signed = re.search(r"Credential=[^/]+/[^/]+/[^/]+/(\w+)/", environ.get("HTTP_AUTHORIZATION", ""))
        action = parameters.pop("Action", environ["REQUEST_METHOD"])
        record = {"service": signed[1] if signed else "", "action": action, "parameters": parameters}
        with (self.folder / "requests").open("a") as file:
            file.write(json.dumps(record) + "\n")
        if parameters.get("InstanceMarketOptions.MarketType") == "spot" and (self.folder / "no-spot").exists():
            start_response("500 Internal Server Error", [("Content-Type", "text/xml")])
            return [NO_CAPACITY]
        return self.moto(environ, start_response)


if __name__ == "__main__":
    place = Path(sys.argv[1])
    server = make_server("127.0.0.1", 0, RecordingMoto(place), threaded=True)
    (place / "address.part").write_text(f"http://127.0.0.1:{server.server_port}")
    (place / "address.part").rename(place / "address")
    server.serve_forever()
