"""Makes what the sinks need in a service that speaks AWS's protocols, and reads back what they sent, an event a line.

    sink_aws.py PORT make | cloudwatch | s3
"""

import gzip
import json
import sys

import boto3

PORT, VERB = sys.argv[1:]
OPTIONS = dict(
    endpoint_url=f"http://127.0.0.1:{PORT}",
    region_name="eu-central-1",
    aws_access_key_id="AKIATEST",
    aws_secret_access_key="secret",
)

if VERB == "make":
    location = {"LocationConstraint": "eu-central-1"}
    boto3.client("s3", **OPTIONS).create_bucket(Bucket="corp-audit", CreateBucketConfiguration=location)
elif VERB == "cloudwatch":
    logs = boto3.client("logs", **OPTIONS)
    (stream,) = logs.describe_log_streams(logGroupName="/lockgate/audit")["logStreams"]
    assert stream["logStreamName"].startswith("lockgate-"), stream
    token = None
    while True:
        more = {"nextToken": token} if token else {}
        page = logs.get_log_events(
            logGroupName="/lockgate/audit", logStreamName=stream["logStreamName"], startFromHead=True, **more
        )
        for event in page["events"]:
            assert event["timestamp"] == json.loads(event["message"])["time"], event
            print(event["message"])
        if page["nextForwardToken"] == token:
            break
        token = page["nextForwardToken"]
else:
    s3 = boto3.client("s3", **OPTIONS)
    for entry in s3.list_objects_v2(Bucket="corp-audit").get("Contents", []):
        assert entry["Key"].startswith("lockgate/20") and entry["Key"].endswith(".ndjson.gz"), entry["Key"]
        body = s3.get_object(Bucket="corp-audit", Key=entry["Key"])["Body"].read()
        lines = gzip.decompress(body).decode().splitlines()
        assert entry["Key"].endswith(f"_{len(lines)}.ndjson.gz"), entry["Key"]
        print("\n".join(lines))
