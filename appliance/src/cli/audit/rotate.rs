//! `lockgate audit rotate-key`: puts the next key beside the one in use, where the archiver finds it, and waits until it signs.

use super::Trail;
use crate::audit::archive::key::{self, PublicKey, SigningKey};
use crate::audit::segment;
use crate::cli::out::print;
use crate::cli::{ANSWER_NO, DONE};
use anyhow::{Context as _, Result};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// The archiver looks once a second. A key that does not sign by then is said not to.
const TAKE_OVER_PATIENCE: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(100);

#[derive(clap::Args)]
pub struct RotateKeyArgs {
    /// The key in use, instead of the configured one
    #[arg(long, value_name = "FILE", env = "LOCKGATE_CHECKPOINT_KEY_FILE")]
    checkpoint_key_file: Option<PathBuf>,
    #[command(flatten)]
    trail: Trail,
}

pub fn run(args: &RotateKeyArgs) -> Result<ExitCode> {
    let audit = args.trail.configuration().map(|config| config.audit);
    let (key_file, credential) =
        audit.map_or((None, None), |audit| (audit.checkpoint_key_file, audit.checkpoint_key_credential));
    let configured = || -> Result<PathBuf> {
        let data_dir = args.trail.data_dir()?;
        Ok(key_file.unwrap_or_else(|| key::path(&data_dir)))
    };
    if let (Some(name), None) = (credential, &args.checkpoint_key_file) {
        note!(
            "lockgate: the key is the entry {name} of the encrypted store. To change it: `openssl rand -hex 32 | lockgate credentials \
             set {name}.next`, start the gateway again, and when `audit verify` shows the new key, store it as {name} and remove {name}.next"
        );
        return Ok(ExitCode::from(ANSWER_NO));
    }
    let file = args.checkpoint_key_file.clone().map_or_else(configured, Ok)?;
    let Some(public) = key::rotate(&file).context("no next key was made")? else {
        note!(
            "lockgate: {} waits to take over already: is the archiver at work? To have another instead, remove that file first",
            key::next_path(&file).display()
        );
        return Ok(ExitCode::from(ANSWER_NO));
    };
    let printed = print(&format!("{}\n", segment::hex(&public)));
    let next = key::next_path(&file);
    match is_taken(&next, &public) {
        true => note!("checkpoints are signed by it from now on; keep this public key with the others you trust"),
        false => note!(
            "it does not sign yet: is the archiver at work? It takes over within a second of the archiver's next look; until then it \
             lies in {}. Keep this public key with the others you trust",
            next.display()
        ),
    }
    printed.with_context(|| format!("the next key is {}", segment::hex(&public)))?;
    Ok(ExitCode::from(DONE))
}

/// Waits until the archiver has put it in the place of the one before. (Another rotation may have replaced it there since.)
fn is_taken(next: &Path, public: &PublicKey) -> bool {
    let until = Instant::now() + TAKE_OVER_PATIENCE;
    loop {
        let waits = SigningKey::read(next).is_ok_and(|key| key.public() == *public);
        if !waits || Instant::now() >= until {
            return !waits;
        }
        std::thread::sleep(LOOK_EVERY);
    }
}
