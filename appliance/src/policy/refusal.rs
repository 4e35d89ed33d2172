//! What the user reads when a rule, or the lack of one, refuses a statement.

use super::Decision;
use codecs::postgres::Refusal;

/// insufficient_privilege
const NOT_ALLOWED: [u8; 5] = *b"42501";

impl Decision {
    /// For an ErrorResponse: the rule's own text where it has one, which rule it was, and what to do next.
    pub fn refusal(&self) -> Refusal {
        let message = match &self.message {
            Some(message) => message.to_string(),
            None if self.reason.is_empty() => "this statement is not allowed".to_owned(),
            None => self.reason.clone(),
        };
        let hint = match &self.rule {
            Some(_) => {
                "Nothing of this text was run. `lockgate explain` tells what would be allowed; whoever keeps the \
                 gateway's rules can change this one."
            }
            None => {
                "Nothing of this text was run. Rules apply to this session, so only what the gateway can read may run: \
                 send plain SQL text."
            }
        };
        Refusal {
            sqlstate: NOT_ALLOWED,
            message,
            detail: self.rule.as_ref().map(|rule| format!("rule \"{rule}\"")),
            hint: Some(hint.to_owned()),
        }
    }
}
