//! A receiver whose certificate is not taken: why, in words, and what to do.

use super::deliver::Failure;
use crate::distrust;
use std::error::Error;
use std::io;

/// Why the receiver's certificate was refused, if that is what went wrong. `place` begins the sentence.
pub fn refused(place: &str, error: &(dyn Error + 'static)) -> Option<Failure> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        // Its `source` passes over what it holds itself.
        let held = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let inner = held.and_then(|held| held.downcast_ref()).or_else(|| error.downcast_ref());
        if let Some((why, mend)) = inner.and_then(distrust::of) {
            return Some(Failure::mend(format!("{place}{why}"), mend));
        }
        cause = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::CertificateError;

    #[derive(Debug, thiserror::Error)]
    #[error("outside")]
    struct Outside(#[source] io::Error);

    #[test]
    fn a_refused_certificate_is_found_in_what_wraps_it_and_told_in_words() {
        let error = Outside(io::Error::other(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)));
        let Some(Failure::Later { what, mend: Some(mend), .. }) = refused("a: ", &error) else {
            panic!("it is one: {error:?}")
        };
        assert!(what.starts_with("a: ") && what.contains("authorities") && mend.contains("tls_ca"), "{what}; {mend}");
        assert_eq!(refused("", &Outside(io::Error::other("nothing of the kind"))), None);
    }
}
