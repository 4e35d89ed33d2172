"""Stands in for a receiver of audit events, answering as its public documentation says.

    sink_receiver.py webhook|splunk|otlp FOLDER

Listens on a free loopback port, which it writes to FOLDER/port. FOLDER/behaviour.json, read for every request, says what it does:
{"status": 503, "retry_after": "1", "body": {...}}   answers that to everything
{"poison": "text"}                                    refuses a batch (400) that contains the text
{"hold": true}                                        takes the batch and never answers
{"acks": false}                                       Splunk: the indexer does not acknowledge yet
What it took goes to FOLDER/accepted.ndjson, an event a line in the order of arrival; each request to FOLDER/requests.ndjson.
"""

import gzip
import hashlib
import hmac
import http.server
import json
import pathlib
import sys
import threading

KIND, FOLDER = sys.argv[1], pathlib.Path(sys.argv[2])
SECRET = b"webhook-s3cret"
TOKEN = "receiver-t0ken"
LOCK = threading.Lock()
ACKS = {}


def behaviour():
    try:
        return json.loads((FOLDER / "behaviour.json").read_text())
    except FileNotFoundError:
        return {}


def append(name, values):
    with open(FOLDER / name, "a", encoding="utf-8") as file:
        file.writelines(json.dumps(value) + "\n" for value in values)


def value_of(any_value):
    """An OTLP AnyValue as the JSON it was made from."""
    kind = any_value.WhichOneof("value")
    if kind is None:
        return None
    value = getattr(any_value, kind)
    if kind == "array_value":
        return [value_of(item) for item in value.values]
    if kind == "kvlist_value":
        return {pair.key: value_of(pair.value) for pair in value.values}
    return value


def otlp_events(body):
    from google.protobuf import json_format
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

    request = json_format.Parse(body, ExportLogsServiceRequest())
    events = []
    for resource in request.resource_logs:
        names = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
        assert names["service.name"] == "lockgate", names
        for scope in resource.scope_logs:
            for record in scope.log_records:
                event = value_of(record.body)
                uid = {pair.key: pair.value.string_value for pair in record.attributes}["log.record.uid"]
                assert uid == event["metadata"]["uid"], uid
                assert record.time_unix_nano // 1_000_000 == event["time"], uid
                assert record.severity_number > 0 and record.event_name.startswith("lockgate."), uid
                events.append(event)
    return events


def splunk_events(body):
    events, decoder, text = [], json.JSONDecoder(), body.decode().strip()
    while text:
        outer, end = decoder.raw_decode(text)
        assert outer["sourcetype"] == "lockgate:ocsf" and outer["index"] == "audit", outer
        assert abs(outer["time"] * 1000 - outer["event"]["time"]) < 2, outer["time"]
        events.append(outer["event"])
        text = text[end:].lstrip()
    return events


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        with LOCK:
            self.handle_post(body, behaviour())

    def handle_post(self, body, wanted):
        if KIND == "splunk" and self.path.startswith("/services/collector/ack?channel="):
            channel = self.path.split("=")[1]
            acks = {str(id): ACKS.get((channel, id), False) and wanted.get("acks", True) for id in json.loads(body)["acks"]}
            return self.answer(200, {"acks": acks}, 0, wanted)
        if "status" in wanted:
            return self.answer(wanted["status"], wanted.get("body", {}), 0, wanted)
        scheme = "Splunk" if KIND == "splunk" else "Bearer"
        if self.headers["Authorization"] != f"{scheme} {TOKEN}":
            return self.answer(401, {"text": "Invalid authorization", "code": 3}, 0, wanted)
        if wanted.get("poison", "\0").encode() in body:
            return self.answer(400, {"text": "Invalid data format", "code": 6, "invalid-event-number": 0}, 0, wanted)
        events = {"webhook": json.loads, "splunk": splunk_events, "otlp": otlp_events}[KIND](body)
        append("accepted.ndjson", events)
        if wanted.get("hold"):
            append("requests.ndjson", [{"status": 0, "events": len(events)}])
            self.rfile.read(1)  # until the other side is gone
            self.close_connection = True
            return
        answer = {}
        if KIND == "splunk":
            channel = self.headers["X-Splunk-Request-Channel"]
            id = len(ACKS)
            ACKS[channel, id] = True
            answer = {"text": "Success", "code": 0, "ackId": id}
        self.answer(200, answer, len(events), wanted, self.signed(body))

    def signed(self, body):
        """Is the webhook's signature right? None: there is none."""
        header = self.headers.get("X-Lockgate-Signature")
        if header is None:
            return None
        time, signature = (part.split("=")[1] for part in header.split(","))
        return hmac.compare_digest(hmac.new(SECRET, time.encode() + b"." + body, hashlib.sha256).hexdigest(), signature)

    def answer(self, status, value, events, wanted, signed=None):
        append("requests.ndjson", [{"status": status, "events": events, "signed": signed, "path": self.path.split("?")[0]}])
        text = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.send_header("Content-Type", "application/json")
        if "retry_after" in wanted:
            self.send_header("Retry-After", wanted["retry_after"])
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
server.daemon_threads = True
(FOLDER / "port.tmp").write_text(str(server.server_port))
(FOLDER / "port.tmp").rename(FOLDER / "port")
server.serve_forever()
