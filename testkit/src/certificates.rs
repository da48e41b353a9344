//! Certificates for one test, made by `openssl`: an authority, and a server and a client
//! certificate that it signed. They hold exactly one name, so that a test can show which name a
//! client uses to reach a server.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use redis::{Client, ClientTlsConfig, TlsCertificates};
use sandhog_config::RedisSettings;
use tempfile::TempDir;

/// An authority with one server and one client certificate. The files are removed on drop.
#[derive(Debug)]
pub struct Certificates {
    folder: TempDir,
    host: String,
}

impl Certificates {
    /// Makes the certificates for a server with this one name or address, valid for a day.
    ///
    /// # Panics
    /// Panics if `openssl` is not installed or fails.
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
            "req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=authority -keyout ca.key -out \
             ca.crt",
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

    /// Returns the name or address that the server's certificate holds.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns the path of a file: `ca.crt`, `server.crt`, `server.key`, `client.crt` or
    /// `client.key`.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Returns settings that connect to this URL with the client's certificate.
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
    /// Panics if the URL is invalid.
    #[must_use]
    pub fn client(&self, url: &str) -> Client {
        // Another test may have installed the provider already.
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

    /// Server arguments that make it listen on `port` with these certificates and require a
    /// certificate from each client.
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
