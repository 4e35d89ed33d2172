//! Secrets that are kept out of what is quoted of an answer: a receiver may repeat the request that it got.

use super::sigv4::encoded;
use reqwest::header::{HeaderMap, HeaderValue};
use zeroize::Zeroizing;

const INSTEAD: &str = "[secret]";

/// What must not be told, in the forms in which an answer may quote it.
#[derive(Clone, Default)]
pub struct Hidden(Vec<Zeroizing<String>>);

impl Hidden {
    pub fn add(&mut self, secret: &str) {
        if secret.is_empty() {
            return;
        }
        let json = serde_json::Value::from(secret).to_string();
        let json = &json[1..json.len() - 1];
        let slashes = json.replace('/', "\\/");
        for form in [secret.to_owned(), json.to_owned(), slashes, in_html(secret), encoded(secret)] {
            if !self.0.iter().any(|known| **known == form) {
                self.0.push(Zeroizing::new(form));
            }
        }
        // One that holds another is looked for first.
        self.0.sort_by_key(|form| std::cmp::Reverse(form.len()));
    }

    /// What a request's headers tell in confidence: without the scheme that stands in front of a token.
    pub fn add_headers(&mut self, headers: &HeaderMap) {
        let texts = headers.values().filter(|value| value.is_sensitive()).filter_map(text);
        texts.for_each(|text| self.add(text.split_once(' ').map_or(text, |(_, token)| token)));
    }

    pub fn redact(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, form| text.replace(form.as_str(), INSTEAD))
    }
}

/// Tokens are UTF-8 where they are not ASCII.
fn text(value: &HeaderValue) -> Option<&str> {
    std::str::from_utf8(value.as_bytes()).ok()
}

fn in_html(secret: &str) -> String {
    secret.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_hidden_in_every_form_in_which_it_may_be_quoted() {
        let mut hidden = Hidden::default();
        hidden.add("a/b\"<c");
        hidden.add("a/b");
        for (text, told) in [
            ("got a/b\"<c!", "got [secret]!"),
            (r#"{"error":"a/b\"<c"}"#, r#"{"error":"[secret]"}"#),
            (r#"{"error":"a\/b\"<c"}"#, r#"{"error":"[secret]"}"#),
            ("<p>a/b&quot;&lt;c", "<p>[secret]"),
            ("?token=a%2Fb%22%3Cc", "?token=[secret]"),
            ("a/b and a", "[secret] and a"),
        ] {
            assert_eq!(hidden.redact(text), told);
        }
        assert_eq!(Hidden::default().redact("a"), "a");
    }

    #[test]
    fn tokens_are_told_by_the_headers_that_carry_them() {
        let mut headers = HeaderMap::new();
        for (name, value, sensitive) in [
            ("authorization", "Bearer t0ken", true),
            ("x-amz-security-token", "s3ssion", true),
            ("x-plain", "x", false),
        ] {
            let mut value = HeaderValue::from_static(value);
            value.set_sensitive(sensitive);
            headers.insert(name, value);
        }
        let mut hidden = Hidden::default();
        hidden.add_headers(&headers);
        assert_eq!(hidden.redact("Bearer t0ken, s3ssion, x"), "Bearer [secret], [secret], x");
    }
}
