//! Keeps every issuer's keys current, on the control thread. Whatever goes wrong, keys once known stay known.
//!
//! ```text
//!   due when: the last answer's age is over | a token named an unknown key | the file changed | the configuration is new
//!   news_at --> what files say, and whom to ask --ask--> answers, as they come --take--> keys
//! ```

use super::discovery;
use super::jwks::{DOCUMENT_BYTES_MAX, Jwks};
use super::verify::{IssuerKeys, Verifier};
use crate::config::{Issuer, KeySource};
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};
use tokio::task::{JoinError, JoinSet};

/// How long keys are kept when the issuer does not say.
const FRESH_DEFAULT: Duration = Duration::from_secs(600);
/// What the issuer says is held to these bounds: no hammering, no keys from last week.
const FRESH_MIN: Duration = Duration::from_secs(30);
const FRESH_MAX: Duration = Duration::from_secs(24 * 3600);
/// Between two questions to an issuer because of unknown keys: anybody can invent a kid.
const UNKNOWN_KEY_PAUSE: Duration = Duration::from_secs(10);
/// An issuer that was asked and of whose answer nothing was heard, not even that it failed.
const LOST_ANSWER: Duration = Duration::from_secs(60);
/// After a failure, doubling up to the second.
const RETRY_MIN: Duration = Duration::from_secs(2);
const RETRY_MAX: Duration = Duration::from_secs(300);

/// Issuers (by name) that have other keys than before.
pub type Changed = Vec<(String, Arc<Jwks>)>;

/// What an issuer came up with.
pub struct Answer {
    issuer: Arc<Issuer>,
    found: Result<Jwks, String>,
}

/// Answers that are on their way.
pub type Asked = JoinSet<Answer>;

/// Every issuer of a configuration with what is known of its keys.
pub struct KeyKeeper {
    issuers: Vec<Kept>,
}

struct Kept {
    entry: IssuerKeys,
    /// When to ask next. `None`: at once.
    due: Option<Instant>,
    /// When the issuer was last asked, whatever came of it.
    asked: Option<Instant>,
    failures: u32,
    /// Of the key file, when it was last read with success.
    stamp: Option<(SystemTime, u64)>,
    /// Why the key file could not be read the last time: said once, not every second.
    told: Option<String>,
}

impl KeyKeeper {
    /// Knows no keys yet: call [`KeyKeeper::refresh_due`] once before the first [`KeyKeeper::verifier`].
    pub fn new(issuers: &[Issuer]) -> Self {
        let kept = |issuer: &Issuer| Kept {
            entry: IssuerKeys {
                issuer: Arc::new(issuer.clone()),
                keys: Default::default(),
                wanted: Default::default(),
            },
            due: None,
            asked: None,
            failures: 0,
            stamp: None,
            told: None,
        };
        Self { issuers: issuers.iter().map(kept).collect() }
    }

    /// For a changed configuration: issuers that stay keep their keys, everything is looked up again soon. This one goes on as it was,
    /// for a configuration that is refused after all.
    pub fn with_issuers(&self, issuers: &[Issuer]) -> Self {
        let mut next = Self::new(issuers);
        for kept in &mut next.issuers {
            if let Some(old) = self.issuers.iter().find(|old| old.is_of(&kept.entry.issuer)) {
                kept.entry.keys = old.entry.keys.clone();
            }
        }
        next
    }

    /// What the snapshot verifies tokens with, from the keys known now.
    pub fn verifier(&self) -> Verifier {
        Verifier::new(self.issuers.iter().map(|kept| kept.entry.clone()).collect())
    }

    /// Issuers by name of which no key is known: tokens of theirs are refused until one is.
    pub fn without_keys(&self) -> impl Iterator<Item = &str> {
        self.issuers.iter().filter(|kept| kept.entry.keys.keys.is_empty()).map(|kept| kept.entry.issuer.name.as_str())
    }

    /// Looks for news where it is time to and waits for all of it. `Some`: a new snapshot should be published. Failures are logged, and
    /// keep the old keys. For whoever cannot wait there are [`KeyKeeper::news`] and [`KeyKeeper::take`].
    pub async fn refresh_due(&mut self) -> Option<Changed> {
        self.refresh_due_at(Instant::now()).await
    }

    async fn refresh_due_at(&mut self, now: Instant) -> Option<Changed> {
        let mut asked = Asked::new();
        let mut changed = self.news_at(now, &mut asked);
        while let Some(answer) = asked.join_next().await {
            changed.extend(self.take_at(answer, now));
        }
        (!changed.is_empty()).then_some(changed)
    }

    /// Reads the files that changed and asks the issuers that are due, whose answers come through `asked`. Cheap when there is nothing
    /// to do, so call it about once a second.
    pub fn news(&mut self, asked: &mut Asked) -> Changed {
        self.news_at(Instant::now(), asked)
    }

    fn news_at(&mut self, now: Instant, asked: &mut Asked) -> Changed {
        let mut changed = Vec::new();
        for kept in &mut self.issuers {
            match kept.entry.issuer.keys.clone() {
                KeySource::File(path) => changed.extend(kept.look_at_file(&path)),
                KeySource::Discovery if kept.should_ask(now) => {
                    kept.asked = Some(now);
                    kept.due = Some(now + LOST_ANSWER);
                    ask(asked, kept.entry.issuer.clone());
                }
                KeySource::Discovery => {}
            }
        }
        changed
    }

    /// Takes an answer. One of an issuer that has gone meanwhile is dropped.
    pub fn take(&mut self, answer: Result<Answer, JoinError>) -> Option<(String, Arc<Jwks>)> {
        self.take_at(answer, Instant::now())
    }

    fn take_at(&mut self, answer: Result<Answer, JoinError>, now: Instant) -> Option<(String, Arc<Jwks>)> {
        match answer {
            Ok(Answer { issuer, found }) => self.issuers.iter_mut().find(|kept| kept.is_of(&issuer))?.take(found, now),
            Err(error) => {
                tracing::error!(%error, "a key refresh ended early");
                None
            }
        }
    }

    /// Reads the key files, and asks the issuers of which no key is known, all at once and no longer than that: a reload waits for it.
    /// Who does not answer in time is asked again with the others that are due.
    pub async fn find_missing(&mut self, patience: Duration) {
        let mut asked = Asked::new();
        for kept in &mut self.issuers {
            match kept.entry.issuer.keys.clone() {
                KeySource::File(path) => drop(kept.look_at_file(&path)),
                KeySource::Discovery if kept.entry.keys.keys.is_empty() => ask(&mut asked, kept.entry.issuer.clone()),
                KeySource::Discovery => {}
            }
        }
        let all = async {
            while let Some(answer) = asked.join_next().await {
                self.take(answer);
            }
        };
        let _ = tokio::time::timeout(patience, all).await;
    }
}

fn ask(asked: &mut Asked, issuer: Arc<Issuer>) {
    asked.spawn(async move {
        let found = discovery::fetch(&issuer).await.map_err(|error| error.to_string());
        Answer { issuer, found }
    });
}

impl Kept {
    /// The same issuer with its keys in the same place, whatever else a configuration says of it.
    fn is_of(&self, issuer: &Issuer) -> bool {
        let own = &self.entry.issuer;
        own.issuer == issuer.issuer && own.keys == issuer.keys
    }

    fn should_ask(&mut self, now: Instant) -> bool {
        let due = self.due.is_none_or(|due| now >= due);
        let rested = self.asked.is_none_or(|asked| now >= asked + UNKNOWN_KEY_PAUSE);
        let wanted = rested && self.entry.wanted.swap(false, Ordering::Relaxed);
        due || wanted
    }

    fn take(&mut self, found: Result<Jwks, String>, now: Instant) -> Option<(String, Arc<Jwks>)> {
        match found {
            Ok(keys) => {
                let fresh_for = keys.fresh_for.unwrap_or(FRESH_DEFAULT).clamp(FRESH_MIN, FRESH_MAX);
                self.due = Some(now + fresh_for);
                self.failures = 0;
                self.adopt(keys)
            }
            Err(error) => {
                let pause = (RETRY_MIN * 2u32.saturating_pow(self.failures.min(16))).min(RETRY_MAX);
                self.due = Some(now + pause);
                self.failures += 1;
                let name = &self.entry.issuer.name;
                tracing::warn!(issuer = %name, %error, known = self.entry.keys.keys.len(), "keys were not refreshed");
                None
            }
        }
    }

    /// Reads the file when its time or length is not what it was. One that cannot be read is tried again at each look: rights change
    /// neither.
    fn look_at_file(&mut self, path: &Path) -> Option<(String, Arc<Jwks>)> {
        let stamp = std::fs::metadata(path).and_then(|found| Ok((found.modified()?, found.len())));
        if stamp.as_ref().is_ok_and(|stamp| self.stamp == Some(*stamp)) {
            return None;
        }
        let read = stamp.map_err(|error| error.to_string()).and_then(|stamp| Ok((stamp, read_keys(path)?)));
        match read {
            Ok((stamp, keys)) => {
                self.stamp = Some(stamp);
                self.told = None;
                self.adopt(keys)
            }
            Err(error) => {
                let issuer = &self.entry.issuer.name;
                if self.told.as_ref() != Some(&error) {
                    tracing::warn!(%issuer, path = %path.display(), %error, "keys were not read");
                }
                // Also the file that was there before is read when it comes back.
                self.stamp = None;
                self.told = Some(error);
                None
            }
        }
    }

    fn adopt(&mut self, keys: Jwks) -> Option<(String, Arc<Jwks>)> {
        let name = self.entry.issuer.name.clone();
        if self.entry.keys.same_keys(&keys) {
            return None;
        }
        for warning in &keys.warnings {
            tracing::warn!(issuer = %name, "{warning}");
        }
        tracing::info!(issuer = %name, keys = keys.keys.len(), "keys changed");
        self.entry.keys = Arc::new(keys);
        Some((name, self.entry.keys.clone()))
    }
}

/// Reads a key file, no further than a key set may be long.
pub fn read_keys(path: &Path) -> Result<Jwks, String> {
    let mut document = Vec::new();
    let file = crate::files::open(path).map_err(|error| error.to_string())?;
    file.take(DOCUMENT_BYTES_MAX as u64 + 1).read_to_end(&mut document).map_err(|error| error.to_string())?;
    Jwks::parse(&document).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::super::discovery::tests::{TestIssuer, runtime};
    use super::*;
    use crate::identity::TokenError;
    use crate::identity::development::{NewKey, SigningKey};
    use crate::identity::issuer_for_tests;
    use serde_json::json;

    fn key() -> SigningKey {
        SigningKey::generate(NewKey::Es256).expect("a key")
    }

    fn token(key: &SigningKey, issuer: &str) -> String {
        let claims = json!({"iss": issuer, "aud": "lockgate", "sub": "ann", "exp": 2_000_000_000});
        key.token(&claims).expect("signs")
    }

    fn verdict(keeper: &KeyKeeper, token: &str) -> Option<TokenError> {
        keeper.verifier().verify(token.as_bytes(), 1_900_000_000).err()
    }

    #[test]
    fn keys_are_asked_for_when_their_age_is_over_and_not_before() {
        runtime().block_on(async {
            let issuer = TestIssuer::start(&key().jwks()).await;
            let asked = || issuer.answers.lock().expect("no panic").asked;
            issuer.change(|answers| answers.cache_control = Some("max-age=60"));
            let mut keeper = KeyKeeper::new(&[issuer.config()]);
            assert_eq!(keeper.without_keys().count(), 1);
            let start = Instant::now();
            assert!(keeper.refresh_due_at(start).await.is_some());
            assert_eq!((asked(), keeper.without_keys().count()), (1, 0));
            assert!(keeper.refresh_due_at(start + Duration::from_secs(59)).await.is_none());
            assert_eq!(asked(), 1);
            assert!(
                keeper.refresh_due_at(start + Duration::from_secs(60)).await.is_none(),
                "the same keys are no news"
            );
            assert_eq!(asked(), 2);
        });
    }

    #[test]
    fn an_issuers_wish_for_haste_or_patience_has_bounds() {
        runtime().block_on(async {
            let issuer = TestIssuer::start(&key().jwks()).await;
            for (said, at_least, at_most) in
                [("no-store", FRESH_MIN, FRESH_MIN), ("max-age=99999999", FRESH_MAX, FRESH_MAX)]
            {
                issuer.change(|answers| answers.cache_control = Some(said));
                let mut keeper = KeyKeeper::new(&[issuer.config()]);
                let start = Instant::now();
                keeper.refresh_due_at(start).await;
                let due = keeper.issuers[0].due.expect("asked once");
                assert!(due >= start + at_least && due <= start + at_most, "{said}");
            }
        });
    }

    #[test]
    fn an_unknown_key_is_fetched_at_once_but_not_for_every_invention() {
        runtime().block_on(async {
            let (old, new) = (key(), key());
            let issuer = TestIssuer::start(&old.jwks()).await;
            let asked = || issuer.answers.lock().expect("no panic").asked;
            let mut keeper = KeyKeeper::new(&[issuer.config()]);
            let start = Instant::now();
            keeper.refresh_due_at(start).await;
            issuer.change(|answers| answers.keys = new.jwks().to_string());
            let token = token(&new, &issuer.url);
            let soon = start + UNKNOWN_KEY_PAUSE;
            assert!(keeper.refresh_due_at(soon).await.is_none(), "nobody asked for it");
            assert_eq!(verdict(&keeper, &token), Some(TokenError::UnknownKey));
            assert!(keeper.refresh_due_at(start + UNKNOWN_KEY_PAUSE / 2).await.is_none(), "too soon");
            assert_eq!(asked(), 1);
            assert!(keeper.refresh_due_at(soon).await.is_some(), "the wish was kept");
            assert_eq!(verdict(&keeper, &token), None);
            assert!(keeper.refresh_due_at(soon + UNKNOWN_KEY_PAUSE).await.is_none());
            assert_eq!(asked(), 2, "a wish is answered once");
        });
    }

    #[test]
    fn known_keys_go_on_while_the_issuer_is_down() {
        runtime().block_on(async {
            let key = key();
            let issuer = TestIssuer::start(&key.jwks()).await;
            let mut keeper = KeyKeeper::new(&[issuer.config()]);
            let start = Instant::now();
            keeper.refresh_due_at(start).await;
            issuer.change(|answers| answers.status = 500);
            let mut at = start + FRESH_DEFAULT;
            for _ in 0..20 {
                assert!(keeper.refresh_due_at(at).await.is_none());
                assert_eq!(verdict(&keeper, &token(&key, &issuer.url)), None);
                let due = keeper.issuers[0].due.expect("tried");
                assert!(due > at && due <= at + RETRY_MAX);
                at = due;
            }
            issuer.change(|answers| {
                answers.status = 200;
                answers.keys = r#"{"keys":[]}"#.into();
            });
            assert!(keeper.refresh_due_at(at).await.is_some(), "an empty key set takes the keys away");
            assert_eq!(verdict(&keeper, &token(&key, &issuer.url)), Some(TokenError::UnknownKey));
        });
    }

    #[test]
    fn a_key_file_is_read_again_when_it_changes() {
        runtime().block_on(async {
            let dir = tempfile::tempdir().expect("a folder");
            let path = dir.path().join("jwks.json");
            let (old, new) = (key(), key());
            let issuer = Issuer { keys: KeySource::File(path.clone()), ..issuer_for_tests("dev", "lockgate") };
            let write = |text: &str, second: u64| {
                std::fs::write(&path, text).expect("writes");
                let file = std::fs::File::options().write(true).open(&path).expect("opens");
                file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(second)).expect("a time");
            };
            let mut keeper = KeyKeeper::new(&[issuer]);
            assert!(keeper.refresh_due().await.is_none(), "no file yet");
            write(&old.jwks().to_string(), 1);
            assert!(keeper.refresh_due().await.is_some());
            assert!(keeper.refresh_due().await.is_none());
            write(&new.jwks().to_string(), 2);
            assert!(keeper.refresh_due().await.is_some());
            assert_eq!(verdict(&keeper, &token(&new, "dev")), None);
            write("half a fi", 3);
            assert!(keeper.refresh_due().await.is_none());
            assert_eq!(verdict(&keeper, &token(&new, "dev")), None, "a broken file keeps the keys");
            std::fs::remove_file(&path).expect("removes");
            assert!(keeper.refresh_due().await.is_none());
            assert_eq!(verdict(&keeper, &token(&new, "dev")), None, "so does a missing one");
            write(&old.jwks().to_string(), 2);
            assert!(keeper.refresh_due().await.is_some());
        });
    }

    /// After a chmod neither time nor length tells that it can be read now.
    #[test]
    fn a_key_file_that_could_not_be_read_is_read_as_soon_as_it_can_be() {
        runtime().block_on(async {
            let dir = tempfile::tempdir().expect("a folder");
            let path = dir.path().join("jwks.json");
            let key = key();
            let issuer = Issuer { keys: KeySource::File(path.clone()), ..issuer_for_tests("dev", "lockgate") };
            let write = |text: &str| {
                std::fs::write(&path, text).expect("writes");
                let file = std::fs::File::options().write(true).open(&path).expect("opens");
                file.set_modified(SystemTime::UNIX_EPOCH).expect("a time");
            };
            let good = key.jwks().to_string();
            let mut keeper = KeyKeeper::new(&[issuer]);
            write(&"x".repeat(good.len()));
            assert!(keeper.refresh_due().await.is_none());
            let told = keeper.issuers[0].told.clone();
            assert!(told.is_some());
            assert!(keeper.refresh_due().await.is_none());
            assert_eq!(keeper.issuers[0].told, told, "the same again is not said again");
            write(&good);
            assert!(keeper.refresh_due().await.is_some());
            assert_eq!((verdict(&keeper, &token(&key, "dev")), &keeper.issuers[0].told), (None, &None));
        });
    }

    #[test]
    fn a_new_configuration_keeps_the_keys_of_issuers_that_stay() {
        runtime().block_on(async {
            let key = key();
            let issuer = TestIssuer::start(&key.jwks()).await;
            let mut keeper = KeyKeeper::new(&[issuer.config()]);
            keeper.refresh_due().await;
            issuer.change(|answers| answers.status = 500);
            let other = issuer_for_tests("https://other.invalid", "lockgate");
            let next = keeper.with_issuers(&[other.clone(), issuer.config()]);
            assert_eq!(verdict(&next, &token(&key, &issuer.url)), None);
            assert_eq!(next.without_keys().count(), 1);
            // If that configuration is refused, nothing was forgotten.
            let refused = keeper.with_issuers(&[other]);
            assert_eq!((refused.without_keys().count(), keeper.without_keys().count()), (1, 0));
            assert_eq!(verdict(&keeper, &token(&key, &issuer.url)), None);
        });
    }

    /// Accepts and never answers.
    async fn silent_issuer() -> (tokio::net::TcpListener, Issuer) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        (listener, issuer_for_tests(&url, "lockgate"))
    }

    #[test]
    fn a_silent_issuer_holds_up_neither_a_reload_nor_the_keys_of_others() {
        runtime().block_on(async {
            let key = key();
            let issuer = TestIssuer::start(&key.jwks()).await;
            let (_listener, silent) = silent_issuer().await;
            let mut keeper = KeyKeeper::new(&[silent.clone(), issuer.config()]);
            let mut asked = Asked::new();
            assert!(keeper.news(&mut asked).is_empty());
            assert_eq!(asked.len(), 2);
            let first = asked.join_next().await.expect("an answer");
            assert!(keeper.take(first).is_some());
            assert_eq!(verdict(&keeper, &token(&key, &issuer.url)), None);
            assert!(keeper.news(&mut asked).is_empty());
            assert_eq!(asked.len(), 1, "who is being asked is not asked again");

            let mut fresh = KeyKeeper::new(&[silent.clone(), issuer.config()]);
            let start = Instant::now();
            fresh.find_missing(Duration::from_secs(1)).await;
            assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
            assert_eq!(verdict(&fresh, &token(&key, &issuer.url)), None);
            assert!(fresh.issuers[0].due.is_none(), "asked again as soon as others are");

            let known = issuer.answers.lock().expect("no panic").asked;
            let mut known_already = keeper.with_issuers(&[issuer.config()]);
            known_already.find_missing(Duration::from_secs(1)).await;
            assert_eq!(issuer.answers.lock().expect("no panic").asked, known, "its keys are known");
        });
    }

    #[test]
    fn an_answer_of_an_issuer_that_is_gone_is_dropped() {
        runtime().block_on(async {
            let issuer = TestIssuer::start(&key().jwks()).await;
            let mut keeper = KeyKeeper::new(&[issuer.config()]);
            let mut asked = Asked::new();
            keeper.news(&mut asked);
            let mut next = keeper.with_issuers(&[issuer_for_tests("https://other.invalid", "lockgate")]);
            assert!(next.take(asked.join_next().await.expect("an answer")).is_none());
        });
    }
}
