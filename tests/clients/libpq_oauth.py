"""SASL OAUTHBEARER by a real client: libpq 18, as psycopg carries it, with a token of ours instead of a browser's."""
import ctypes
import os

import psycopg

from cases import run

BEARER_TOKEN = 1  # PGauthData of libpq-fe.h: PQAUTHDATA_OAUTH_BEARER_TOKEN


class BearerRequest(ctypes.Structure):
    _fields_ = [
        ("openid_configuration", ctypes.c_char_p),
        ("scope", ctypes.c_char_p),
        ("poll", ctypes.c_void_p),
        ("cleanup", ctypes.c_void_p),
        ("token", ctypes.c_char_p),
        ("user", ctypes.c_void_p),
    ]


Hook = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(BearerRequest))
token = b""


@Hook
def give_token(kind, connection, request):
    if kind != BEARER_TOKEN:
        return 0
    request.contents.token = token
    return 1


def loaded_libpq():
    """The very library psycopg runs on."""
    with open("/proc/self/maps") as maps:
        paths = {line.split()[-1] for line in maps if "/libpq" in line}
    return ctypes.CDLL(next(path for path in paths if os.path.basename(path).startswith("libpq")))


loaded_libpq().PQsetAuthDataHook(give_token)


def connect(presented, **more):
    global token
    token = presented.encode()
    issuer = "https://issuer.test/.well-known/openid-configuration"
    settings = dict(require_auth="oauth", oauth_issuer=issuer, oauth_client_id="tests", password="not-this-one")
    return psycopg.connect(options="-c lockgate.auth=oauthbearer -c statement_timeout=12345", **settings, **more)


def a_bearer_token_opens_a_session():
    with connect(os.environ["BEARER"]) as connection:
        assert connection.execute("SELECT 6 * 7").fetchone() == (42,)
        # What else the client set in `options` reaches the target.
        assert connection.execute("SHOW statement_timeout").fetchone() == ("12345ms",)


def refused(presented, words):
    try:
        connect(presented).close()
    except psycopg.OperationalError as error:
        assert words in str(error), error
        return
    raise AssertionError("it was let in")


def a_token_that_is_none_is_refused_in_the_gateways_words():
    refused("wrong", "the identity token was not accepted")


def an_expired_token_is_refused_in_the_same_words():
    refused(os.environ["EXPIRED"], "the identity token was not accepted")


def a_token_without_a_grant_is_refused():
    refused(os.environ["OUTSIDER"], "no access to target")


run([
    a_bearer_token_opens_a_session,
    a_token_that_is_none_is_refused_in_the_gateways_words,
    an_expired_token_is_refused_in_the_same_words,
    a_token_without_a_grant_is_refused,
])
