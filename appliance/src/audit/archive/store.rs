//! Object stores: S3, Google Cloud Storage, Azure, named by an address. Behind the cargo feature `object-store`, which costs a
//! minute of build: without it an address is refused with a sentence that says so.

use crate::audit::segment::at;
use std::io;
use std::path::Path;

/// An address of an object store, not of a webhook or a folder.
pub fn is_address(text: &str) -> bool {
    ["s3://", "gs://", "az://", "azure://", "abfs://", "abfss://"].iter().any(|scheme| text.starts_with(scheme))
}

/// `NAME=VALUE` lines, as an environment file has them; `#` begins a comment.
pub fn read_credentials(path: &Path) -> io::Result<Vec<(String, String)>> {
    let text = std::fs::read_to_string(path).map_err(|error| at(path, error))?;
    let mut options = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (name, value) = line.split_once('=').ok_or_else(|| {
            // The line itself may be a secret.
            at(path, io::Error::new(io::ErrorKind::InvalidData, "lines of the form NAME=VALUE are expected"))
        })?;
        options.push((name.trim().to_owned(), value.trim().trim_matches('"').to_owned()));
    }
    Ok(options)
}

#[cfg(feature = "object-store")]
mod open {
    use object_store::path::Path as Key;
    use object_store::{ObjectStore, ObjectStoreExt as _, WriteMultipart};
    use std::io;

    /// Larger objects are sent in parts.
    const PART_BYTES: usize = 16 << 20;

    /// A store and the place in it that is ours.
    pub struct Store {
        runtime: tokio::runtime::Runtime,
        store: Box<dyn ObjectStore>,
        prefix: Key,
    }

    impl Store {
        /// `options`: what the environment or a file says, by the names the clouds' own tools use.
        pub fn open(address: &str, options: Vec<(String, String)>) -> io::Result<Self> {
            let url = reqwest::Url::parse(address).map_err(io::Error::other)?;
            let (store, prefix) = object_store::parse_url_opts(&url, options).map_err(io::Error::other)?;
            let runtime = crate::workers::runtime(1, "store-names")?;
            Ok(Self { runtime, store, prefix })
        }

        /// The whole object or nothing, replacing one of that name: whoever sends it again sends the same.
        pub fn put(&self, name: &str, bytes: Vec<u8>) -> io::Result<()> {
            let key = Key::from(format!("{}/{name}", self.prefix));
            self.runtime.block_on(async {
                if bytes.len() <= PART_BYTES {
                    return self.store.put(&key, bytes.into()).await.map(drop).map_err(io::Error::other);
                }
                let upload = self.store.put_multipart(&key).await.map_err(io::Error::other)?;
                let mut parts = WriteMultipart::new_with_chunk_size(upload, PART_BYTES);
                parts.write(&bytes);
                parts.finish().await.map(drop).map_err(io::Error::other)
            })
        }
    }
}

#[cfg(not(feature = "object-store"))]
mod open {
    use std::io;

    /// Never made without the feature.
    pub enum Store {}

    impl Store {
        pub fn open(_: &str, _: Vec<(String, String)>) -> io::Result<Self> {
            Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "this program was built without object stores (cargo feature `object-store`)",
            ))
        }

        pub fn put(&self, _: &str, _: Vec<u8>) -> io::Result<()> {
            match *self {}
        }
    }
}

pub use open::Store;

/// With the credentials of the file, else of the environment.
pub fn open(address: &str, credentials: Option<&Path>) -> io::Result<Store> {
    let options = match credentials {
        Some(file) => read_credentials(file)?,
        None => std::env::vars().filter(|(name, _)| is_of_a_cloud(name)).collect(),
    };
    Store::open(address, options)
}

fn is_of_a_cloud(name: &str) -> bool {
    ["AWS_", "GOOGLE_", "AZURE_"].iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_read_as_an_environment_file_and_never_shown() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("credentials");
        std::fs::write(&path, "# ours\nAWS_ACCESS_KEY_ID=a\n\nAWS_SECRET_ACCESS_KEY=\"b=c\"\n").unwrap();
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let expected = [pair("AWS_ACCESS_KEY_ID", "a"), pair("AWS_SECRET_ACCESS_KEY", "b=c")];
        assert_eq!(read_credentials(&path).unwrap(), expected);
        std::fs::write(&path, "hunter2\n").unwrap();
        assert!(!read_credentials(&path).unwrap_err().to_string().contains("hunter2"));
    }

    #[test]
    fn addresses_of_stores_are_told_from_others() {
        assert!(is_address("s3://bucket/prefix") && is_address("gs://b") && is_address("az://b"));
        assert!(!is_address("https://hook") && !is_address("/mnt/worm"));
    }
}
