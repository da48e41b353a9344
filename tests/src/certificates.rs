//! Certificates of one's own, made by `openssl` for one test: an authority, a server and a client it signed. They hold
//! one name, so that a test shows by which name a server is reached.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use redis::{Client, ClientTlsConfig, TlsCertificates};
use sandhog_common::config::RedisSettings;
use tempfile::TempDir;

/// An authority with one server and one client; removed when dropped.
#[derive(Debug)]
pub struct Certificates {
    folder: TempDir,
    host: String,
}

impl Certificates {
    /// Makes them for a server of this one name or address, valid for a day.
    ///
    /// # Panics
    /// When `openssl` is not installed or refuses.
    #[must_use]
    pub fn make(host: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let names = folder.path().join("names");
        let kind = match host.parse::<IpAddr>() {
            Ok(_address) => "IP",
            Err(_name) => "DNS",
        };
        std::fs::write(&names, format!("subjectAltName={kind}:{host}\n"))
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
        Self {
            folder,
            host: host.to_owned(),
        }
    }

    /// The name or address that the server's certificate holds.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The file of this name: `ca.crt`, `server.crt`, `server.key`, `client.crt`, `client.key`.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Settings that reach this URL with the client's certificate.
    #[must_use]
    pub fn settings(&self, url: &str) -> RedisSettings {
        RedisSettings {
            url: Some(url.to_owned()),
            tls_ca: Some(self.file("ca.crt")),
            tls_cert: Some(self.file("client.crt")),
            tls_key: Some(self.file("client.key")),
            ..RedisSettings::default()
        }
    }

    /// A plain client of one server, with the client's certificate.
    ///
    /// # Panics
    /// When the URL does not read.
    #[must_use]
    pub fn client(&self, url: &str) -> Client {
        // Somebody may have chosen already.
        drop(rustls::crypto::ring::default_provider().install_default());
        let pem = |name| std::fs::read(self.file(name)).expect("our own file is there");
        let certificates = TlsCertificates {
            client_tls: Some(ClientTlsConfig {
                client_cert: pem("client.crt"),
                client_key: pem("client.key"),
            }),
            root_cert: Some(pem("ca.crt")),
        };
        Client::build_with_tls(url, certificates).expect("our own URL is valid")
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
