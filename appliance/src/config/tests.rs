//! Each kind of mistake and the report it gets.

use super::*;
use std::path::PathBuf;
use std::time::Duration;

fn parse_named(text: &str) -> Result<Config, ConfigError> {
    parse(text, Path::new("/etc/lockgate/gw.toml"))
}

/// The findings that stand at a line, as a user reads them. What the file as a whole lacks has a test of its own.
fn report(text: &str) -> String {
    let findings = match parse_named(text) {
        Ok(config) => config.warnings,
        Err(error) => error.findings,
    };
    let rendered = findings.into_iter().filter(|finding| finding.line.is_some()).map(|finding| finding.rendered);
    rendered.collect::<String>().replace("/etc/lockgate/", "")
}

#[track_caller]
fn check(text: &str, expected: &str) {
    let report = report(text);
    assert_eq!(report.trim_end(), expected.trim_matches('\n'), "\n{report}");
}

#[test]
fn a_text_that_is_not_toml() {
    check(
        r#"[server
shards = 1
"#,
        r#"
error: unclosed table, expected `]`
 --> gw.toml:1:8
  |
1 | [server
  |        ^
"#,
    );
}

#[test]
fn a_value_without_quotes() {
    check(
        r#"[ops]
address = localhost
"#,
        r#"
error: string values must be quoted, expected literal string
 --> gw.toml:2:11
  |
2 | address = localhost
  |           ^^^^^^^^^
"#,
    );
}

#[test]
fn a_key_given_twice() {
    check(
        r#"[server]
shards = 1
shards = 2
"#,
        r#"
error: duplicate key
 --> gw.toml:3:1
  |
3 | shards = 2
  | ^^^^^^
"#,
    );
}

#[test]
fn an_unknown_key_names_the_nearest() {
    check(
        r#"[[listener]]
protocol = "postgres"
address = "127.0.0.1:6432"
alow_plaintext = true
"#,
        r#"
error: unknown key `alow_plaintext` in [[listener]]
 --> gw.toml:4:1
  |
4 | alow_plaintext = true
  | ^^^^^^^^^^^^^^ did you mean `allow_plaintext`?
"#,
    );
}

#[test]
fn an_unknown_table_names_the_nearest() {
    check(
        r#"[[listeners]]
protocol = "postgres"
"#,
        r#"
error: unknown key `listeners` in a configuration
 --> gw.toml:1:3
  |
1 | [[listeners]]
  |   ^^^^^^^^^ did you mean `listener`?
"#,
    );
}

#[test]
fn a_key_in_the_wrong_table_names_the_right_one() {
    check(
        r#"[server]
durability = "group"
"#,
        r#"
error: unknown key `durability` in [server]
 --> gw.toml:2:1
  |
2 | durability = "group"
  | ^^^^^^^^^^ `durability` belongs in [audit]
"#,
    );
}

#[test]
fn an_unknown_key_far_from_all_lists_them() {
    check(
        r#"[ops]
colour = "red"
"#,
        r#"
error: unknown key `colour` in [ops]
 --> gw.toml:2:1
  |
2 | colour = "red"
  | ^^^^^^ known here: address
"#,
    );
}

#[test]
fn a_password_in_the_file_is_refused() {
    check(
        r#"[[target]]
name = "orders"
protocol = "postgres"
address = "127.0.0.1:5432"
database = "shop"
user = "svc"
password = "hunter2"
"#,
        r#"
error: target "orders" has no credential
 --> gw.toml:2:8
  |
2 | name = "orders"
  |        ^^^^^^^^ add exactly one of `password_env`, `password_file` and `credential`
error: unknown key `password` in [[target]]
 --> gw.toml:7:1
  |
7 | password =
  | ^^^^^^^^ secrets do not belong in this file: password_env, password_file or credential
"#,
    );
}

#[test]
fn several_mistakes_are_reported_at_once() {
    check(
        r#"[server]
shard = 1
spin_us = 100000
[ops]
adress = "x"
[audit]
on_full = "drop"
"#,
        r#"
error: unknown key `shard` in [server]
 --> gw.toml:2:1
  |
2 | shard = 1
  | ^^^^^ did you mean `shards`?
error: `spin_us` is out of range
 --> gw.toml:3:11
  |
3 | spin_us = 100000
  |           ^^^^^^ from 0 to 10000
error: unknown key `adress` in [ops]
 --> gw.toml:5:1
  |
5 | adress = "x"
  | ^^^^^^ did you mean `address`?
error: `on_full` cannot be "drop"
 --> gw.toml:7:11
  |
7 | on_full = "drop"
  |           ^^^^^^ records are never dropped: statements wait
"#,
    );
}

#[test]
fn unknown_keys_do_not_hide_other_mistakes() {
    check(
        r#"[ops]
adress = "127.0.0.1:1"
[web]
address = "localhost:8444"
"#,
        r#"
error: unknown key `adress` in [ops]
 --> gw.toml:2:1
  |
2 | adress = "127.0.0.1:1"
  | ^^^^^^ did you mean `address`?
error: `localhost:8444` is not an IP address and a port
 --> gw.toml:4:11
  |
4 | address = "localhost:8444"
  |           ^^^^^^^^^^^^^^^^ write `127.0.0.1:8444`; names are not resolved here
"#,
    );
}

#[test]
fn a_missing_key_is_named_with_an_example() {
    check(
        r#"[[target]]
name = "orders"
protocol = "postgres"
"#,
        r#"
error: [[target]] needs `address`
 --> gw.toml:1:1
  |
1 | [[target]]
  | ^^^^^^^^^^ add `address = "db.internal:5432"`
error: [[target]] needs `database`
 --> gw.toml:1:1
  |
1 | [[target]]
  | ^^^^^^^^^^ add `database = "shop"`
error: [[target]] needs `user`
 --> gw.toml:1:1
  |
1 | [[target]]
  | ^^^^^^^^^^ add `user = "svc_orders"`
"#,
    );
}

#[test]
fn a_missing_key_of_an_inline_table() {
    check(
        r#"[[listener]]
protocol = "postgres"
address = "127.0.0.1:6432"
tls = { cert = "gw.pem" }
"#,
        r#"
error: `tls` of [[listener]] needs `key`
 --> gw.toml:4:7
  |
4 | tls = { cert = "gw.pem" }
  |       ^^^^^^^^^^^^^^^^^^^ add `key = "gw.key"`
"#,
    );
}

#[test]
fn one_bracket_where_two_belong() {
    check(
        r#"[target]
name = "orders"
"#,
        r#"
error: `target` of a configuration is a table, not an array
 --> gw.toml:1:1
  |
1 | [target]
  | ^^^^^^^^ write `[[target]]`, with two brackets: there may be several
"#,
    );
}

#[test]
fn two_brackets_where_one_belongs() {
    check(
        r#"[[server]]
shards = 1
"#,
        r#"
error: `server` of a configuration is an array, not a table
 --> gw.toml:1:1
  |
1 | [[server]]
  | ^^^^^^^^^^ write `[server]`, with one bracket: there is only one
"#,
    );
}

#[test]
fn a_number_in_quotes() {
    check(
        r#"[server]
shards = "4"
"#,
        r#"
error: `shards` of [server] is a string, not an integer
 --> gw.toml:2:10
  |
2 | shards = "4"
  |          ^^^ without quotes: `shards = 4`
"#,
    );
}

#[test]
fn a_string_where_a_list_belongs() {
    check(
        r#"[[target]]
name = "orders"
protocol = "postgres"
address = "127.0.0.1:5432"
database = "shop"
user = "svc"
password_env = "P"
[[grant]]
targets = "orders"
"#,
        r#"
error: `targets` of [[grant]] is a string, not an array
 --> gw.toml:9:11
  |
9 | targets = "orders"
  |           ^^^^^^^^ write `targets = ["orders"]`
"#,
    );
}

#[test]
fn a_number_out_of_range() {
    check(
        r#"[server]
shards = 0
"#,
        r#"
error: `shards` is out of range
 --> gw.toml:2:10
  |
2 | shards = 0
  |          ^ from 1 to 1024
"#,
    );
}

#[test]
fn a_number_that_is_no_power_of_two() {
    check(
        r#"[server]
ring_entries = 1000
"#,
        r#"
error: `ring_entries` must be a power of two
 --> gw.toml:2:16
  |
2 | ring_entries = 1000
  |                ^^^^ 512 or 1024
"#,
    );
}

#[test]
fn a_duration_without_a_unit() {
    check(
        r#"[server]
login_timeout = 15
"#,
        r#"
error: `login_timeout` of [server] is an integer, not a string
 --> gw.toml:2:17
  |
2 | login_timeout = 15
  |                 ^^ give it a unit: `login_timeout = "15s"`
"#,
    );
}

#[test]
fn a_duration_with_an_unknown_unit() {
    check(
        r#"[server]
login_timeout = "15min"
"#,
        r#"
error: `min` is not a unit of time
 --> gw.toml:2:17
  |
2 | login_timeout = "15min"
  |                 ^^^^^^^ a duration is a number and a unit (us, ms, s, m, h, d, w): `15s`, `10m`, `8h`, `1h30m`
"#,
    );
}

#[test]
fn a_duration_that_is_too_long() {
    check(
        r#"[audit]
commit_interval = "1h"
"#,
        r#"
error: `commit_interval` is too long
 --> gw.toml:2:19
  |
2 | commit_interval = "1h"
  |                   ^^^^ at most 10s
"#,
    );
}

#[test]
fn an_address_with_a_name() {
    check(
        r#"[ops]
address = "localhost:9180"
"#,
        r#"
error: `localhost:9180` is not an IP address and a port
 --> gw.toml:2:11
  |
2 | address = "localhost:9180"
  |           ^^^^^^^^^^^^^^^^ write `127.0.0.1:9180`; names are not resolved here
"#,
    );
}

#[test]
fn an_address_without_a_port() {
    check(
        r#"[ops]
address = "127.0.0.1"
"#,
        r#"
error: `127.0.0.1` has no port
 --> gw.toml:2:11
  |
2 | address = "127.0.0.1"
  |           ^^^^^^^^^^^ for example `127.0.0.1:6432`
"#,
    );
}

#[test]
fn an_address_that_is_only_a_port() {
    check(
        r#"[[listener]]
protocol = "postgres"
address = ":6432"
"#,
        r#"
error: `:6432` is not an IP address and a port
 --> gw.toml:3:11
  |
3 | address = ":6432"
  |           ^^^^^^^ `0.0.0.0:6432` is every IPv4 address of this host, `[::]:6432` every address
"#,
    );
}

#[test]
fn an_address_taken_twice() {
    check(
        r#"[[listener]]
protocol = "postgres"
address = "0.0.0.0:9180"
allow_plaintext = false
"#,
        r#"
warning: nobody beyond this host can log in here: tokens are not accepted unencrypted
 --> gw.toml:3:11
  |
3 | address = "0.0.0.0:9180"
  |           ^^^^^^^^^^^^^^ add `tls = { cert = ..., key = ... }`
error: 0.0.0.0:9180 is already the address of [ops]
 --> gw.toml:3:11
  |
3 | address = "0.0.0.0:9180"
  |           ^^^^^^^^^^^^^^ choose another port
"#,
    );
}

#[test]
fn a_listener_that_nobody_can_log_in_to() {
    check(
        r#"[[listener]]
protocol = "postgres"
address = "10.0.0.1:6432"
"#,
        r#"
warning: nobody beyond this host can log in here: tokens are not accepted unencrypted
 --> gw.toml:3:11
  |
3 | address = "10.0.0.1:6432"
  |           ^^^^^^^^^^^^^^^ add `tls = { cert = ..., key = ... }`
"#,
    );
}

#[test]
fn tokens_in_plain_text_over_the_network() {
    check(
        r#"[[listener]]
protocol = "postgres"
address = "10.0.0.1:6432"
allow_plaintext = true
"#,
        r#"
warning: tokens will cross the network readable for everyone on the way
 --> gw.toml:4:19
  |
4 | allow_plaintext = true
  |                   ^^^^ prefer `tls`
"#,
    );
}

#[test]
fn client_certificates_where_clients_need_not_encrypt() {
    check(
        r#"[[listener]]
protocol = "postgres"
address = "127.0.0.1:6432"
allow_plaintext = true
tls = { cert = "gw.pem", key = "gw.key", client_ca = "ca.pem" }
"#,
        r#"
error: `client_ca` and `allow_plaintext` exclude each other: a certificate is shown over TLS only
 --> gw.toml:5:54
  |
5 | tls = { cert = "gw.pem", key = "gw.key", client_ca = "ca.pem" }
  |                                                      ^^^^^^^^ take one of them out
"#,
    );
}

#[test]
fn a_protocol_of_another_version() {
    check(
        r#"[[listener]]
protocol = "mysql"
address = "127.0.0.1:6432"
"#,
        r#"
error: `protocol` cannot be "mysql"
 --> gw.toml:2:12
  |
2 | protocol = "mysql"
  |            ^^^^^^^ not in this version; "postgres" is
"#,
    );
}

#[test]
fn a_symmetric_algorithm() {
    check(
        r#"[[issuer]]
name = "corp"
issuer = "https://login.example.com"
audience = "lockgate"
algorithms = ["HS256"]
"#,
        r#"
error: `algorithms` cannot be "HS256"
 --> gw.toml:5:15
  |
5 | algorithms = ["HS256"]
  |               ^^^^^^^ symmetric algorithms are not offered: whoever can check such a token can also issue it
"#,
    );
}

#[test]
fn an_unknown_algorithm() {
    check(
        r#"[[issuer]]
name = "corp"
issuer = "https://login.example.com"
audience = "lockgate"
algorithms = ["RS265", "none"]
"#,
        r#"
error: `algorithms` cannot be "RS265"
 --> gw.toml:5:15
  |
5 | algorithms = ["RS265", "none"]
  |               ^^^^^^^ did you mean "RS256"?
error: `algorithms` cannot be "none"
 --> gw.toml:5:24
  |
5 | algorithms = ["RS265", "none"]
  |                        ^^^^^^ unsigned tokens are not offered
"#,
    );
}

#[test]
fn no_algorithm() {
    check(
        r#"[[issuer]]
name = "corp"
issuer = "https://login.example.com"
audience = "lockgate"
algorithms = []
"#,
        r#"
error: `algorithms` is empty: no token could be checked
 --> gw.toml:5:14
  |
5 | algorithms = []
  |              ^^ for example ["RS256", "ES256"]
"#,
    );
}

#[test]
fn discovery_without_https() {
    check(
        r#"[[issuer]]
name = "corp"
issuer = "http://login.example.com"
audience = "lockgate"
algorithms = ["ES256"]
"#,
        r#"
error: keys are fetched over https only (http on loopback)
 --> gw.toml:3:10
  |
3 | issuer = "http://login.example.com"
  |          ^^^^^^^^^^^^^^^^^^^^^^^^^^ or name the issuer's public keys with `jwks_file`
"#,
    );
}

#[test]
fn discovery_without_a_url() {
    check(
        r#"[[issuer]]
name = "corp"
issuer = "corp"
audience = "lockgate"
algorithms = ["ES256"]
"#,
        r#"
error: without `jwks_file` the issuer must be an https URL, where discovery starts
 --> gw.toml:3:10
  |
3 | issuer = "corp"
  |          ^^^^^^ or name the issuer's public keys with `jwks_file`
"#,
    );
}

#[test]
fn leeway_beyond_reason() {
    check(
        r#"[[issuer]]
name = "corp"
issuer = "https://login.example.com"
audience = "lockgate"
algorithms = ["ES256"]
leeway = "1h"
"#,
        r#"
error: `leeway` is too long
 --> gw.toml:6:10
  |
6 | leeway = "1h"
  |          ^^^^ at most 5m
"#,
    );
}

#[test]
fn a_target_without_a_credential() {
    check(
        r#"[[target]]
name = "orders"
protocol = "postgres"
address = "127.0.0.1:5432"
database = "shop"
user = "svc"
"#,
        r#"
error: target "orders" has no credential
 --> gw.toml:2:8
  |
2 | name = "orders"
  |        ^^^^^^^^ add exactly one of `password_env`, `password_file` and `credential`
"#,
    );
}

#[test]
fn a_target_with_two_credentials() {
    check(
        r#"[[target]]
name = "orders"
protocol = "postgres"
address = "127.0.0.1:5432"
database = "shop"
user = "svc"
password_env = "P"
password_file = "pw"
"#,
        r#"
error: target "orders" has more than one credential
 --> gw.toml:8:17
  |
8 | password_file = "pw"
  |                 ^^^^ exactly one of `password_env`, `password_file` and `credential`
"#,
    );
}

#[test]
fn a_target_address_without_a_port() {
    check(
        r#"[[target]]
name = "orders"
protocol = "postgres"
address = "db.internal"
database = "shop"
user = "svc"
password_env = "P"
"#,
        r#"
error: `db.internal` has no port
 --> gw.toml:4:11
  |
4 | address = "db.internal"
  |           ^^^^^^^^^^^^^ a target is `host:port`, for example `db.internal:5432`
"#,
    );
}

#[test]
fn a_target_address_that_is_a_url() {
    check(
        r#"[[target]]
name = "orders"
protocol = "postgres"
address = "postgres://db:5432/shop"
database = "shop"
user = "svc"
password_env = "P"
"#,
        r#"
error: `postgres://db:5432/shop` is a URL
 --> gw.toml:4:11
  |
4 | address = "postgres://db:5432/shop"
  |           ^^^^^^^^^^^^^^^^^^^^^^^^^ a target is `host:port`, for example `db.internal:5432`
"#,
    );
}

#[test]
fn an_unknown_tls_mode() {
    check(
        r#"[[target]]
name = "orders"
protocol = "postgres"
address = "127.0.0.1:5432"
database = "shop"
user = "svc"
password_env = "P"
tls = "verify_full"
"#,
        r#"
error: `tls` cannot be "verify_full"
 --> gw.toml:8:7
  |
8 | tls = "verify_full"
  |       ^^^^^^^^^^^^^ did you mean "verify-full"?
"#,
    );
}

#[test]
fn an_authority_that_is_never_asked() {
    check(
        r#"[[target]]
name = "orders"
protocol = "postgres"
address = "127.0.0.1:5432"
database = "shop"
user = "svc"
password_env = "P"
tls = "require"
tls_ca = "ca.pem"
"#,
        r#"
error: `tls_ca` has no effect: the certificate is not checked
 --> gw.toml:9:10
  |
9 | tls_ca = "ca.pem"
  |          ^^^^^^^^ set `tls = "verify-full"`, or leave `tls_ca` out
"#,
    );
}

#[test]
fn a_certificate_that_is_not_checked() {
    check(
        r#"[[target]]
name = "orders"
protocol = "postgres"
address = "db.internal:5432"
database = "shop"
user = "svc"
password_env = "P"
tls = "require"
"#,
        r#"
warning: the target's certificate is not checked: anybody on the way can pose as it
 --> gw.toml:8:7
  |
8 | tls = "require"
  |       ^^^^^^^^^ prefer "verify-full"
"#,
    );
}

#[test]
fn two_targets_of_one_name() {
    check(
        r#"[[target]]
name = "orders"
protocol = "postgres"
address = "127.0.0.1:5432"
database = "shop"
user = "svc"
password_env = "P"
[[target]]
name = "orders"
protocol = "postgres"
address = "127.0.0.1:5432"
database = "shop"
user = "svc"
password_env = "P"
"#,
        r#"
error: there is more than one [[target]] named "orders"
 --> gw.toml:9:8
  |
9 | name = "orders"
  |        ^^^^^^^^ each needs its own
"#,
    );
}

#[test]
fn a_grant_for_a_target_that_is_not_there() {
    check(
        r#"[[target]]
name = "orders"
protocol = "postgres"
address = "127.0.0.1:5432"
database = "shop"
user = "svc"
password_env = "P"
[[grant]]
targets = ["order"]
"#,
        r#"
error: there is no target "order"
 --> gw.toml:9:12
  |
9 | targets = ["order"]
  |            ^^^^^^^ did you mean "orders"?
"#,
    );
}

#[test]
fn a_glob_that_matches_no_target() {
    check(
        r#"[[target]]
name = "orders"
protocol = "postgres"
address = "127.0.0.1:5432"
database = "shop"
user = "svc"
password_env = "P"
[[grant]]
targets = ["billing-*"]
"#,
        r#"
warning: no target matches "billing-*"
 --> gw.toml:9:12
  |
9 | targets = ["billing-*"]
  |            ^^^^^^^^^^^
"#,
    );
}

#[test]
fn a_grant_for_nobody() {
    check(
        r#"[[target]]
name = "orders"
protocol = "postgres"
address = "127.0.0.1:5432"
database = "shop"
user = "svc"
password_env = "P"
[[grant]]
targets = ["orders"]
groups = []
"#,
        r#"
error: `groups` is empty
  --> gw.toml:10:10
   |
10 | groups = []
   |          ^^ leave `groups` out to mean any
"#,
    );
}

#[test]
fn a_pattern_with_brackets() {
    check(
        r#"[[target]]
name = "orders"
protocol = "postgres"
address = "127.0.0.1:5432"
database = "shop"
user = "svc"
password_env = "P"
[[grant]]
targets = ["*"]
users = ["[ab]*"]
"#,
        r#"
error: "[ab]*" is not a valid pattern
  --> gw.toml:10:10
   |
10 | users = ["[ab]*"]
   |          ^^^^^^^ only `*` and `?` are special in a pattern; write alternatives as several entries
"#,
    );
}

#[test]
fn a_rule_for_a_target_that_is_not_there() {
    check(
        r#"[[target]]
name = "orders"
protocol = "postgres"
address = "127.0.0.1:5432"
database = "shop"
user = "svc"
password_env = "P"
[[rule]]
name = "r"
targets = ["billing"]
action = "deny"
"#,
        r#"
error: there is no target "billing"
  --> gw.toml:10:12
   |
10 | targets = ["billing"]
   |            ^^^^^^^^^ targets are: orders
"#,
    );
}

#[test]
fn an_unknown_class() {
    check(
        r#"[[rule]]
name = "r"
classes = ["copy-out", "delte"]
action = "deny"
"#,
        r#"
error: `classes` cannot be "copy-out"
 --> gw.toml:3:12
  |
3 | classes = ["copy-out", "delte"]
  |            ^^^^^^^^^^ did you mean "copy_out"?
error: `classes` cannot be "delte"
 --> gw.toml:3:24
  |
3 | classes = ["copy-out", "delte"]
  |                        ^^^^^^^ did you mean "delete"?
"#,
    );
}

#[test]
fn an_unknown_action() {
    check(
        r#"[[rule]]
name = "r"
action = "block"
"#,
        r#"
error: `action` cannot be "block"
 --> gw.toml:3:10
  |
3 | action = "block"
  |          ^^^^^^^ one of: allow, deny, approve, alert
"#,
    );
}

#[test]
fn approval_without_approvers() {
    check(
        r#"[[rule]]
name = "r"
action = "approve"
"#,
        r#"
error: a rule that asks for approval needs `approvers`
 --> gw.toml:3:10
  |
3 | action = "approve"
  |          ^^^^^^^^^ add `approvers = ["dba"]`, groups or users, or "local"
"#,
    );
}

#[test]
fn approval_by_an_empty_list() {
    check(
        r#"[[rule]]
name = "r"
action = "approve"
approvers = []
"#,
        r#"
error: `approvers` is empty: nobody could ever approve
 --> gw.toml:4:13
  |
4 | approvers = []
  |             ^^ name groups or users, or "local"
"#,
    );
}

#[test]
fn approval_that_can_never_come() {
    check(
        r#"[[rule]]
name = "r"
action = "approve"
approvers = ["local"]
count = 2
"#,
        r#"
error: `local` is one person and approves once: this could never be approved
 --> gw.toml:5:9
  |
5 | count = 2
  |         ^ add groups or users, or leave `count` out
"#,
    );
}

#[test]
fn approvers_of_a_rule_that_does_not_ask() {
    check(
        r#"[[rule]]
name = "r"
action = "deny"
approvers = ["dba"]
"#,
        r#"
error: `approvers` has no effect: this rule does not ask for approval
 --> gw.toml:4:13
  |
4 | approvers = ["dba"]
  |             ^^^^^^^ set `action = "approve"`, or leave it out
"#,
    );
}

#[test]
fn a_word_that_can_never_match() {
    check(
        r#"[[rule]]
name = "r"
words = ["drop table"]
action = "deny"
"#,
        r#"
error: "drop table" can never match: words are single identifiers or keywords
 --> gw.toml:3:10
  |
3 | words = ["drop table"]
  |          ^^^^^^^^^^^^ write each identifier as an entry of its own, without quotes, dots or blanks
"#,
    );
}

#[test]
fn a_table_with_too_many_parts() {
    check(
        r#"[[rule]]
name = "r"
tables = ["a.b.c"]
action = "deny"
"#,
        r#"
error: "a.b.c" is not a valid pattern
 --> gw.toml:3:11
  |
3 | tables = ["a.b.c"]
  |           ^^^^^^^ a table is `table` or `schema.table`, each part a name or a glob
"#,
    );
}

#[test]
fn two_rules_of_one_name() {
    check(
        r#"[[rule]]
name = "r"
classes = ["drop"]
action = "deny"
[[rule]]
name = "r"
classes = ["drop"]
action = "deny"
"#,
        r#"
error: there is more than one [[rule]] named "r"
 --> gw.toml:6:8
  |
6 | name = "r"
  |        ^^^ each needs its own
"#,
    );
}

#[test]
fn a_rule_that_never_decides() {
    check(
        r#"[[rule]]
name = "all"
action = "allow"
[[rule]]
name = "later"
classes = ["drop"]
action = "deny"
"#,
        r#"
warning: rule "later" never decides: "all" before it takes every statement
 --> gw.toml:5:8
  |
5 | name = "later"
  |        ^^^^^^^ move it up
"#,
    );
}

#[test]
fn a_message_nobody_reads() {
    check(
        r#"[[rule]]
name = "r"
action = "alert"
message = "hello"
"#,
        r#"
warning: nobody reads this `message`: the statement is not refused
 --> gw.toml:4:11
  |
4 | message = "hello"
  |           ^^^^^^^
"#,
    );
}

#[test]
fn a_mask_of_nothing() {
    check(
        r#"[[mask]]
style = "fill"
"#,
        r#"
error: a [[mask]] needs `columns`, `detect` or both
 --> gw.toml:1:1
  |
1 | [[mask]]
  | ^^^^^^^^ for example `columns = ["customers.card_number"]`
"#,
    );
}

#[test]
fn a_column_without_a_table() {
    check(
        r#"[[mask]]
columns = ["ssn"]
"#,
        r#"
error: "ssn" is not a valid pattern
 --> gw.toml:2:12
  |
2 | columns = ["ssn"]
  |            ^^^^^ a column is `table.column` or `schema.table.column`, each part a name or a glob
"#,
    );
}

#[test]
fn an_unknown_detector() {
    check(
        r#"[[mask]]
detect = ["e-mail", "aws-key"]
"#,
        r#"
error: `detect` cannot be "e-mail"
 --> gw.toml:2:11
  |
2 | detect = ["e-mail", "aws-key"]
  |           ^^^^^^^^ did you mean "email"?
error: `detect` cannot be "aws-key"
 --> gw.toml:2:21
  |
2 | detect = ["e-mail", "aws-key"]
  |                     ^^^^^^^^^ did you mean "aws_key"?
"#,
    );
}

#[test]
fn an_unknown_style() {
    check(
        r#"[[mask]]
detect = ["card"]
style = "hash"
"#,
        r#"
error: `style` cannot be "hash"
 --> gw.toml:3:9
  |
3 | style = "hash"
  |         ^^^^^^ one of: last4, fill, null, token
"#,
    );
}

#[test]
fn a_mask_for_a_target_that_is_not_there() {
    check(
        r#"[[mask]]
targets = ["orders"]
detect = ["card"]
"#,
        r#"
error: there is no target "orders"
 --> gw.toml:2:12
  |
2 | targets = ["orders"]
  |            ^^^^^^^^ there is no [[target]] at all
"#,
    );
}

#[test]
fn a_payload_that_fits_no_segment() {
    check(
        r#"[audit]
segment_mib = 1
payload_kib = 2048
"#,
        r#"
error: a record with a payload of 2048 KiB does not fit a segment of 1 MiB
 --> gw.toml:3:15
  |
3 | payload_kib = 2048
  |               ^^^^ a smaller payload_kib, or segment_mib = 4 or more
"#,
    );
}

const KAFKA: &str =
    "[[sink]]\nkind = \"kafka\"\nbrokers = [\"k1.internal:9093\", \"[::1]:9093\"]\ntopic = \"lockgate-audit\"\n";

#[cfg(not(feature = "kafka"))]
#[test]
fn a_sink_the_program_was_built_without() {
    check(
        KAFKA,
        r#"
error: this program was built without kafka sinks (cargo feature `kafka`)
 --> gw.toml:1:1
  |
1 | [[sink]]
  | ^^^^^^^^ build with `--features kafka`, or let a shipper follow a sink of kind "file"
"#,
    );
}

#[cfg(feature = "kafka")]
#[test]
fn a_kafka_sink_is_encrypted_and_anonymous_unless_it_says_otherwise() {
    let kafka = |keys: &str| match parse_named(&format!("{KAFKA}{keys}")) {
        Ok(config) => match &config.sinks[0].kind {
            SinkKind::Kafka(kafka) => kafka.clone(),
            other => panic!("{other:?}"),
        },
        Err(error) => panic!("{error}"),
    };
    let plain = kafka("");
    assert_eq!(
        (plain.brokers.len(), plain.brokers[1].as_str(), plain.topic.as_str()),
        (2, "[::1]:9093", "lockgate-audit")
    );
    assert_eq!((plain.tls, plain.sasl), (Some(KafkaTls { ca: None }), None));
    let all =
        kafka("tls_ca = \"ca.pem\"\nsasl = \"scram-sha-256\"\nuser = \"gw\"\npassword_file = \"kafka.password\"\n");
    assert_eq!(all.tls, Some(KafkaTls { ca: Some("/etc/lockgate/ca.pem".into()) }));
    let sasl = all.sasl.expect("there");
    assert_eq!((sasl.mechanism, sasl.user.as_str()), (SaslMechanism::ScramSha256, "gw"));
    assert_eq!(sasl.password, Secret::File("/etc/lockgate/kafka.password".into()));
    assert_eq!(kafka("tls = false\nallow_plaintext = true\n").tls, None);
}

#[cfg(feature = "kafka")]
#[test]
fn a_kafka_sink_with_a_value_that_cannot_be() {
    for (keys, what, right) in [
        ("topic = \"t\"", "a kafka sink needs `brokers`", "kafka-1.internal:9093"),
        ("brokers = [\"k:1\"]", "a kafka sink needs `topic`", "lockgate-audit"),
        ("brokers = []\ntopic = \"t\"", "there is no broker to begin with", "for example"),
        ("brokers = [\"k:1\", \"k\"]\ntopic = \"t\"", "\"k\" is not a host and a port", "kafka-1.internal:9093"),
        ("brokers = [\"k:1\"]\ntopic = \"a b\"", "this is not the name of a topic", "at most 249"),
        ("brokers = [\"k:1\"]\ntopic = \"..\"", "this is not the name of a topic", "at most 249"),
        (
            "brokers = [\"localhost:1\", \"k:1\"]\ntopic = \"t\"\ntls = false",
            "would cross the network readable",
            "allow_plaintext",
        ),
        ("brokers = [\"localhost:1\"]\ntopic = \"t\"\ntls = false\ntls_ca = \"c\"", "`tls` is false", "leave it out"),
        ("brokers = [\"k:1\"]\ntopic = \"t\"\nuser = \"u\"", "this belongs to a login", "add `sasl"),
        (
            "brokers = [\"k:1\"]\ntopic = \"t\"\nsasl = \"plain\"\nuser = \"u\"",
            "the login has no password",
            "password_file",
        ),
        (
            "brokers = [\"k:1\"]\ntopic = \"t\"\nsasl = \"plain\"\npassword_env = \"P\"",
            "the login has no user",
            "add `user",
        ),
    ] {
        let report = report(&format!("[[sink]]\nkind = \"kafka\"\n{keys}\n"));
        assert!(report.contains(what) && report.contains(right), "{keys}:\n{report}");
        assert_eq!(report.matches("error:").count(), 1, "{keys}:\n{report}");
    }
}

#[test]
fn a_sink_without_what_its_kind_needs() {
    check(
        r#"[[sink]]
kind = "syslog"
"#,
        r#"
error: a syslog sink needs `address`
 --> gw.toml:1:1
  |
1 | [[sink]]
  | ^^^^^^^^ add `address = "siem.internal:6514"`
"#,
    );
    for (kind, keys, missing) in [
        ("file", "", "`path`"),
        ("splunk", "url = \"https://h\"", "a token"),
        ("cloudwatch", "region = \"eu-central-1\"", "`log_group`"),
        ("s3", "bucket = \"abc\"", "`region`"),
        ("otlp", "", "`url`"),
        ("webhook", "", "`url`"),
    ] {
        let report = report(&format!("[[sink]]\nkind = \"{kind}\"\n{keys}\n"));
        assert!(report.starts_with(&format!("error: a {kind} sink needs {missing}\n")), "{report}");
        assert_eq!(report.matches("error:").count(), 1, "{report}");
    }
}

#[test]
fn a_key_of_another_kind_of_sink() {
    check(
        r#"[[sink]]
kind = "file"
path = "x"
region = "eu-central-1"
"#,
        r#"
error: `region` has no effect in a file sink
 --> gw.toml:4:10
  |
4 | region = "eu-central-1"
  |          ^^^^^^^^^^^^^^ it is a key of kind "cloudwatch", "s3"
"#,
    );
}

#[test]
fn a_sink_to_which_records_would_travel_readable() {
    check(
        r#"[[sink]]
kind = "webhook"
url = "http://siem.internal/"
"#,
        r#"
error: records and credential would cross the network readable
 --> gw.toml:3:7
  |
3 | url = "http://siem.internal/"
  |       ^^^^^^^^^^^^^^^^^^^^^^^ use https, or add `allow_plaintext = true`
"#,
    );
    for url in ["http://127.0.0.1:8080/", "http://[::1]/", "http://localhost/x", "https://siem.internal"] {
        assert_eq!(report(&format!("[[sink]]\nkind = \"webhook\"\nurl = \"{url}\"\n")), "", "{url}");
    }
    let allowed = "[[sink]]\nkind = \"otlp\"\nurl = \"http://siem.internal/\"\nallow_plaintext = true\n";
    assert_eq!(report(allowed), "");
    let plain = report("[[sink]]\nkind = \"syslog\"\naddress = \"siem.internal:514\"\ntransport = \"tcp\"\n");
    assert!(plain.starts_with("warning: records cross the network readable"), "{plain}");
}

#[test]
fn a_sink_with_a_value_that_cannot_be() {
    for (keys, what, right) in [
        ("kind = \"webhook\"\nurl = \"siem\"", "this is not a URL", "https://siem.internal"),
        ("kind = \"webhook\"\nurl = \"https://u:p@siem/\"", "a URL must not hold a credential", "files or variables"),
        (
            "kind = \"webhook\"\nurl = \"https://s\"\nsecret_env = \"A\"\nsecret_file = \"b\"",
            "two sources of the secret",
            "either",
        ),
        ("kind = \"file\"\npath = \"x\"\nname = \"a/b\"", "\"a/b\" is not a name for a sink", "letters, digits"),
        ("kind = \"syslog\"\naddress = \"siem\"", "\"siem\" is not a host and a port", "siem.internal:6514"),
        (
            "kind = \"syslog\"\naddress = \"s:1\"\ntls_cert = \"c\"",
            "a certificate and its key go together",
            "give both",
        ),
        (
            "kind = \"syslog\"\naddress = \"localhost:1\"\ntransport = \"tcp\"\ntls_ca = \"c\"",
            "`transport` is \"tcp\"",
            "use \"tls\"",
        ),
        ("kind = \"s3\"\nregion = \"r\"\nbucket = \"A_b\"", "this is not the name of a bucket", "lower-case"),
        ("kind = \"s3\"\nregion = \"R 1\"\nbucket = \"abc\"", "this is not a region", "eu-central-1"),
        (
            "kind = \"s3\"\nregion = \"r\"\nbucket = \"abc\"\naccess_key_id = \"A\"",
            "the access key has no secret",
            "secret_key_file",
        ),
        (
            "kind = \"s3\"\nregion = \"r\"\nbucket = \"abc\"\nsecret_key_env = \"A\"",
            "this belongs to an access key",
            "access_key_id",
        ),
        (
            "kind = \"splunk\"\nurl = \"https://s\"\ntoken_env = \"A B\"",
            "not the name of an environment variable",
            "for example",
        ),
        ("kind = \"file\"\npath = \"x\"\nflush = \"2h\"", "`flush` is too long", "at most 1h"),
    ] {
        let report = report(&format!("[[sink]]\n{keys}\n"));
        assert!(report.contains(what) && report.contains(right), "{keys}:\n{report}");
        assert_eq!(report.matches("error:").count(), 1, "{keys}:\n{report}");
    }
}

#[test]
fn a_file_sink_writes_neither_to_the_trail_nor_to_the_configuration() {
    let of =
        |path: &str| report(&format!("[server]\ndata_dir = \"state\"\n[[sink]]\nkind = \"file\"\npath = \"{path}\"\n"));
    for path in [
        "state",
        "state/vault.db",
        "./state/archive/x.ndjson",
        "other/../state/segments/0/1",
        "state/sinks/file.position",
        "state/sinks/file.dead.ndjson",
        "state/sinks/../checkpoint.key",
    ] {
        let report = of(path);
        assert!(
            report.contains("lies among the files of the trail") && report.contains("gw.toml:5:8"),
            "{path}: {report}"
        );
    }
    assert!(of("gw.toml").contains("is this configuration"));
    let dir = tempfile::tempdir().expect("a directory");
    let link = dir.path().join("link.ndjson");
    let there = dir.path().join("state/archive/new.ndjson");
    std::fs::create_dir_all(there.parent().expect("a folder")).expect("possible");
    std::os::unix::fs::symlink(&there, &link).expect("possible");
    let state = dir.path().join("state");
    let text = format!(
        "[server]\ndata_dir = \"{}\"\n[[sink]]\nkind = \"file\"\npath = \"{}\"\n",
        state.display(),
        link.display()
    );
    assert!(report(&text).contains("lies among the files of the trail"), "a link to a file that is not there yet");
    for path in ["audit.ndjson", "state.ndjson", "state/sinks/audit.ndjson", "state/../audit.ndjson"] {
        assert_eq!(of(path), "", "{path}");
    }
}

#[test]
fn two_sinks_of_a_kind_need_names() {
    let two = "[[sink]]\nkind = \"file\"\npath = \"a\"\n[[sink]]\nkind = \"file\"\npath = \"b\"\n";
    let unnamed = report(two);
    assert!(unnamed.contains("more than one [[sink]] named \"file\"") && unnamed.contains("gw.toml:4:1"), "{unnamed}");
    assert_eq!(report(&two.replace("path = \"b\"", "path = \"b\"\nname = \"other\"")), "");
}

#[test]
fn sinks_have_the_defaults_the_manual_says() {
    let text = r#"
[[sink]]
kind = "file"
path = "a"
[[sink]]
kind = "syslog"
address = "[::1]:6514"
[[sink]]
kind = "s3"
bucket = "abc"
region = "eu-central-1"
[[sink]]
kind = "s3"
name = "own"
bucket = "abc"
region = "eu-central-1"
endpoint = "http://localhost:9000/"
"#;
    let sinks = parse_named(text).unwrap_or_else(|error| panic!("{error}")).sinks;
    let names: Vec<_> = sinks.iter().map(|sink| (sink.name.as_str(), sink.kind.name())).collect();
    assert_eq!(names, [("file", "file"), ("syslog", "syslog"), ("s3", "s3"), ("own", "s3")]);
    assert_eq!((sinks[0].batch_events, sinks[0].batch_bytes, sinks[0].flush), (500, 512 << 10, Duration::from_secs(1)));
    assert_eq!(
        (sinks[2].batch_events, sinks[2].batch_bytes, sinks[2].flush),
        (10_000, 8 << 20, Duration::from_secs(60))
    );
    assert_eq!((sinks[0].timeout, sinks[0].retry_max), (Duration::from_secs(10), Duration::from_secs(60)));
    let SinkKind::File(file) = &sinks[0].kind else { panic!("{:?}", sinks[0]) };
    assert_eq!((file.rotate_bytes, file.rotate_every, file.keep, file.sync), (100 << 20, None, None, true));
    let SinkKind::Syslog(syslog) = &sinks[1].kind else { panic!("{:?}", sinks[1]) };
    assert_eq!((syslog.host.as_str(), syslog.port, syslog.facility, syslog.confirm), ("::1", 6514, 13, true));
    let url = |sink: &Sink| match &sink.kind {
        SinkKind::S3(s3) => s3.aws.place.url.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(url(&sinks[2]), "https://abc.s3.eu-central-1.amazonaws.com");
    assert_eq!(url(&sinks[3]), "http://localhost:9000/abc");
}

#[test]
fn the_example_is_valid_without_a_warning() {
    let config = parse_named(EXAMPLE).unwrap_or_else(|error| panic!("{error}"));
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    assert_eq!(config.rules.len(), 4);
    assert_eq!(config.server.data_dir, PathBuf::from("/etc/lockgate/data"));
}

#[test]
fn the_example_shows_every_key_and_says_the_defaults() {
    fn keys(schema: &serde_json::Value, found: &mut Vec<String>) {
        for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
            found.push(name.clone());
            keys(inner, found);
        }
        schema["$defs"].as_object().into_iter().flatten().for_each(|(_, inner)| keys(inner, found));
    }
    let mut known = Vec::new();
    keys(&schema(), &mut known);
    assert!(known.len() > 60, "{known:?}");
    let words: Vec<&str> = EXAMPLE.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
    // `users` and the like are the same everywhere: shown once is enough.
    let missing: Vec<_> = known.iter().filter(|key| !words.contains(&key.as_str())).collect();
    assert!(missing.is_empty(), "not in the example: {missing:?}");

    let (shown, plain) = (parse_named(EXAMPLE).unwrap(), parse_named("").unwrap());
    assert_eq!(format!("{:?}", shown.server), format!("{:?}", plain.server));
    assert_eq!(format!("{:?}", shown.audit), format!("{:?}", plain.audit));
    assert_eq!((shown.ops.address, shown.web.address), (plain.ops.address, plain.web.address));
}

#[test]
fn every_key_of_the_schema_is_described_and_none_may_be_null() {
    fn walk(path: &str, schema: &serde_json::Value, bare: &mut Vec<String>) {
        for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
            let items = &inner["items"];
            if inner["description"].is_null() && inner["$ref"].is_null() && items["$ref"].is_null() {
                bare.push(format!("{path}.{name}"));
            }
        }
        schema["$defs"].as_object().into_iter().flatten().for_each(|(name, inner)| walk(name, inner, bare));
    }
    let mut bare = Vec::new();
    walk("", &schema(), &mut bare);
    assert!(bare.is_empty(), "{bare:?}");
    assert!(!schema().to_string().contains("null\"]") && !schema().to_string().contains("\"type\":\"null\""));
    assert_eq!(schema()["additionalProperties"], false);
}

#[test]
fn names_of_the_contract_are_all_known() {
    let classes = "select insert update delete merge truncate create alter drop grant revoke copy_in copy_out \
        copy_program call do execute prepare declare fetch explain set show transaction lock listen vacuum comment \
        replication function_call other unparsed";
    let list: Vec<String> = classes.split_whitespace().map(|name| format!("{name:?}")).collect();
    let config = parse_named(&format!(
        "[[rule]]\nname = \"r\"\naction = \"deny\"\nclasses = [{}]\n[[mask]]\ndetect = [\"card\", \"email\", \"ssn\", \
         \"iban\", \"phone\", \"jwt\", \"aws_key\"]\nstyle = \"token\"\n",
        list.join(", ")
    ))
    .unwrap();
    assert_eq!(config.rules[0].classes.len(), 32);
    assert_eq!(config.masks[0].detect.len(), 7);
}

#[test]
fn a_whole_configuration_means_what_it_says() {
    let config = parse_named(
        r#"
        [server]
        data_dir = "/var/lib/lockgate"
        [[issuer]]
        name = "dev"
        issuer = "dev"
        audience = "lockgate"
        algorithms = ["EdDSA", "EdDSA"]
        jwks_file = "jwks.json"
        leeway = "30s"
        [[target]]
        name = "orders"
        protocol = "postgres"
        address = "[::1]:5432"
        database = "shop"
        user = "svc"
        credential = "orders"
        tls = "disable"
        connection_limit = 200
        [[grant]]
        targets = ["ord*"]
        actors = ["bot@2.*"]
        max_session = "8h"
        connection_limit = 20
        replication = true
        approval = { approvers = ["leads"], count = 2, expires = "1m", self = true }
        [[rule]]
        name = "r"
        tables = ["billing.*"]
        words = ["PG_Sleep"]
        action = "approve"
        approvers = ["dba", "local"]
        "#,
    )
    .unwrap();
    assert_eq!(config.server.data_dir, PathBuf::from("/var/lib/lockgate"));
    let issuer = &config.issuers[0];
    assert_eq!(issuer.algorithms, [Algorithm::EdDsa]);
    assert_eq!(issuer.keys, KeySource::File("/etc/lockgate/jwks.json".into()));
    assert_eq!((issuer.groups_claim.as_str(), issuer.leeway), ("groups", Duration::from_secs(30)));
    assert_eq!(issuer.actor_claims, ["act", "azp", "agent_version"]);
    let target = config.target("orders").unwrap();
    assert_eq!((target.host.as_str(), target.port), ("::1", 5432));
    assert_eq!(target.credential, Credential::Store("orders".into()));
    let grant = &config.grants[0];
    assert_eq!((grant.name.as_str(), grant.replication), ("grant-1", true));
    assert_eq!(grant.max_session, Some(Duration::from_secs(8 * 3600)));
    assert_eq!((target.connection_limit, grant.connection_limit), (Some(200), Some(20)));
    let terms = grant.approval.as_ref().unwrap();
    assert_eq!((terms.count, terms.expires_s, terms.own), (2, 60, true));
    let rule = &config.rules[0];
    assert_eq!((rule.targets[0].as_str(), rule.words[0].as_str()), ("*", "pg_sleep"));
    let RuleAction::Approve(terms) = &rule.action else { panic!("{:?}", rule.action) };
    assert_eq!((terms.count, terms.expires_s, terms.own), (1, 600, false));
}

#[test]
fn what_is_archived_by_nobody_or_read_by_nobody() {
    check(
        r#"[audit]
archive = false
archiver = "external"
archive_credentials_file = "c"
"#,
        r#"
warning: nothing leaves the ring of segments: statements block once it is full
 --> gw.toml:2:11
  |
2 | archive = false
  |           ^^^^^ `archive = true`, but to look at segments as they are
warning: no archiver has work to do: `archive` is false
 --> gw.toml:3:12
  |
3 | archiver = "external"
  |            ^^^^^^^^^^
warning: nobody reads these credentials: nothing goes to an object store
 --> gw.toml:4:28
  |
4 | archive_credentials_file = "c"
  |                            ^^^ `archive_url`
"#,
    );
    check(
        r#"[audit]
archiver = "off"
keep_segments = true
"#,
        r#"
warning: without an archiver all segments are kept as they are, with `keep_segments` or not
 --> gw.toml:3:17
  |
3 | keep_segments = true
  |                 ^^^^
"#,
    );
    assert_eq!(report("[audit]\nkeep_segments = true\narchive = true\narchiver = \"external\"\n"), "");
}

#[test]
fn sessions_may_take_their_time_to_end_or_a_bounded_one() {
    let of = |text: &str| parse_named(text).unwrap().server.drain_timeout;
    assert_eq!((of(""), of("[server]\ndrain_timeout = \"5m\"\n")), (None, Some(Duration::from_secs(300))));
    check(
        "[server]\ndrain_timeout = \"900ms\"\n",
        r#"
error: `drain_timeout` is too short
 --> gw.toml:2:17
  |
2 | drain_timeout = "900ms"
  |                 ^^^^^^^ at least 1s
"#,
    );
}

#[test]
fn an_empty_file_is_a_gateway_that_does_nothing_and_says_so() {
    let config = parse_named("").unwrap();
    let warnings: Vec<&str> = config.warnings.iter().map(|warning| warning.message.as_str()).collect();
    assert_eq!(
        warnings,
        [
            "there is no [[listener]]: nobody can connect",
            "there is no [[issuer]]: no token will be believed",
            "there is no [[target]]: there is nothing to open",
        ]
    );
    assert!(config.server.shards >= 1);
}

#[test]
fn files_that_cannot_be_read_are_reported_like_any_mistake() {
    let folder = tempfile::tempdir().unwrap();
    let absent = load(&folder.path().join("absent.toml")).unwrap_err().to_string();
    assert!(absent.contains("could not open the configuration: No such file"), "{absent}");

    let latin = folder.path().join("latin.toml");
    std::fs::write(&latin, b"[server]\ndata_dir = \"caf\xe9\"\n").unwrap();
    let error = load(&latin).unwrap_err();
    assert_eq!((error.findings[0].line, error.findings[0].column), (Some(2), Some(16)), "{error}");

    let huge = folder.path().join("huge.toml");
    std::fs::write(&huge, vec![b'#'; CONFIG_BYTES_MAX as usize + 1]).unwrap();
    assert!(load(&huge).unwrap_err().to_string().contains("larger than 4 MiB"));
    assert!(load(folder.path()).unwrap_err().to_string().contains("is not a file"));
}

/// Any text is either a configuration or a report: never a panic. Cuts and bit flips of the example, from a fixed seed.
#[test]
fn damaged_examples_are_refused_or_understood() {
    const DIRT: &[u8] = b"\"'[]{}=.,# \n\x00\x7f09azAZ";
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed % below as u64) as usize
    };
    for _ in 0..300 {
        let mut bytes = EXAMPLE.as_bytes().to_vec();
        for _ in 0..1 + next(4) {
            let at = next(bytes.len());
            match next(3) {
                0 => bytes[at] = DIRT[next(DIRT.len())],
                1 => drop(bytes.drain(at..(at + 1 + next(40)).min(bytes.len()))),
                _ => bytes.truncate(at.max(1)),
            }
        }
        let text = String::from_utf8_lossy(&bytes);
        if let Err(error) = parse_named(&text) {
            assert!(error.findings.iter().any(|finding| finding.severity == "error"), "{text}");
            assert!(!error.to_string().contains('\0'));
        }
    }
}

#[test]
fn a_secret_in_the_file_never_reaches_the_report() {
    for text in [
        "[[target]]\nname = \"a\"\npassword = \"hunter2\"\n",
        "[[target]]\npassword=\"hunter2\n",
        "target = [{ secret = \"hunter2\", name = \"a\" }]\n",
    ] {
        let report = report(text);
        assert!(report.contains("error") && !report.contains("hunter2"), "{report}");
    }
}

#[test]
fn a_file_that_would_be_waited_for_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("gw.toml");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let error = super::load(&fifo).unwrap_err().to_string();
    assert!(
        error.contains("could not open the configuration: is not a file but a folder, a FIFO or a device"),
        "{error}"
    );
}
