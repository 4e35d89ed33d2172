//! The demo's data, its configuration and the lines to paste.

use super::household::Household;
use super::people::EVERYBODY;
use std::fmt::Write as _;

pub const ISSUER: &str = "https://issuer.demo.lockgate";
/// The target's name: what clients give as `dbname`.
pub const TARGET: &str = "shop";

/// The customers table and its rows. Card numbers are published test numbers; SSNs come from ranges never issued to
/// a living person's record in these combinations.
pub const SEED: &str = "
CREATE TABLE customers (id int PRIMARY KEY, name text NOT NULL, email text NOT NULL, card_number text NOT NULL, ssn text NOT NULL, note text);
CREATE TABLE orders (id int PRIMARY KEY, customer_id int NOT NULL REFERENCES customers, item text NOT NULL, cents int NOT NULL);
INSERT INTO customers VALUES
 (1, 'Ada Krol', 'ada.krol@example.org', '4111 1111 1111 1111', '219-09-9999', NULL),
 (2, 'Ben Osei', 'ben.osei@example.org', '5555 5555 5555 4444', '457-55-5462', 'called about card 4012 8888 8888 1881'),
 (3, 'Chen Wei', 'chen.wei@example.org', '3782 822463 10005', '078-05-1120', NULL),
 (4, 'Dina Haddad', 'dina.haddad@example.org', '6011 1111 1111 1117', '123-45-6780', 'prefers e-mail'),
 (5, 'Emil Novak', 'emil.novak@example.org', '5105 1051 0510 5100', '321-54-9870', NULL);
INSERT INTO orders VALUES (1, 1, 'lamp', 4900), (2, 1, 'desk', 23900), (3, 2, 'chair', 11900), (4, 3, 'shelf', 7900), (5, 4, 'rug', 15900), (6, 5, 'lamp', 4900);
";

/// The gateway's configuration for this household.
pub fn configuration(household: &Ports) -> String {
    let Ports { listen, web, ops, database } = household;
    format!(
        r#"# The demo's gateway. `lockgate config check` accepts it; change it and send the gateway HUP.
[server]
shards = 1
data_dir = "data"
pin = false

[ops]
address = "127.0.0.1:{ops}"

[web]
address = "127.0.0.1:{web}"

[[listener]]
protocol = "postgres"
address = "127.0.0.1:{listen}"
tls = {{ cert = "gateway.pem", key = "gateway.key" }}

[[issuer]]
name = "demo"
issuer = "{ISSUER}"
audience = "lockgate"
algorithms = ["ES256"]
jwks_file = "issuer/jwks.json"
actor_claims = ["act", "agent", "agent_version"]

[[target]]
name = "{TARGET}"
protocol = "postgres"
address = "127.0.0.1:{database}"
database = "shop"
user = "svc_shop"
password_file = "svc_shop.password"
tls = "disable"                       # the database is on this machine's loopback

[[grant]]
targets = ["{TARGET}"]
groups = ["engineering", "fraud"]

[[rule]]
name = "no-ddl"
targets = ["{TARGET}"]
classes = ["drop", "truncate", "alter", "grant"]
action = "deny"
message = "Schema changes go through a migration"

[[rule]]
name = "old-agent-only-reads"
targets = ["{TARGET}"]
actors = ["support-bot@1.*"]
classes = ["insert", "update", "delete", "merge", "copy_in", "create", "do", "call"]
action = "deny"
message = "support-bot 1.x may only read; deploy 2.x"

[[rule]]
name = "no-update-of-everything"
targets = ["{TARGET}"]
classes = ["update", "delete"]
missing_where = true
action = "deny"
message = "Add a WHERE clause"

[[rule]]
name = "deletes-need-a-reviewer"
targets = ["{TARGET}"]
classes = ["delete"]
action = "approve"
approvers = ["leads"]
count = 1
expires = "10m"

[[mask]]
targets = ["{TARGET}"]
except_groups = ["fraud"]
columns = ["customers.card_number", "*.ssn"]
detect = ["card", "ssn"]
style = "last4"

[audit]
durability = "group"
segment_mib = 16
segments_per_shard = 4
"#
    )
}

/// Where everything listens.
pub struct Ports {
    pub listen: u16,
    pub web: u16,
    pub ops: u16,
    pub database: u16,
}

/// What a person pastes into a second terminal.
pub fn invitation(household: &Household) -> String {
    let mut text = String::new();
    let tokens = household.tokens_file().display().to_string();
    let config = household.config_file().display().to_string();
    let program = household.program().display().to_string();
    let listen = household.ports().listen;
    let _ = writeln!(text, "\nLockgate is running. In another terminal:\n");
    let _ = writeln!(text, "  . {tokens}                      # one token a person, good for eight hours");
    for person in EVERYBODY {
        let _ = writeln!(text, "      ${:<6} {}", person.variable, person.about);
    }
    let psql = format!("psql \"host=127.0.0.1 port={listen} dbname={TARGET} user=me sslmode=require\"");
    let lockgate = format!("{program} --config {config}");
    let lockgate = |verb: &str| lockgate.replacen(" --config", &format!(" {verb} --config"), 1);
    let paste = [
        ("cards and SSNs are masked for an engineer", format!("PGPASSWORD=$ALICE {psql} -c 'TABLE customers'")),
        ("and readable for a fraud analyst", format!("PGPASSWORD=$FRANK {psql} -c 'TABLE customers'")),
        ("DDL is refused, with the rule's text", format!("PGPASSWORD=$ALICE {psql} -c 'DROP TABLE orders'")),
        (
            "the agent: version 1.4 may not write, 2.0 may",
            format!("PGPASSWORD=$BOT1 {psql} -c \"UPDATE orders SET item = 'sofa' WHERE id = 2\""),
        ),
        ("a delete waits for a reviewer", format!("PGPASSWORD=$ALICE {psql} -c 'DELETE FROM orders WHERE id = 6'")),
        ("the reviewer, in a third terminal", lockgate("approvals ls")),
        ("", format!("LOCKGATE_TOKEN=$BOB {}", lockgate("approvals approve TICKET"))),
        ("who touched customers?", format!("{} --table customers", lockgate("audit search"))),
    ];
    for (about, line) in paste {
        if !about.is_empty() {
            let _ = writeln!(text, "\n  # {about}");
        }
        let _ = writeln!(text, "  {line}");
    }
    let _ = writeln!(
        text,
        "\nCtrl-C ends everything{}.",
        if household.keeps() { " and keeps the folder" } else { " and removes the folder" }
    );
    text
}
