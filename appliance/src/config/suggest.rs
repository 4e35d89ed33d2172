//! "Did you mean": the nearest of a few known names.

/// The name that was probably meant, if one is near enough to be worth saying.
pub fn nearest<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let given = plain(given);
    known
        .into_iter()
        .map(|name| (distance(&given, &plain(name)), name))
        .filter(|(distance, name)| *distance <= (name.chars().count().min(given.len()) / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// Case and the choice between `-` and `_` are not what tells names apart.
fn plain(name: &str) -> Vec<char> {
    name.chars().take(NAME_CHARS_MAX).flat_map(char::to_lowercase).map(|c| if c == '-' { '_' } else { c }).collect()
}

/// Longer names are compared by their beginnings: the distance takes the product of both lengths.
const NAME_CHARS_MAX: usize = 80;

/// Edits (insert, delete, replace, swap neighbours) from one to the other: optimal string alignment.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replace = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replace.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_was_meant_and_nothing_far_fetched() {
        let known = ["address", "allow_plaintext", "protocol", "tls"];
        for (given, expected) in [
            ("adress", Some("address")),
            ("addres", Some("address")),
            ("protocl", Some("protocol")),
            ("porotocol", Some("protocol")),
            ("allow-plaintext", Some("allow_plaintext")),
            ("TLS", Some("tls")),
            ("tsl", Some("tls")),
            ("colour", None),
            ("", None),
        ] {
            assert_eq!(nearest(given, known), expected, "{given}");
        }
    }
}
