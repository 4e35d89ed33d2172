"""An S3 server (moto) that keeps what it has while it is away: one command a line on standard input, one JSON answer each.

start   listen (again)         stop   refuse connections
keys    names of all objects   get NAME   the object, base64
"""

import base64
import json
import sys

import boto3
from moto.server import ThreadedMotoServer

port = int(sys.argv[1])
bucket = sys.argv[2]
server = None


def client():
    return boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}", region_name="us-east-1",
                        aws_access_key_id="test", aws_secret_access_key="test")


def start():
    global server
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    server.start()


def keys():
    pages = client().get_paginator("list_objects_v2").paginate(Bucket=bucket)
    return [item["Key"] for page in pages for item in page.get("Contents", [])]


start()
client().create_bucket(Bucket=bucket)
print(json.dumps("ready"), flush=True)
for line in sys.stdin:
    word, _, name = line.strip().partition(" ")
    if word == "start":
        start()
        answer = "started"
    elif word == "stop":
        server.stop()
        answer = "stopped"
    elif word == "keys":
        answer = keys()
    elif word == "get":
        answer = base64.b64encode(client().get_object(Bucket=bucket, Key=name)["Body"].read()).decode()
    else:
        break
    print(json.dumps(answer), flush=True)
