//! Certificates of one's own, made by `openssl` for one test: an authority, a server and a client it signed.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// An authority with one server (`localhost`) and one client; removed when dropped.
#[derive(Debug)]
pub struct Certificates {
    folder: TempDir,
}

impl Certificates {
    /// Makes them, valid for a day.
    ///
    /// # Panics
    /// When `openssl` is not installed or refuses.
    #[must_use]
    pub fn make() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let names = folder.path().join("names");
        std::fs::write(&names, "subjectAltName=DNS:localhost\n")
            .expect("a temporary file can be written");
        openssl(
            folder.path(),
            "req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=authority -keyout ca.key -out ca.crt",
        );
        for who in ["server", "client"] {
            openssl(
                folder.path(),
                &format!(
                    "req -newkey rsa:2048 -nodes -subj /CN={who} -keyout {who}.key -out {who}.csr"
                ),
            );
            openssl(
                folder.path(),
                &format!(
                    "x509 -req -days 1 -in {who}.csr -CA ca.crt -CAkey ca.key -CAcreateserial \
                     -extfile names -out {who}.crt"
                ),
            );
        }
        Self { folder }
    }

    /// The file of this name: `ca.crt`, `server.crt`, `server.key`, `client.crt`, `client.key`.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What makes a server listen on `port` with these certificates, and ask each client for one.
    #[must_use]
    pub fn server_arguments(&self, port: u16) -> Vec<String> {
        let path = |name: &str| self.file(name).display().to_string();
        [
            ("--tls-port", port.to_string()),
            ("--tls-ca-cert-file", path("ca.crt")),
            ("--tls-cert-file", path("server.crt")),
            ("--tls-key-file", path("server.key")),
        ]
        .into_iter()
        .flat_map(|(name, value)| [name.to_owned(), value])
        .collect()
    }
}

fn openssl(folder: &Path, words: &str) {
    let made = Command::new("openssl")
        .args(words.split_whitespace())
        .current_dir(folder)
        .output()
        .unwrap_or_else(|error| {
            panic!("openssl did not start: {error}\nhint: apt-get install openssl")
        });
    assert!(
        made.status.success(),
        "openssl {words}: {}",
        String::from_utf8_lossy(&made.stderr)
    );
}
