"""A Kafka broker: the one that librdkafka brings for its own tests, with its memory as the log. It keeps what it has while it is
away. One command a line on standard input, one JSON answer each.

down          close all connections, refuse new ones       up   take them again
slow MS       answer so much later                         refuse CODE COUNT   answer so many produce requests with that code
"""

import ctypes
import json
import sys

PRODUCER = 0
PRODUCE = 0
BROKER = 1

topic, partitions = sys.argv[1].encode(), int(sys.argv[2])
kafka = ctypes.CDLL("librdkafka.so.1")
for name in ("rd_kafka_conf_new", "rd_kafka_new", "rd_kafka_mock_cluster_new"):
    getattr(kafka, name).restype = ctypes.c_void_p
kafka.rd_kafka_mock_cluster_bootstraps.restype = ctypes.c_char_p

reason = ctypes.create_string_buffer(512)
handle = kafka.rd_kafka_new(PRODUCER, ctypes.c_void_p(kafka.rd_kafka_conf_new()), reason, ctypes.c_size_t(512))
if not handle:
    sys.exit(reason.value.decode())
cluster = ctypes.c_void_p(kafka.rd_kafka_mock_cluster_new(ctypes.c_void_p(handle), 1))
made = kafka.rd_kafka_mock_topic_create(cluster, topic, partitions, 1)
if made != 0:
    sys.exit(f"no topic: {made}")
print(json.dumps(kafka.rd_kafka_mock_cluster_bootstraps(cluster).decode()), flush=True)
for line in sys.stdin:
    word, *numbers = line.split()
    if word == "down":
        answer = kafka.rd_kafka_mock_broker_set_down(cluster, BROKER)
    elif word == "up":
        answer = kafka.rd_kafka_mock_broker_set_up(cluster, BROKER)
    elif word == "slow":
        answer = kafka.rd_kafka_mock_broker_set_rtt(cluster, BROKER, int(numbers[0]))
    elif word == "refuse":
        code, count = map(int, numbers)
        codes = (ctypes.c_int * count)(*[code] * count)
        kafka.rd_kafka_mock_push_request_errors_array(cluster, ctypes.c_int16(PRODUCE), ctypes.c_size_t(count), codes)
        answer = 0
    else:
        break
    print(json.dumps(answer), flush=True)
