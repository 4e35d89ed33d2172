//! Texts that clients send, for benches.

/// pgbench -S: one statement for each account.
pub fn accounts() -> Vec<String> {
    (0..1024).map(|n| format!("SELECT abalance FROM pgbench_accounts WHERE aid = {};", 1 + n * 977)).collect()
}

/// 1,024 times [`mapper`]'s, each with constants of its own.
pub fn mappers() -> Vec<String> {
    let one = mapper();
    let other = |n: usize| {
        one.replace("2024-01-01", &format!("2024-01-{:02}", 1 + n % 28))
            .replace("someone@", &format!("someone{n}@"))
            .replace("BETWEEN 10 AND 99.5", &format!("BETWEEN {} AND {}.5", n % 90, 100 + n))
            .replace("OFFSET 100", &format!("OFFSET {}", n * 50))
    };
    (0..1024).map(other).collect()
}

/// As an object-relational mapper writes it.
pub fn mapper() -> String {
    let columns: Vec<String> = (0..12).map(|n| format!("\"public\".\"Customer\".\"column_{n}\"")).collect();
    format!(
        "SELECT {} FROM \"public\".\"Customer\" LEFT JOIN orders AS o ON o.customer_id = \"Customer\".id AND o.placed >= \
         '2024-01-01' WHERE (\"public\".\"Customer\".\"email\" = 'someone@example.com' AND o.total BETWEEN 10 AND 99.5) \
         LIMIT 50 OFFSET 100",
        columns.join(", ")
    )
}
