//! Secrets of sinks: read when a sink is made and after each reload, never kept in the configuration, never told.

use super::deliver::Failure;
use crate::config::Secret;
use std::io::Read as _;
use zeroize::Zeroizing;

/// A file beyond this many bytes holds something else.
const BYTES_MAX: u64 = 64 << 10;

/// One line break at the end of a file is not part of it.
pub fn read(place: &Secret) -> Result<Zeroizing<String>, Failure> {
    let text = match place {
        Secret::Env(name) => Zeroizing::new(std::env::var(name).map_err(|_| {
            let mend = format!("set {name} for the gateway's process, or name a file");
            Failure::mend(format!("the environment variable {name} is not set, or no text"), mend)
        })?),
        Secret::File(path) => {
            let mut text = Zeroizing::new(String::new());
            let file = crate::files::open(path);
            file.and_then(|file| file.take(BYTES_MAX).read_to_string(&mut text)).map_err(|error| {
                let mend = format!("put the secret there, readable for the gateway: {}", path.display());
                Failure::mend(format!("{} cannot be read: {error}", path.display()), mend)
            })?;
            text
        }
    };
    let secret = Zeroizing::new(text.strip_suffix('\n').map_or(&**text, |text| text.trim_end_matches('\r')).to_owned());
    if secret.is_empty() || secret.chars().any(char::is_control) {
        let place = match place {
            Secret::Env(name) => format!("the environment variable {name}"),
            Secret::File(path) => path.display().to_string(),
        };
        return Err(Failure::mend(format!("{place} holds no secret"), "put one line of text there"));
    }
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_without_its_line_end_and_a_missing_or_empty_one_is_told_by_its_path() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("token");
        let of = || read(&Secret::File(path.clone()));
        assert!(
            matches!(of(), Err(Failure::Later { what, mend: Some(_), .. }) if what.contains("token cannot be read"))
        );
        for (text, secret) in [("s3cret", Some("s3cret")), ("s3cret\r\n", Some("s3cret")), ("\n", None), ("a\nb", None)]
        {
            std::fs::write(&path, text).expect("written");
            assert_eq!(of().ok().as_deref().map(String::as_str), secret, "{text:?}");
        }
        assert!(read(&Secret::Env("LOCKGATE_TEST_NO_SUCH_VARIABLE".into())).is_err());
    }
}
